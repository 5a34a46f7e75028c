"""Small moving pictures of clips: eight frames side by side in one WebP file, which the page shows one after the other.

Unlike an animated file, such a strip can be paused, stands still for whoever asks for less motion, and is a single
picture to the decoder of the browser.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cacl.clips import ClipBatch
from cacl.config import Config
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.clip_loader import ClipLoader
from cacl.method.dual_encoder import shuffle_frames

FRAMES = 8
"""The number of frames of a strip; `page.css` has it, too."""
QUALITIES = (60, 45, 30, 15)
"""The qualities of WebP, from 0 to 100, that are tried until a strip is small enough. The last one is always taken."""
BATCH_SIZE = 16
"""The number of clips that are loaded together."""
PAGE_BYTES = 26e6
"""What the strips of a page take at most, if none is too large at the lowest quality: 30 MB without all else."""
SIZES_BY_COUNT = {1500: 128, 2500: 96, 5500: 64}
"""Pixels of the side of a frame up to these numbers of strips on a page. Of 85 videos of people, sports and films, a
strip at quality 60 takes on average 9.3 kB as text with frames of 128 pixels, 6.3 kB with 96, 3.5 kB with 64 and 2.3 kB
with 48, and one in ten takes more than 13.9, 8.9, 4.6 and 3.2 kB: most strips keep this quality."""
SMALLEST_SIZE = 48
"""Pixels of the side of a frame where there are more."""
MAX_STRIPS = 11_000
"""What a page has at most: 1,000 queries with five neighbours of either encoder."""


def strip_size(count: int) -> int:
    """Returns the side of the frames of the strips of a page, in pixels.

    Args:
        count: The number of strips.
    """
    return next((size for most, size in SIZES_BY_COUNT.items() if count <= most), SMALLEST_SIZE)


def make_strip(clip: Tensor, most_bytes: float = math.inf) -> str:
    """Makes the strip of a clip.

    Args:
        clip: Floats [3, T, H, W], RGB in [0, 1]; what is outside is clamped. Of more than `FRAMES` frames, evenly
            spaced ones are taken, and of fewer some are repeated.
        most_bytes: The number of characters that the result should not exceed. The quality is lowered for it, as far
            as `QUALITIES` goes.

    Returns:
        A WebP file of H x (`FRAMES` * W) pixels as a data URI.
    """
    chosen = torch.linspace(0, clip.shape[1] - 1, FRAMES).round().long()
    frames = (clip[:, chosen].float().clamp(0, 1) * 255).round().byte()
    pixels = frames.permute(2, 1, 3, 0).reshape(frames.shape[2], -1, 3)  # [H, FRAMES * W, 3]
    image, strip = Image.fromarray(np.ascontiguousarray(pixels.cpu().numpy())), ""
    for quality in QUALITIES:
        file = io.BytesIO()
        image.save(file, "WEBP", quality=quality)
        strip = "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
        if len(strip) <= most_bytes:
            break
    return strip


def view_strips(batch: ClipBatch, row: int) -> dict[str, str]:
    """Makes the strips of a training clip.

    Args:
        batch: The clips of a step.
        row: The position of the clip among them.

    Returns:
        The strips of both views and of the shuffled copy, by what they are called on a page.
    """
    query = batch.query[row : row + 1]
    return {
        "query view": make_strip(query[0]),
        "its shuffled copy": make_strip(shuffle_frames(query, batch.order[row : row + 1])[0]),
        "key view": make_strip(batch.key[row]),
    }


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
    clip, loader = replace(config.clip, size=strip_size(len(videos))), replace(config.loader, backend="cpu")
    small, most_bytes = replace(config, clip=clip, loader=loader), PAGE_BYTES / len(videos) if videos else 0
    clips = ClipLoader.from_config(small, catalog=catalog, batch_size=BATCH_SIZE, split=None)
    strips: dict[int, str] = {}
    for batch in clips.evaluation(1, videos):
        for video, view in zip(batch.video.tolist(), batch.views[0], strict=True):
            strips[video] = make_strip(view, most_bytes)
        on_progress(len(strips), len(videos))
    return strips
