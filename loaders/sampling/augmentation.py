"""What a view looks like: crop, mirror and colours, the same for all frames of a view, as pure functions.

The colour step is linear by design: brightness, contrast, saturation, hue and grey compose into one affine map of RGB,
so that a backend can fold it into its conversion from YUV, and so that all backends compute the same thing. Values are
not clamped on the way. Contrast pivots at 0.5, and hue turns the chroma plane of YIQ. The published form, in 8 bits and
in random order, is `color_arithmetic = "pillow"` (cacl.loaders.backends.pillow_ops).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from cacl.clips import VideoRecord, ViewPlan
from cacl.config import AugmentConfig
from cacl.loaders.sampling.rng import RandomStream

BT601_LUMA = np.array([0.299, 0.587, 0.114])
"""The weights of red, green and blue in luma, as in ITU-R BT.601."""
RGB_TO_YIQ = np.array([BT601_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
"""The matrix of NTSC, as in FCC 1953."""
IDENTITY_COLOR = np.eye(3, 4, dtype=np.float32)
"""The colour matrix that leaves RGB as it is."""


def draw_view(rng: RandomStream, video: VideoRecord, config: AugmentConfig) -> ViewPlan:
    """Draws a random view of a video, for training. Every position of the crop is as likely as any other.

    Args:
        rng: The random numbers.
        video: The record of the video, whose width and height count.
        config: The ranges and the probabilities.

    Returns:
        The view.
    """
    height, width = _cropped_frame_size(video, config)
    grid = 1 if any(config.resize) else 2
    side = _crop_side(height, width, rng.uniform(*config.crop))
    top, left = (grid * rng.integer(0, (edge - side) // grid + 1) for edge in (height, width))
    flip = rng.chance(config.flip_prob)
    factors, grayscale = _draw_color_factors(rng, config)
    color, pillow_steps = IDENTITY_COLOR, ()
    if config.color_arithmetic == "pillow":
        pillow_steps = _draw_pillow_steps(rng, factors, grayscale, config)
    else:
        color = color_matrix(**factors | ({"saturation": 0.0} if grayscale else {}))
    return ViewPlan(top=top, left=left, side=side, flip=flip, color=color, pillow_steps=pillow_steps)


def center_crop_view(video: VideoRecord, config: AugmentConfig) -> ViewPlan:
    """Returns the view of an evaluation: the centre crop at the largest scale of training, in its own colours.

    Args:
        video: The record of the video, whose width and height count.
        config: The largest crop, and the size that frames are resized to.
    """
    height, width = _cropped_frame_size(video, config)
    side = _crop_side(height, width, config.crop[1])
    if any(config.resize):
        top, left = round((height - side) / 2), round((width - side) / 2)  # as torchvision's: halves to even
    else:
        top, left = _round_down_to_even((height - side) / 2), _round_down_to_even((width - side) / 2)
    return ViewPlan(top=top, left=left, side=side, flip=False, color=IDENTITY_COLOR)


def three_crop_views(video: VideoRecord, config: AugmentConfig) -> tuple[ViewPlan, ViewPlan, ViewPlan]:
    """Returns three views of an evaluation along the longer side of the frame: its beginning, its centre and its end.

    Args:
        video: The record of the video, whose width and height count.
        config: The largest crop, and the size that frames are resized to.
    """
    centre = center_crop_view(video, config)
    height, width = _cropped_frame_size(video, config)
    end = max(height, width) - centre.side
    if not any(config.resize):
        end = _round_down_to_even(end)
    edge = "left" if width >= height else "top"
    return replace(centre, **{edge: 0}), centre, replace(centre, **{edge: end})


def color_matrix(
    *, brightness: float = 1.0, contrast: float = 1.0, saturation: float = 1.0, hue: float = 0.0
) -> np.ndarray:
    """Composes the colour steps, in the order of the arguments, into one affine map of RGB in [0, 1].

    Args:
        brightness: A factor. 1 changes nothing.
        contrast: A factor about 0.5. 1 changes nothing.
        saturation: A factor. 1 changes nothing, and 0 is grey.
        hue: Turns of the colour circle.

    Returns:
        float32 [3, 4]: three columns for red, green and blue, and the offset.
    """
    grey = np.tile(BT601_LUMA, (3, 1))
    angle = 2 * math.pi * hue
    turn = np.array([[1, 0, 0], [0, math.cos(angle), -math.sin(angle)], [0, math.sin(angle), math.cos(angle)]])
    hue_and_saturation = (
        np.linalg.inv(RGB_TO_YIQ) @ turn @ RGB_TO_YIQ @ (saturation * np.eye(3) + (1 - saturation) * grey)
    )
    linear = hue_and_saturation * contrast * brightness
    offset = hue_and_saturation @ np.full(3, 0.5 * (1 - contrast))
    return np.column_stack([linear, offset]).astype(np.float32)


def _draw_color_factors(rng: RandomStream, config: AugmentConfig) -> tuple[dict[str, float], bool]:
    """Draws the factor of each colour step, none of them where there is no jitter, and whether the view is grey.

    All numbers are drawn whatever the outcome.
    """
    jitter, grayscale = rng.chance(config.color_jitter_prob), rng.chance(config.grayscale_prob)
    factors = {
        name: rng.uniform(1 - strength, 1 + strength)
        for name, strength in (
            ("brightness", config.brightness),
            ("contrast", config.contrast),
            ("saturation", config.saturation),
        )
    }
    factors["hue"] = rng.uniform(-config.hue, config.hue)
    return factors if jitter else {}, grayscale


def _draw_pillow_steps(
    rng: RandomStream, factors: dict[str, float], grayscale: bool, config: AugmentConfig
) -> tuple[tuple[str, float], ...]:
    """Draws the order of the colour steps. Steps of strength 0 are left out: hue rounds even where it turns nothing."""
    steps = [(name, factor) for name, factor in factors.items() if getattr(config, name) > 0]
    shuffled = [steps[number] for number in rng.permutation(len(steps))]
    return tuple(shuffled + [("saturation", 0.0)] * grayscale)


def _cropped_frame_size(video: VideoRecord, config: AugmentConfig) -> tuple[int, int]:
    """Returns height and width in pixels of the frame of which the view is cropped."""
    return config.resize if any(config.resize) else (video.height, video.width)


def _crop_side(height: int, width: int, share: float) -> int:
    """Returns the side in pixels of a square crop that has this share of the short side."""
    return max(2, _round_down_to_even(share * min(height, width)))


def _round_down_to_even(pixels: float) -> int:
    """Edges fall on even pixels, so that a crop of 4:2:0 chroma planes is exact."""
    return int(pixels) // 2 * 2
