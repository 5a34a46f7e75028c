"""How the picture of a video moves, measured in its frames and from nothing else."""

import itertools
import math

import numpy as np

INNER = np.s_[8:-8, 8:-8]
"""The pixels of a frame whose content was in the frame before, too."""
LUMA = np.array([0.299, 0.587, 0.114])


def sample(images: np.ndarray, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Interpolates images [N, H, W] bilinearly at positions [h, w], which gives [N, h, w]."""
    left, top = np.floor(column).astype(int), np.floor(row).astype(int)
    right_share, lower_share = (column - left).astype(np.float32), (row - top).astype(np.float32)
    upper = images[:, top, left] * (1 - right_share) + images[:, top, left + 1] * right_share
    lower = images[:, top + 1, left] * (1 - right_share) + images[:, top + 1, left + 1] * right_share
    return upper * (1 - lower_share) + lower * lower_share


def measure_motion(video: np.ndarray) -> np.ndarray:
    """Fits a similarity transform between neighbouring frames by least squares (Gauss-Newton on the luma).

    Args:
        video: RGB frames, uint8 [T, H, W, 3].

    Returns:
        The means over the video of the shift to the right and downwards in pixels, the clockwise turn in radians, and
        the growth of the logarithm of the scale, each from frame to frame: [4].
    """
    luma = _blur((video @ LUMA).astype(np.float32))
    height, width = luma.shape[1:]
    x, y = np.meshgrid(np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2)
    x, y = x[INNER], y[INNER]
    steps, estimate = [], np.zeros(4)
    for before, after in itertools.pairwise(luma):
        along_y, along_x = np.gradient(before)
        images = np.stack([before, along_x, along_y])
        for _ in range(3 if steps else 10):  # the motion is steady: what was found for two frames is near the next
            right, down, turn, growth = estimate
            cos, sin = math.exp(-growth) * math.cos(turn), math.exp(-growth) * math.sin(turn)
            from_x = cos * (x - right) + sin * (y - down)
            from_y = cos * (y - down) - sin * (x - right)
            column, row = from_x + (width - 1) / 2, from_y + (height - 1) / 2
            value, by_x, by_y = sample(images, column.clip(0, width - 1.01), row.clip(0, height - 1.01))
            slopes = np.stack([-by_x, -by_y, by_x * from_y - by_y * from_x, -by_x * from_x - by_y * from_y])
            slopes = slopes.reshape(4, -1).astype(np.float64)
            change = np.linalg.solve(slopes @ slopes.T, slopes @ (after[INNER] - value).ravel())
            estimate = estimate + change
        steps.append(estimate)
    return np.mean(steps, axis=0)


def _blur(video: np.ndarray) -> np.ndarray:
    """Blurs over about three pixels, so that the frames are nearly linear over the way of one step."""
    for _ in range(4):
        padded = np.pad(video, [(0, 0), (1, 1), (0, 0)], mode="edge")
        video = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
        padded = np.pad(video, [(0, 0), (0, 0), (1, 1)], mode="edge")
        video = (padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]) / 4
    return video
