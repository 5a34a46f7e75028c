"""Which videos a run is trained on."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

from cacl import distributed
from cacl.checkpoints.checkpoint import Checkpoint
from cacl.config import Config
from cacl.errors import CheckpointError, ConfigError
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.scan import scan
from cacl.loaders.catalog.validation_split import with_validation
from cacl.reporting.console import Console, log_catalog
from cacl.training.run_manifest import RunManifest

log = logging.getLogger(__name__)


def scan_videos(config: Config, console: Console, min_frames: int) -> Catalog:
    """Scans the data set, first on rank 0. All ranks call it.

    Args:
        config: The configuration, of which `data` counts.
        console: The console that shows the progress of the scan.
        min_frames: Videos with fewer frames are rejected.

    Returns:
        All videos of the data set.

    Raises:
        ConfigError: Neither `data.root` nor `data.roots` is set.
        DataError: The data set cannot be scanned, or too many of its files cannot be used.
    """
    if not config.data.root and not config.data.roots:
        raise ConfigError("data.root is not set: give a folder of videos, as in cacl train path/to/videos")
    with distributed.main_first():  # the other ranks find its scan in the cache
        found = scan(config.data, min_frames=min_frames, progress=partial(console.progress, "scanning"))
    found.check(config.data.max_rejected_share)
    return found


def find_training_videos(config: Config, console: Console, saved: Checkpoint | None) -> Catalog:
    """Scans the data set and takes the videos of its training split, or all of them where nothing is said of splits.

    Args:
        config: The configuration of the run.
        console: The console that shows the progress of the scan.
        saved: The checkpoint of the run that goes on; None for a new run.

    Returns:
        The training videos. A run that goes on keeps those that it began with, of which some may be gone or damaged.

    Raises:
        ConfigError: Neither `data.root` nor `data.roots` is set.
        DataError: The data set cannot be scanned, too many of its files cannot be used, or no video of a root belongs
            to the training split.
        CheckpointError: The run that goes on began with other training videos, or with other weights of their roots.
    """
    found = scan_videos(config, console, config.clip.min_frames)
    log_catalog(found)
    return _training_videos_of(found, config, saved)


def find_labelled_videos(config: Config, console: Console, saved: Checkpoint | None) -> Catalog:
    """Scans the data set for a training with labels, and holds out validation videos where it has none.

    Args:
        config: The configuration of the run, of which `finetune.label` and `finetune.val_share` count as well.
        console: The console that shows the progress of the scan.
        saved: The checkpoint of the run that goes on; None for a new run.

    Returns:
        All videos of the data set, with their splits. The training videos are those of `find_training_videos`, without
        those that are held out.

    Raises:
        ConfigError: `data.root` is not set.
        DataError: The data set cannot be scanned, too many of its files cannot be used, it has no training videos, or
            none can be held out for validation.
        CheckpointError: The run that goes on began with other training videos.
    """
    if config.data.roots:
        raise ConfigError("data.roots: cacl finetune takes one data set; set data.root")
    found = scan_videos(config, console, config.clip.min_frames)
    log_catalog(found)
    found = with_validation(found, config.finetune.label, config.finetune.val_share)
    training = _training_videos_of(found, config, saved)
    if training.fingerprint == found.choose_split("train").fingerprint:
        return found
    return replace(found, videos=(*training.videos, *(video for video in found.videos if video.split != "train")))


def _training_videos_of(found: Catalog, config: Config, saved: Checkpoint | None) -> Catalog:
    """Takes the videos of the training split, or all of them where nothing is said of splits.

    Args:
        found: All videos of the data set.
        config: The configuration of the run.
        saved: The checkpoint of the run that goes on; None for a new run.

    Returns:
        The training videos, as `find_training_videos` returns them.

    Raises:
        DataError: No video of a root belongs to the training split.
        CheckpointError: The run that goes on began with other training videos, or with other weights of their roots.
    """
    chosen = found.choose_split("train")
    for part, whole, share in zip(chosen.parts, found.parts, chosen.shares, strict=True):
        line = f"{share.videos} training videos of {len(whole.videos)} in {part.root} (layout {part.layout})"
        if share.clips != chosen.clips_per_epoch:
            line += f", {share.clips} of {chosen.clips_per_epoch} clips of an epoch"
        log.info(line)
    if saved is None or saved.data_fingerprint == chosen.fingerprint:
        return chosen
    # Files that are gone or damaged by now are left to fail, as they would have without the interruption.
    begun = RunManifest(Path(config.run)).read(saved.data_fingerprint, found, chosen)
    if begun is None or 1 - len(chosen.videos) / len(begun.videos) > config.data.max_rejected_share:
        raise CheckpointError(
            f"{config.run} was begun with other training videos than {found.root} holds now"
            + (", or with other weights or another order of its roots" if config.data.roots else "")
            + ": begin another run"
        )
    lost = len(begun.videos) - len(chosen.videos)
    log.info("%s training videos are gone or damaged since the run began", lost)
    return begun
