"""The checksum of a frame."""

from __future__ import annotations

import numpy as np
from av.video.frame import VideoFrame

from cacl.loaders.decode.yuv import frame_checksum


def test_a_checksum_is_of_all_that_is_seen() -> None:
    """One sample of any plane or the matrix to RGB changes it. What lies between the rows does not."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (72, 50), np.uint8)  # The rows of 50 x 48 pixels are padded.

    def made(pixels: np.ndarray, colorspace: int = 6, color_range: int = 1) -> VideoFrame:
        frame = VideoFrame.from_ndarray(pixels, "yuv420p")
        frame.colorspace, frame.color_range = colorspace, color_range
        return frame

    changes = [made(pixels, colorspace=1), made(pixels, color_range=2)]
    # They are the first and last samples of Y, U and V.
    for location in ((0, 0), (47, 49), (48, 0), (59, 49), (60, 0), (71, 49)):
        other = pixels.copy()
        other[location] ^= 1
        changes.append(made(other))
    padded = made(pixels)
    for plane in padded.planes:
        rows = np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, -1).copy()
        assert rows.shape[1] > plane.width
        rows[:, plane.width :] ^= 255
        plane.update(rows.tobytes())
    assert frame_checksum(padded) == frame_checksum(made(pixels))
    assert len({frame_checksum(frame) for frame in [made(pixels), *changes]}) == 9
