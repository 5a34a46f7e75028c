"""What a view looks like, as pure draws: crop, flip and one colour matrix, the same for all frames of a view.

The colour step is linear by design: brightness, contrast, saturation, hue and grey compose into one affine map of RGB,
so that a backend can fold it into its conversion from YUV, and so that all backends compute the same thing. Values are
not clamped on the way. Contrast pivots at 0.5, hue turns the chroma plane of YIQ.
"""

from __future__ import annotations

import math

import numpy as np

from cacl.clips import VideoRecord, ViewPlan
from cacl.config import AugmentConfig
from cacl.loaders.draws import Draws

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
RGB_TO_YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])  # NTSC, as in FCC 1953
IDENTITY_COLOR = np.eye(3, 4, dtype=np.float32)


def draw_view(draws: Draws, video: VideoRecord, config: AugmentConfig) -> ViewPlan:
    """One random view of a video, for training."""
    side = _crop_side(video, draws.uniform(*config.crop))
    return ViewPlan(
        top=_even(draws.uniform(0, video.height - side + 1)),
        left=_even(draws.uniform(0, video.width - side + 1)),
        side=side,
        flip=draws.chance(config.flip),
        color=_draw_color(draws, config),
    )


def center_view(video: VideoRecord, config: AugmentConfig) -> ViewPlan:
    """The centre crop at the largest scale seen in training, as it is: for evaluation."""
    side = _crop_side(video, config.crop[1])
    return ViewPlan(
        top=_even((video.height - side) / 2),
        left=_even((video.width - side) / 2),
        side=side,
        flip=False,
        color=IDENTITY_COLOR,
    )


def color_matrix(
    *, brightness: float = 1.0, contrast: float = 1.0, saturation: float = 1.0, hue: float = 0.0
) -> np.ndarray:
    """float32 [3, 4]: the affine map of RGB in [0, 1] that applies the four in this order.

    The first three are factors (1 changes nothing, saturation 0 is grey); hue is in turns of the colour circle.
    """
    grey = np.tile(LUMA, (3, 1))
    angle = 2 * math.pi * hue
    turn = np.array([[1, 0, 0], [0, math.cos(angle), -math.sin(angle)], [0, math.sin(angle), math.cos(angle)]])
    hue_and_saturation = (
        np.linalg.inv(RGB_TO_YIQ) @ turn @ RGB_TO_YIQ @ (saturation * np.eye(3) + (1 - saturation) * grey)
    )
    linear = hue_and_saturation * contrast * brightness
    offset = hue_and_saturation @ np.full(3, 0.5 * (1 - contrast))
    return np.column_stack([linear, offset]).astype(np.float32)


def _draw_color(draws: Draws, config: AugmentConfig) -> np.ndarray:
    jitter, grey = draws.chance(config.jitter), draws.chance(config.grey)
    brightness, contrast, saturation = (
        draws.uniform(1 - strength, 1 + strength)
        for strength in (config.brightness, config.contrast, config.saturation)
    )
    hue = draws.uniform(-config.hue, config.hue)
    if not jitter:
        brightness, contrast, saturation, hue = 1.0, 1.0, 1.0, 0.0
    return color_matrix(brightness=brightness, contrast=contrast, saturation=0.0 if grey else saturation, hue=hue)


def _crop_side(video: VideoRecord, share: float) -> int:
    return max(2, _even(share * min(video.width, video.height)))


def _even(pixels: float) -> int:
    """Edges fall on even pixels, so that a crop of 4:2:0 chroma planes is exact."""
    return int(pixels) // 2 * 2
