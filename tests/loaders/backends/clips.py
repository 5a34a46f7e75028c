"""Pictures whose values are known, videos that hold them without loss, and plans of clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from av.video.stream import VideoStream
from torch import Tensor

from cacl.clips import ClipPlan, VideoRecord, ViewPlan
from cacl.config import AugmentConfig, ClipConfig
from cacl.loaders.backends.thread_pool import LoadClip
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.decode.probe import probe
from cacl.loaders.sampling.augmentation import IDENTITY_COLOR, color_matrix
from cacl.loaders.sampling.sampler import ClipSampler

MakeVideo = Callable[..., Path]
LEVEL = 1 / 255
"""One step of 8 bits."""
CPU = torch.device("cpu")
FRAMES, LENGTH, STRIDE = 12, 4, 2
WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}
"""The weights of red and blue in luma, by H.273 matrix coefficients."""
COLOR = color_matrix(brightness=0.8, contrast=1.3, saturation=1.2, hue=0.06)


def gradients(size: tuple[int, int]) -> np.ndarray:
    """Returns soft, moving pictures of low saturation, between 0.2 and 0.9, float64 [T, 3, H, W]."""
    width, height = size
    t, y, x = np.meshgrid(np.arange(FRAMES), np.arange(height), np.arange(width), indexing="ij")
    grey = 0.5 + 0.25 * np.sin(x / 40 + y / 55 + t / 6)
    tint = np.sin(y / 35 + t / 9), np.cos(x / 45 - t / 7), np.sin((x - y) / 50 + 1)
    return np.stack([grey + 0.1 * wave for wave in tint], 1)


def save(path: Path, rgb: np.ndarray, pixels: str = "yuv420p", matrix: int = 5, full: bool = False) -> VideoRecord:
    """Encodes pictures without loss, as H.264, or as VP9 where an edge is odd.

    YUV is made by the formulas of H.273, with chroma averaged.
    """
    _, _, height, width = rgb.shape
    codec = "libx264rgb" if pixels == "rgb24" else "libvpx-vp9" if (width | height) % 2 else "libx264"
    options = {"lossless": "1", "cpu-used": "8"} if codec == "libvpx-vp9" else {"qp": "0", "preset": "ultrafast"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        if pixels != "rgb24":
            stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        for image in rgb:
            frame = av.VideoFrame(width, height, pixels)
            parts = [image.transpose(1, 2, 0) * 255] if pixels == "rgb24" else to_yuv(image, pixels, matrix, full)
            for plane, part in zip(frame.planes, parts, strict=True):
                samples = np.rint(part).astype(np.uint16 if "10" in pixels else np.uint8)
                rows = samples.reshape(len(samples), -1).view(np.uint8)
                padded = np.zeros((plane.height, plane.line_size), np.uint8)
                padded[:, : rows.shape[1]] = rows
                plane.update(padded.tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return probe(path)


def to_yuv(rgb: np.ndarray, pixels: str, matrix: int, full: bool) -> list[np.ndarray]:
    wr, wb = WEIGHTS[matrix]
    r, g, b = rgb
    y = wr * r + (1 - wr - wb) * g + wb * b
    chroma = (b - y) / (2 * (1 - wb)), (r - y) / (2 * (1 - wr))
    if "420" in pixels:
        chroma = [np.pad(c, [(0, n % 2) for n in c.shape], mode="edge") for c in chroma]
        chroma = [c.reshape(c.shape[0] // 2, 2, c.shape[1] // 2, 2).mean((1, 3)) for c in chroma]
    scale = 4 if "10" in pixels else 1
    return [scale * (255 * y if full else 219 * y + 16), *(scale * ((255 if full else 224) * c + 128) for c in chroma)]


def view(top: int, left: int, side: int, flip: bool = False, color: np.ndarray = IDENTITY_COLOR) -> ViewPlan:
    return ViewPlan(top=top, left=left, side=side, flip=flip, color=color)


def plan(*views: ViewPlan, start: int = 1) -> ClipPlan:
    order = tuple(range(LENGTH))
    return ClipPlan(index=0, video=0, start=start, stride=STRIDE, length=LENGTH, order=order, views=views)


def load(load_clip: LoadClip, video: VideoRecord, clip: ClipPlan, size: int) -> Tensor:
    """Returns the views of a clip, float64 [V, 3, T, size, size]."""
    out = torch.full((len(clip.views), 3, clip.length, size, size), torch.nan, dtype=torch.float16)
    load_clip(Path(video.path), video, clip, size, tuple(out))
    return out.double()


def truth(rgb: np.ndarray, clip: ClipPlan, size: int) -> Tensor:
    """Returns what `load` should return, made of upright pictures [T, 3, H, W] in float64."""
    return torch.stack([true_view(rgb[list(clip.frame_numbers)], v, size) for v in clip.views])


def true_view(rgb: np.ndarray, v: ViewPlan, size: int) -> Tensor:
    part = torch.from_numpy(rgb[..., v.top : v.top + v.side, v.left : v.left + v.side].copy())
    part = F.interpolate(part, (size, size), mode="bilinear", antialias=True)
    part = part.flip(-1) if v.flip else part
    color = torch.from_numpy(v.color.astype(np.float64))
    return (torch.einsum("rc,tchw->trhw", color[:, :3], part) + color[:, 3, None, None]).transpose(0, 1)


def check(ours: Tensor, theirs: Tensor, *, mean: float, largest: float, bias: float = 1.0) -> None:
    difference = (ours - theirs) / LEVEL
    seen = difference.abs().mean().item(), difference.abs().max().item(), difference.mean().item()
    assert seen[0] < mean, seen
    assert seen[1] < largest, seen
    assert abs(seen[2]) < bias, seen


def catalog(*records: VideoRecord) -> Catalog:
    return Catalog(root=Path("/"), layout="folder", videos=records, rejected=(), missing=())


def stream(videos: Catalog, steps: int = 6) -> list[list[ClipPlan]]:
    """Plans the batches of some steps. The last batch is shorter."""
    sampler = ClipSampler(videos.videos, ClipConfig(frames=6, size=32), AugmentConfig(), seed=3)
    batches = list(sampler.batches(0, steps, 4))
    return [*batches[:-1], batches[-1][:1]]
