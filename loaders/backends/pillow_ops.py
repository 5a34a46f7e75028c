"""What the release of Guo et al. (CVPR 2022) does to frames, in Pillow's arithmetic: 8 bits, rounded after each step.

The release calls torchvision's transforms of Pillow images, so they are called here, too, with what a plan says in
place of their random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image


def resize_frames(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes frames bilinearly, antialiased where it shrinks.

    Args:
        frames: uint8 [T, H, W, 3].
        height: The new height in pixels.
        width: The new width in pixels.

    Returns:
        uint8 [T, height, width, 3].
    """
    size, bilinear = (width, height), Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, bilinear)) for frame in frames])


def apply_color_steps(frames: np.ndarray, steps: Sequence[tuple[str, float]]) -> np.ndarray:
    """Applies the steps to each frame, one after the other.

    Args:
        frames: uint8 [T, H, W, 3].
        steps: Names with factors: `brightness`; `contrast`, about the mean grey of the image; `saturation`, of which 0
            is grey; and `hue`, of HSV, in turns of the colour circle. Hue 0 and 1 of the others change nothing.

    Returns:
        uint8 [T, H, W, 3].
    """
    from torchvision.transforms import functional  # two seconds of importing, and few configurations have such steps

    adjust = {
        "brightness": functional.adjust_brightness,
        "contrast": functional.adjust_contrast,
        "saturation": functional.adjust_saturation,
        "hue": functional.adjust_hue,
    }
    images = []
    for frame in frames:
        image = Image.fromarray(frame)
        for name, factor in steps:
            image = adjust[name](image, factor)
        images.append(np.asarray(image))
    return np.stack(images)
