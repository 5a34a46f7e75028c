"""Decoded frames as 8-bit 4:2:0 planes, and what they need to be displayed: an orientation, and a map to RGB."""

from __future__ import annotations

import zlib
from functools import lru_cache

import av.video.reformatter as reformatter
import numpy as np
from av.video.frame import VideoFrame

from cacl.clips import VideoRecord

PLANAR_420 = {"yuv420p", "yuvj420p"}
LUMA_WEIGHTS = {1: (0.2126, 0.0722), 9: (0.2627, 0.0593)}
"""The weights of (red, blue) in luma, by H.273 matrix coefficients: 1 is BT.709, 9 is BT.2020. All others are read as
BT.601."""
BT601_WEIGHTS = (0.299, 0.114)
FULL_RANGE = 2
ACCURATE_SCALING = (
    reformatter.Interpolation.BILINEAR
    | reformatter.Interpolation.ACCURATE_RND
    | reformatter.Interpolation.FULL_CHR_H_INT
)
"""Without the last two flags, swscale's fast paths darken by 1 or 2 of 255 and repeat chroma columns."""


def as_planar_420(frame: VideoFrame) -> VideoFrame:
    """Returns the frame itself if it is 8-bit 4:2:0 already (it nearly always is), else its conversion."""
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
    """Returns the planes of a frame without copying them.

    Args:
        frame: A frame in 8-bit 4:2:0.

    Returns:
        uint8 [H, W] for luma, and twice uint8 [H/2, W/2] (rounded up) for chroma, without the padding at the end of
        their rows.
    """
    return [
        np.ndarray((data.height, data.width), np.uint8, data, strides=(data.line_size, 1))  # type: ignore[arg-type]
        for data in frame.planes
    ]


def apply_orientation(image: np.ndarray, video: VideoRecord) -> np.ndarray:
    """Mirrors and turns a decoded image as the container wants it displayed.

    Args:
        image: Any dtype [..., H, W], as it was decoded.
        video: The video that it comes from.

    Returns:
        A view of the image, [..., H, W] or [..., W, H]; nothing is copied.
    """
    image = image[..., ::-1] if video.mirrored else image
    return np.rot90(image, video.rotation // 90, axes=(-2, -1)) if video.rotation else image


def frame_checksum(frame: VideoFrame) -> int:
    """Returns a CRC-32 of the planes of a frame and of the matrix that turns them into RGB.

    Args:
        frame: A frame in 8-bit 4:2:0.
    """
    checksum = zlib.crc32(frame_yuv_to_rgb_matrix(frame).tobytes())
    for plane in planes(frame):
        checksum = zlib.crc32(np.ascontiguousarray(plane).data, checksum)
    return checksum


def frame_yuv_to_rgb_matrix(frame: VideoFrame) -> np.ndarray:
    """Returns the matrix for the colour standard and the range that a frame states, see `yuv_to_rgb_matrix`."""
    full_range = frame.color_range == FULL_RANGE or frame.format.name == "yuvj420p"
    return yuv_to_rgb_matrix(frame.colorspace, full_range)


def source_colorspace(frame: VideoFrame) -> reformatter.Colorspace:
    """Returns the colour standard of a frame for PyAV's own conversion; the choice is that of `yuv_to_rgb_matrix`."""
    named = {1: reformatter.Colorspace.ITU709, 9: reformatter.Colorspace.BT2020}
    return named.get(frame.colorspace, reformatter.Colorspace.ITU601)


@lru_cache
def yuv_to_rgb_matrix(matrix_coefficients: int, full_range: bool) -> np.ndarray:
    """Returns the affine map from YUV to RGB, by the coefficients and the quantisation of ITU-T H.273.

    Args:
        matrix_coefficients: The number of the colour standard in H.273.
        full_range: Whether Y, U and V take all of 0..255, instead of 16..235 and 16..240.

    Returns:
        float64 [3, 4]: RGB in [0, 1] is matrix[:, :3] @ (Y, U, V) + matrix[:, 3], with Y, U and V in 0..255.
    """
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
