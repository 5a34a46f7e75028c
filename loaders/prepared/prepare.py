"""Prepares a data set for training: converts each of its videos, several at a time, and writes an index over them.

    <target>/videos/<path in the source>.mp4    appear whole, under their names, one by one
    <target>/conversion_log.jsonl               tells what is done so far (`conversion_log`)
    <target>/index.safetensors                  is written last; without it, a set is unfinished (`index_writer`)

A shard converts a part of the sources, has a log of its own, and writes no index: `join` merges the logs and writes it.

The same call again goes on where an earlier one ended, whatever ended it: what is finished stays, sources that changed
are converted again, and what became of sources that are gone is removed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from cacl.config import DataConfig
from cacl.errors import UsageError
from cacl.loaders.catalog.layouts.discover import discover_videos
from cacl.loaders.prepared.conversion_log import ConversionLog, RejectedSource
from cacl.loaders.prepared.convert_source import convert_source
from cacl.loaders.prepared.finish import finish_set, finish_shard, splits_of_folds
from cacl.loaders.prepared.process_pool import map_unordered
from cacl.loaders.prepared.shard import Shard
from cacl.loaders.prepared.summary import PrepareSummary
from cacl.loaders.prepared.target import VIDEOS, check_target, clean_up, fault_of, target_errors
from cacl.loaders.prepared.transcode import TranscodeSettings
from cacl.loaders.progress import ProgressCallback


def prepare(
    source: DataConfig,
    target: Path,
    settings: TranscodeSettings,
    *,
    workers: int,
    progress: ProgressCallback,
    shard: Shard | None = None,
) -> PrepareSummary:
    """Makes a folder the prepared form of a data set, or a shard of it.

    Sources that cannot be used are left out, and told in the catalog. How many are too many is for the caller to say
    (`PrepareSummary.check`). Processes are spawned, so a script needs its `if __name__ == "__main__":`.

    Args:
        source: The data set.
        target: The folder of the prepared set. It is made if it does not exist.
        settings: What the videos are converted with.
        workers: The number of processes; 0 stands for one per core.
        progress: Is called after each source with sources done, sources in all, and the path of this one.
        shard: The shard whose sources are converted; None stands for all sources, and then the index is written too.

    Returns:
        What became of the sources.

    Raises:
        UsageError: Source and target do not go together.
        DataError: The source has no usable video, its lists are not in order, or the target cannot be written, is in
            use, or was begun with another source or other settings.
    """
    if source.test_share:
        raise UsageError("data.test_share holds videos out when a prepared set is opened: leave it out here")
    target = Path(os.path.abspath(target.expanduser()))
    listing = discover_videos(source)
    check_target(listing.root, target, shard)
    splits = splits_of_folds(source, listing)
    with target_errors(target):
        target.mkdir(parents=True, exist_ok=True)
        log = ConversionLog(target, listing.root, _log_header(source, settings, shard), shard)
    with log:
        with target_errors(target):
            (target / VIDEOS).mkdir(exist_ok=True)
        entries = [entry for entry in listing.entries if shard is None or shard.takes(entry.path)]
        todo = [entry.path for entry in entries if not _is_settled(listing.root, target, log, entry.path)]
        if shard is None:
            clean_up(target, keeps_index=not todo)
        _convert_all(listing.root, target, settings, log, todo, len(entries), workers, progress)
        kept = {entry.path for entry in entries} - set(todo)
        if shard is None:
            return finish_set(listing, splits, target, settings, log.outcomes, kept)
        return finish_shard(listing, entries, target, settings, log.outcomes, kept)


def _log_header(source: DataConfig, settings: TranscodeSettings, shard: Shard | None) -> dict[str, Any]:
    """Returns what the log tells of how the set is made. That of a shard also tells `join` how to find the sources."""
    if shard is None:
        return asdict(settings)
    root = os.path.abspath(os.path.expanduser(source.root))
    return asdict(settings) | {"data_root": root, "layout": source.layout, "fold": source.fold}


def _is_settled(root: Path, target: Path, log: ConversionLog, path: str) -> bool:
    """Returns whether an earlier run has dealt with a source, and both it and its prepared video are still there."""
    outcome = log.outcomes.get(path)
    return outcome is not None and outcome.stamp is not None and not fault_of(root, target, outcome)


def _convert_all(
    root: Path,
    target: Path,
    settings: TranscodeSettings,
    log: ConversionLog,
    todo: Sequence[str],
    total: int,
    workers: int,
    progress: ProgressCallback,
) -> None:
    """Converts sources, the last of `total`, and adds each to the log."""
    convert = partial(convert_source, root, target, settings)
    with contextlib.closing(map_unordered(convert, todo, workers or len(os.sched_getaffinity(0)))) as outcomes:
        for number, (path, outcome) in enumerate(outcomes, total - len(todo) + 1):
            with target_errors(target):
                log.add(outcome or RejectedSource(path=path, stamp=None, reason="crashes the decoder"))
            progress(number, total, path)
