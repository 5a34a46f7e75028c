"""The page of `cacl data look`: a few clips as training is about to see them, before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cacl import config as configuration
from cacl.clips import ClipPlan, VideoRecord
from cacl.config import Config
from cacl.errors import DataError
from cacl.kernels.edit_distance import edit_distance_to_identity
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.clip_loader import ClipLoader
from cacl.reports.page import write_page
from cacl.reports.previews import view_strips


def write_clips_page(config: Config, training_videos: Catalog, clips: int, folder: Path) -> Path:
    """Writes a page of the first clips of the first epoch: both views, and the shuffled copy of the query view.

    Args:
        config: The configuration of the training.
        training_videos: The videos that it takes clips of.
        clips: The number of clips.
        folder: The folder of the page, which exists.

    Returns:
        The page.

    Raises:
        DataError: None of the clips can be loaded, or the page cannot be written.
    """
    loader = ClipLoader.from_config(config, catalog=training_videos, batch_size=clips, split=None)
    batch = next(loader.epoch(0))
    failures = [failure.reason for failure in batch.failures]
    if not len(batch):
        raise DataError(failures[0])
    distances = edit_distance_to_identity(batch.order)
    shown = []
    for row, index in enumerate(batch.index.tolist()):
        plan = loader.sampler.plan(index)
        described = _described(training_videos.videos[plan.video], plan)
        shown.append(described | {"strips": view_strips(batch, row), "distance": int(distances[row])})
    return write_page(
        folder,
        "clips.html",
        title="What training sees",
        clips=shown,
        failures=failures,
        frames=config.clip.frames,
        stride=config.clip.stride,
        size=config.clip.size,
        videos=len(training_videos.videos),
        root=str(training_videos.root),
        config=configuration.to_toml(config),
    )


def _described(video: VideoRecord, plan: ClipPlan) -> dict[str, Any]:
    numbers = plan.frame_numbers
    seconds = [number / video.rate for number in (numbers[0], numbers[-1])]
    span = f"frames {numbers[0]} to {numbers[-1]} of {video.frames} ({seconds[0]:.1f} to {seconds[1]:.1f} s)"
    if plan.view_starts:
        span += f", the key view from frame {plan.view_starts[1]}"
    return {
        "path": video.path,
        "label": video.label,
        "span": span,
        "width": video.width,
        "height": video.height,
    }
