"""The configuration of a run that has none: what is given, and what the videos and the machine suggest for the rest."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from statistics import median_low

import torch

from cacl import config as configuration
from cacl import distributed
from cacl.config import Config
from cacl.errors import DataError
from cacl.loaders.catalog.catalog import Catalog
from cacl.reporting.console import Console
from cacl.training.choices import MachineFacts, VideoFacts, choose_settings
from cacl.training.training_videos import scan_videos

log = logging.getLogger(__name__)

FEWEST_FRAMES = 2
"""No clip has fewer frames."""
MAX_VIDEOS_LOOKED_AT = 1000
"""The facts of a large set are those of this many of its videos, evenly spaced."""


def choose_config(config: Config, given: Collection[str], device: torch.device, console: Console) -> Config:
    """Chooses the settings that are not given, and logs each of them with its reason. All ranks call it.

    Rank 0 chooses for all of them: the ranks may run on unequal machines, and the settings must be the same.

    Args:
        config: The configuration that holds what is given.
        given: The keys that are given and stay as they are.
        device: The device of this process.
        console: The console that shows the progress of the scan.

    Returns:
        The whole configuration.

    Raises:
        ConfigError: Neither `data.root` nor `data.roots` is set, or the keys that are given contradict each other.
        DataError: The data set cannot be scanned, too many of its files cannot be used, or no video belongs to the
            training split.
    """
    found = scan_videos(config, console, config.clip.min_frames if "clip.frames" in given else FEWEST_FRAMES)
    videos = _facts_of_videos(found)
    if videos.count < 2:
        raise DataError(f"{found.root}: holds a single training video, and there is nothing to contrast it with")
    if not found.has_splits and any(video.label for video in found.videos[:1]):
        key = "data.roots.test_share" if config.data.roots else "data.test_share"
        log.info("note: all videos are trained on; %s = 0.2 holds some out for `cacl eval retrieval`", key)
    choices = choose_settings(videos, _facts_of_machine(device), config, given)
    choices = distributed.all_gather_objects(choices)[0]
    for key, value, reason in choices:
        log.info("chosen: %s = %s (%s)", key, json.dumps(value), reason)
    return configuration.replace(config, {choice.key: choice.value for choice in choices})


def _facts_of_videos(found: Catalog) -> VideoFacts:
    chosen = found.choose_split("train")
    videos = chosen.videos
    looked_at = videos[:: max(1, len(videos) // MAX_VIDEOS_LOOKED_AT)]
    frames = sorted(video.frames for video in looked_at)
    return VideoFacts(
        count=len(videos),
        clips_per_epoch=chosen.clips_per_epoch,
        short_frames=frames[len(frames) // 20],
        median_frames=median_low(frames),
        short_side=median_low(min(video.width, video.height) for video in looked_at),
    )


def _facts_of_machine(device: torch.device) -> MachineFacts:
    # The whole memory counts: what happens to be free would make choices that nobody can repeat.
    cuda = device.type == "cuda"
    return MachineFacts(
        device="cuda" if cuda else "cpu",
        gpu_memory_gib=torch.cuda.get_device_properties(device).total_memory / 2**30 if cuda else 0.0,
        processes=distributed.world_size(),
    )
