"""Small moving pictures of clips: eight frames side by side in one WebP file, which the page shows one after the other.

Unlike an animated file, such a strip can be paused, stands still for whoever asks for less motion, and is a single
picture to the decoder of the browser.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cacl.config import Config
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.clip_loader import ClipLoader

FRAMES = 8
"""The number of frames of a strip; `page.css` has it, too."""
QUALITY = 60
"""The quality of WebP, from 0 to 100."""
BATCH_SIZE = 16
"""The number of clips that are loaded together."""
SIZES_BY_COUNT = {200: 128, 1000: 96, 3000: 64}
"""Pixels of the side of a frame up to these numbers of strips on a page, so that the page stays below 30 MB."""
SMALLEST_SIZE = 48
"""Pixels of the side of a frame where there are more."""


def strip_size(count: int) -> int:
    """Returns the side of the frames of the strips of a page, in pixels.

    Args:
        count: The number of strips.
    """
    return next((size for most, size in SIZES_BY_COUNT.items() if count <= most), SMALLEST_SIZE)


def make_strip(clip: Tensor) -> str:
    """Makes the strip of a clip.

    Args:
        clip: Floats [3, T, H, W], RGB in [0, 1]; what is outside is clamped. Of more than `FRAMES` frames, evenly
            spaced ones are taken, and of fewer some are repeated.

    Returns:
        A WebP file of H x (`FRAMES` * W) pixels as a data URI.
    """
    chosen = torch.linspace(0, clip.shape[1] - 1, FRAMES).round().long()
    frames = (clip[:, chosen].float().clamp(0, 1) * 255).round().byte()
    pixels = frames.permute(2, 1, 3, 0).reshape(frames.shape[2], -1, 3)  # [H, FRAMES * W, 3]
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.cpu().numpy())).save(file, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def video_strips(
    config: Config,
    catalog: Catalog,
    videos: Sequence[int],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[int, str]:
    """Makes the strip of the middle clip of each video, as an evaluation sees it: in the centre crop.

    Args:
        config: The configuration, which decides frames, stride and crop of the clips.
        catalog: The videos of the data set.
        videos: The positions of the wanted videos in the catalog.
        on_progress: A function that is called with the number of clips that are done, and their total.

    Returns:
        The strips by position of their video. A video that cannot be loaded has none.
    """
    small = replace(config, clip=replace(config.clip, size=strip_size(len(videos))))
    loader = ClipLoader.from_config(small, catalog=catalog, batch_size=BATCH_SIZE, split=None)
    strips: dict[int, str] = {}
    for batch in loader.evaluation(1, videos):
        strips |= {video: make_strip(clip) for video, clip in zip(batch.video.tolist(), batch.views[0], strict=True)}
        on_progress(len(strips), len(videos))
    return strips
