"""Features that have learnt nothing. Encoders are worth something where they retrieve better than these."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from cacl.clips import VideoRecord

GRID_SIZE = 16
"""The side of the grid that pixels are averaged to."""


def mean_frame(clips: Tensor, order: Tensor) -> Tensor:
    """Averages the frames of each clip at 16 x 16 pixels: what is seen, without any motion.

    Args:
        clips: float32 [B, 3, T, H, W].
        order: Integers [B, T]. They are not used.

    Returns:
        float32 [B, 768].
    """
    return F.adaptive_avg_pool2d(clips.mean(2), GRID_SIZE).flatten(1)


def frame_difference(clips: Tensor, order: Tensor) -> Tensor:
    """Averages the changes from frame to frame of each clip at 16 x 16 pixels: where the picture moves.

    Args:
        clips: float32 [B, 3, T, H, W].
        order: Integers [B, T]. They are not used.

    Returns:
        float32 [B, 768].
    """
    return F.adaptive_avg_pool2d(clips.diff(dim=2).abs().mean(2), GRID_SIZE).flatten(1)


BASELINES_OF_CLIPS = {"mean frame": mean_frame, "frame difference": frame_difference}
"""The baselines that are computed of clips, by name."""


def size_and_length(videos: Sequence[VideoRecord]) -> np.ndarray:
    """Takes the width, height and frame count of each video as its feature: what can be told without any pixel.

    Args:
        videos: The V videos of a data set.

    Returns:
        float64 [V, 4]: the three numbers, each with a mean of 0 and a standard deviation of 1 over the videos, and a
        constant beside them, which lets the cosine tell near from far along a ray.
    """
    values = np.array([(video.width, video.height, video.frames) for video in videos], np.float64)
    deviation = values.std(0)
    standardised = (values - values.mean(0)) / np.where(deviation > 0, deviation, 1)
    return np.column_stack([standardised, np.ones(len(values))])
