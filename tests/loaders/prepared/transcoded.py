"""Transcoded videos, and what their frames show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from cacl.loaders.decode.probe import probe
from cacl.loaders.decode.yuv import frame_yuv_to_rgb_matrix, planes
from cacl.loaders.prepared.transcode import TranscodeResult, TranscodeSettings, transcode

SMALL = TranscodeSettings(short_side=48, gop=8)

with_each_codec = pytest.mark.parametrize("codec", ["h264", "hevc"])
"""Gives a test the codec of the prepared videos."""


def made(source: Path, settings: TranscodeSettings = SMALL) -> tuple[TranscodeResult, Path]:
    file = source.parent / "converted"
    return transcode(source, probe(source), file, settings), file


def decoded(file: Path) -> list[VideoFrame]:
    with av.open(str(file)) as container:
        return list(container.decode(video=0))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the PSNR in dB of values in 0..255."""
    return 10 * math.log10(255**2 / max(1e-5, float(np.mean((a.astype(float) - b) ** 2))))


def to_rgb(frame: VideoFrame) -> np.ndarray:
    """Returns float64 [H, W, 3] in 0..255, by the colours that the frame states, with each chroma sample repeated."""
    luma, *chroma = (plane.astype(float) for plane in planes(frame))
    wide = [part.repeat(2, 0).repeat(2, 1)[: luma.shape[0], : luma.shape[1]] for part in chroma]
    matrix = frame_yuv_to_rgb_matrix(frame)
    return 255 * (np.stack([luma, *wide], -1) @ matrix[:, :3].T + matrix[:, 3])


def number_on(frame: VideoFrame) -> int:
    """Returns the number that the bars of `picture` spell."""
    luma = planes(frame)[0]
    height, width = luma.shape
    return sum(1 << bit for bit in range(8) if luma[height // 4, (2 * bit + 1) * width // 16] > 128)


def encode(
    path: Path,
    codec: str,
    pixels: str,
    images: Sequence[np.ndarray],
    *,
    colorspace: int = 6,
    color_range: int = 1,
    times: Sequence[int] = (),
    options: dict[str, str] | None = None,
) -> Path:
    """Encodes images, uint8 [H, W, 3], with the colours that are stated."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, 25, options)
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.thread_count = 1
        context.height, context.width, context.pix_fmt = *images[0].shape[:2], pixels
        context.colorspace, context.color_range = colorspace, color_range
        for number, image in enumerate(images):
            frame = VideoFrame.from_ndarray(image, "rgb24")
            standard = {1: "ITU709", 9: "BT2020"}.get(colorspace, "ITU601")
            frame = frame.reformat(format=pixels, dst_colorspace=standard, dst_color_range=color_range)
            frame.pts, frame.time_base = times[number] if times else number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def patches(width: int = 128, height: int = 96) -> np.ndarray:
    """Returns an image of six flat colours, uint8 [H, W, 3], which subsampled and scaled chroma do not change."""
    colours = np.array([[[200, 40, 60], [30, 180, 70], [50, 60, 190]], [[230, 230, 230], [20, 20, 20], [180, 170, 30]]])
    return colours.repeat(-(-height // 2), 0).repeat(-(-width // 3), 1)[:height, :width].astype(np.uint8)
