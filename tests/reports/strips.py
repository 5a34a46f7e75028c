"""Reads previews of pages."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from cacl.reports.previews import FRAMES


def frames_of(strip: str) -> list[np.ndarray]:
    """The frames of a strip, each [H, W, 3] of floats from 0 to 255."""
    head, _, data = strip.partition(",")
    assert head == "data:image/webp;base64"
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(float)
    return np.split(pixels, FRAMES, axis=1)
