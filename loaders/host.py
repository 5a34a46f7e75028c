"""The backend of machines without a GPU: from the decoder's YUV planes to the views, with no RGB frame between.

YUV to RGB and the colours of a view are one 3x4 matrix, and resizing is linear too, so planes are cropped and resized
first (chroma at a quarter of the cost) and mixed once, straight into half precision.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cacl.clips import ClipPlan, VideoRecord, ViewPlan
from cacl.loaders.decode import decode_frames, upright
from cacl.loaders.memory import scratch
from cacl.loaders.mix import mix
from cacl.loaders.storage import Place
from cacl.loaders.yuv import as_planar_420, planes, rgb_matrix


def load_clip(place: Place, video: VideoRecord, plan: ClipPlan, size: int, out: Sequence[Tensor]) -> None:
    """Fills out, one float16 [3, T, size, size] per view, with the views of one clip."""
    luma, chroma, to_rgb = decode_planes(place, video, plan)
    for view, target in zip(plan.views, out, strict=True):
        make_view(luma, chroma, compose(view.color, to_rgb), view, size, target)


def decode_planes(place: Place, video: VideoRecord, plan: ClipPlan) -> tuple[Tensor, Tensor, np.ndarray]:
    """uint8 [T, H, W] luma, uint8 [2, T, H/2, W/2] chroma (rounded up), both upright, and their matrix to RGB.

    The planes are in memory of this thread, which its next call uses again.
    """
    luma = chroma = torch.empty(0)
    to_rgb = np.empty(0)
    for t, frame in enumerate(decode_frames(place, video, plan.frame_numbers)):
        frame = as_planar_420(frame)
        y, u, v = planes(frame)
        if t == 0:
            to_rgb = rgb_matrix(frame)
            luma = scratch("decoded luma", plan.length, *y.shape, dtype=torch.uint8)
            chroma = scratch("decoded chroma", 2, plan.length, *u.shape, dtype=torch.uint8)
        luma.numpy()[t], chroma.numpy()[0, t], chroma.numpy()[1, t] = y, u, v
    return _upright(luma, video.rotation), _upright(chroma, video.rotation), to_rgb


def _upright(planes: Tensor, rotation: int) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(upright(planes.numpy(), rotation))) if rotation else planes


def compose(color: np.ndarray, to_rgb: np.ndarray) -> np.ndarray:
    """float64 [3, 4]: first (Y, U, V) to RGB, then the colours of the view."""
    linear = color[:, :3].astype(np.float64)
    mixed = linear @ to_rgb
    mixed[:, 3] += color[:, 3]
    return mixed


def make_view(luma: Tensor, chroma: Tensor, matrix: np.ndarray, view: ViewPlan, size: int, out: Tensor) -> None:
    """Crops, resizes, mirrors and mixes the planes into out, float16 [3, T, size, size]."""
    top, left, side = view.top, view.left, view.side
    y = luma[:, top : top + side, left : left + side]
    uv = chroma[:, :, top // 2 : (top + side) // 2, left // 2 : (left + side) // 2]
    if view.flip:
        y, uv = y.flip(-1), uv.flip(-1)
    if side == size:
        mix(y, uv, torch.from_numpy(matrix).float(), out)
        return
    y, (u, v) = _resize(y[None], size)[0], _resize(uv, size)
    for channel, (from_y, from_u, from_v, offset) in zip(out, matrix.tolist(), strict=True):
        channel.copy_(torch.add(y * from_y, u, alpha=from_u).add_(v, alpha=from_v).add_(offset))


def _resize(planes: Tensor, size: int) -> Tensor:
    """uint8 [P, T, h, w] to float32 [P, T, size, size], antialiased where it shrinks."""
    return F.interpolate(planes.float(), (size, size), mode="bilinear", antialias=planes.shape[-1] > size)
