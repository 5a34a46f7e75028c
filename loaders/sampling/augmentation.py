"""What a view looks like, as pure draws: crop, flip and colours, the same for all frames of a view.

The colour step is linear by design: brightness, contrast, saturation, hue and grey compose into one affine map of RGB,
so that a backend can fold it into its conversion from YUV, and so that all backends compute the same thing. Values are
not clamped on the way. Contrast pivots at 0.5, hue turns the chroma plane of YIQ. The published form, in 8 bits and in
random order, is `pillow`.
"""

from __future__ import annotations

import math

import numpy as np

from cacl.clips import VideoRecord, ViewPlan
from cacl.config import AugmentConfig
from cacl.loaders.sampling.rng import RandomStream

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
RGB_TO_YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])  # NTSC, as in FCC 1953
IDENTITY_COLOR = np.eye(3, 4, dtype=np.float32)


def draw_view(rng: RandomStream, video: VideoRecord, config: AugmentConfig) -> ViewPlan:
    """One random view of a video, for training. Every place of the crop is as likely as any other."""
    height, width = _cropped_frame_size(video, config)
    grid = 1 if any(config.resize) else 2
    side = _crop_side(height, width, rng.uniform(*config.crop))
    top, left = (grid * rng.integer(0, (edge - side) // grid + 1) for edge in (height, width))
    flip, factors, grey = rng.chance(config.flip_prob), *_draw_factors(rng, config)
    color, pillow_steps = IDENTITY_COLOR, ()
    if config.arithmetic == "pillow":
        pillow_steps = _draw_pillow_steps(rng, factors, grey, config)
    else:
        color = color_matrix(**factors | ({"saturation": 0.0} if grey else {}))
    return ViewPlan(top=top, left=left, side=side, flip=flip, color=color, pillow_steps=pillow_steps)


def center_view(video: VideoRecord, config: AugmentConfig) -> ViewPlan:
    """The centre crop at the largest scale seen in training, as it is: for evaluation."""
    height, width = _cropped_frame_size(video, config)
    side = _crop_side(height, width, config.crop[1])
    if any(config.resize):
        top, left = round((height - side) / 2), round((width - side) / 2)  # as torchvision's: halves to even
    else:
        top, left = _even((height - side) / 2), _even((width - side) / 2)
    return ViewPlan(top=top, left=left, side=side, flip=False, color=IDENTITY_COLOR)


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


def _draw_factors(rng: RandomStream, config: AugmentConfig) -> tuple[dict[str, float], bool]:
    """The steps of the jitter with their factors, none where it is left out; and whether the colour is dropped."""
    jitter, grey = rng.chance(config.color_jitter_prob), rng.chance(config.grayscale_prob)
    factors = {
        name: rng.uniform(1 - strength, 1 + strength)
        for name, strength in (
            ("brightness", config.brightness),
            ("contrast", config.contrast),
            ("saturation", config.saturation),
        )
    }
    factors["hue"] = rng.uniform(-config.hue, config.hue)
    return factors if jitter else {}, grey


def _draw_pillow_steps(
    rng: RandomStream, factors: dict[str, float], grey: bool, config: AugmentConfig
) -> tuple[tuple[str, float], ...]:
    """In random order, without those of strength 0: hue rounds even where it turns nothing."""
    steps = [(name, factor) for name, factor in factors.items() if getattr(config, name) > 0]
    shuffled = [steps[number] for number in rng.permutation(len(steps))]
    return tuple(shuffled + [("saturation", 0.0)] * grey)


def _cropped_frame_size(video: VideoRecord, config: AugmentConfig) -> tuple[int, int]:
    """Height and width of the frame that is cropped."""
    return config.resize if any(config.resize) else (video.height, video.width)


def _crop_side(height: int, width: int, share: float) -> int:
    return max(2, _even(share * min(height, width)))


def _even(pixels: float) -> int:
    """Edges fall on even pixels, so that a crop of 4:2:0 chroma planes is exact."""
    return int(pixels) // 2 * 2
