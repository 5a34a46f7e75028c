"""Decoded frames as 8-bit 4:2:0 planes, and the affine map that makes RGB of them."""

from __future__ import annotations

import zlib
from functools import lru_cache

import av.video.reformatter as reformatter
import numpy as np
from av.video.frame import VideoFrame

PLANAR_420 = {"yuv420p", "yuvj420p"}
LUMA_WEIGHTS = {1: (0.2126, 0.0722), 9: (0.2627, 0.0593)}
"""(red, blue) by H.273 matrix coefficients: 1 is BT.709, 9 is BT.2020. All else is read as BT.601."""
BT601_WEIGHTS = (0.299, 0.114)
FULL_RANGE = 2
ACCURATE_SCALING = (
    reformatter.Interpolation.BILINEAR
    | reformatter.Interpolation.ACCURATE_RND
    | reformatter.Interpolation.FULL_CHR_H_INT
)
"""Without the last two, swscale's fast paths darken by 1 or 2 of 255 and repeat chroma columns."""


def as_planar_420(frame: VideoFrame) -> VideoFrame:
    """The frame itself where it is 8-bit 4:2:0 already (nearly always), else its conversion."""
    if frame.format.name in PLANAR_420:
        return frame
    return frame.reformat(
        format="yuv420p",
        dst_colorspace=reformatter.Colorspace.ITU601,
        dst_color_range=reformatter.ColorRange.MPEG,
        interpolation=ACCURATE_SCALING,
        threads=1,
    )


def planes(frame: VideoFrame) -> list[np.ndarray]:
    """uint8 [H, W] each: luma and both chroma planes, without the padding at the end of their rows."""
    return [
        np.ndarray((data.height, data.width), np.uint8, data, strides=(data.line_size, 1))  # type: ignore[arg-type]
        for data in frame.planes
    ]


def plane(frame: VideoFrame, which: int) -> np.ndarray:
    """uint8 [H, W]: one of them (0 luma, 1 and 2 chroma)."""
    return planes(frame)[which]


def frame_checksum(frame: VideoFrame) -> int:
    """A checksum over the planes, and over the way they turn into RGB."""
    checksum = zlib.crc32(frame_yuv_to_rgb_matrix(frame).tobytes())
    for plane in planes(frame):
        checksum = zlib.crc32(np.ascontiguousarray(plane).data, checksum)
    return checksum


def frame_yuv_to_rgb_matrix(frame: VideoFrame) -> np.ndarray:
    """float64 [3, 4]: RGB in [0, 1] from (Y, U, V) in 0..255, for the colour standard and range the frame states."""
    full = frame.color_range == FULL_RANGE or frame.format.name == "yuvj420p"
    return yuv_to_rgb_matrix(frame.colorspace, full)


def source_colorspace(frame: VideoFrame) -> reformatter.Colorspace:
    """The same choice of standard for PyAV's own conversion."""
    named = {1: reformatter.Colorspace.ITU709, 9: reformatter.Colorspace.BT2020}
    return named.get(frame.colorspace, reformatter.Colorspace.ITU601)


@lru_cache
def yuv_to_rgb_matrix(matrix_coefficients: int, full_range: bool) -> np.ndarray:
    """float64 [3, 4]: RGB in [0, 1] from (Y, U, V) in 0..255, by the coefficients and quantisation of ITU-T H.273."""
    red, blue = LUMA_WEIGHTS.get(matrix_coefficients, BT601_WEIGHTS)
    green = 1 - red - blue
    from_ycc = np.array(
        [
            [1, 0, 2 * (1 - red)],
            [1, -2 * blue * (1 - blue) / green, -2 * red * (1 - red) / green],
            [1, 2 * (1 - blue), 0],
        ]
    )
    black, luma_span, chroma_span = (0, 255, 255) if full_range else (16, 219, 224)
    linear = from_ycc / np.array([luma_span, chroma_span, chroma_span])
    offset = -linear @ np.array([black, 128, 128])
    return np.column_stack([linear, offset])
