"""What the release of Guo et al. (CVPR 2022) does to frames, in Pillow's arithmetic: 8 bits, rounded after each step.

torchvision's transforms of Pillow images are what it calls, so they are called here, too, with what a plan says in
place of their random draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image
from torchvision.transforms import functional

STEPS: dict[str, Callable[..., Any]] = {
    "brightness": functional.adjust_brightness,
    "contrast": functional.adjust_contrast,
    "saturation": functional.adjust_saturation,
    "hue": functional.adjust_hue,
}
"""(image, factor) -> image. Factors are as torchvision has them: hue in turns of the colour circle, and of the others
1 changes nothing. Contrast is about the mean grey of the image, hue is that of HSV, and saturation 0 is grey."""


def resized(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [T, H, W, 3] -> uint8 [T, height, width, 3]: bilinear, antialiased where it shrinks."""
    size, bilinear = (width, height), Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, bilinear)) for frame in frames])


def jittered(frames: np.ndarray, steps: Sequence[tuple[str, float]]) -> np.ndarray:
    """uint8 [T, H, W, 3] -> the same, one step after the other on each frame."""
    images = []
    for frame in frames:
        image = Image.fromarray(frame)
        for name, factor in steps:
            image = STEPS[name](image, factor)
        images.append(np.asarray(image))
    return np.stack(images)
