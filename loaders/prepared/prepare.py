"""Prepares a data set for training: converts each of its videos, several at a time, and writes an index over them.

    <target>/videos/<path in the source>.mp4    appear whole, under their names, one by one
    <target>/conversion_log.jsonl               tells what is done so far (`conversion_log`)
    <target>/index.safetensors                  is written last; without it, a set is unfinished (`index_writer`)

The same call again goes on where an earlier one ended, whatever ended it: what is finished stays, sources that changed
are converted again, and what became of sources that are gone is removed.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from cacl.clips import VideoRecord
from cacl.config import DataConfig
from cacl.errors import DataError, UsageError
from cacl.loaders.catalog.catalog import Catalog, Rejected
from cacl.loaders.catalog.index_writer import IndexWriter, PreparedVideo
from cacl.loaders.catalog.layouts.discover import discover_videos, official_folds
from cacl.loaders.catalog.layouts.listing import Listing
from cacl.loaders.catalog.prepared_files import INDEX_NAME
from cacl.loaders.catalog.quirks import summarize_quirks
from cacl.loaders.catalog.scan import scan
from cacl.loaders.decode import storage
from cacl.loaders.prepared.conversion_log import ConversionLog, ConvertedSource, RejectedSource
from cacl.loaders.prepared.convert_source import convert_source
from cacl.loaders.prepared.process_pool import map_unordered
from cacl.loaders.prepared.summary import PrepareSummary
from cacl.loaders.prepared.target import VIDEOS, check_target, prepared_path, stamp_of, target_errors
from cacl.loaders.prepared.transcode import TranscodeSettings
from cacl.loaders.progress import ProgressCallback

SplitsOfFolds: TypeAlias = Mapping[int, Mapping[str, str | None]]
"""The split of each source, by the number of the official fold and by its path."""


def prepare(
    source: DataConfig, target: Path, settings: TranscodeSettings, *, workers: int, progress: ProgressCallback
) -> PrepareSummary:
    """Makes a folder the prepared form of a data set.

    Sources that cannot be used are left out, and told in the catalog. How many are too many is for the caller to say
    (`PrepareSummary.check`). Processes are spawned, so a script needs its `if __name__ == "__main__":`.

    Args:
        source: The data set.
        target: The folder of the prepared set. It is made if it does not exist.
        settings: What the videos are converted with.
        workers: The number of processes; 0 stands for one per core.
        progress: Is called after each source with sources done, sources in all, and the path of this one.

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
    check_target(listing.root, target)
    splits = _splits_of_folds(source, listing)
    with target_errors(target):
        (target / VIDEOS).mkdir(parents=True, exist_ok=True)
        log = ConversionLog(target, listing.root, asdict(settings))
    with log:
        todo = [entry.path for entry in listing.entries if not _is_settled(listing.root, target, log, entry.path)]
        _clean_up(target, keeps_index=not todo)
        _convert_all(listing, target, settings, log, todo, workers, progress)
        converted, rejected = _outcomes(listing, log)
        _write_index(listing, splits, target, settings, converted, rejected)
        _remove_outdated(target, log, converted)
        if not converted:
            empty = Catalog(root=listing.root, layout=listing.layout, videos=(), rejected=tuple(rejected), missing=())
            empty.check(1.0)  # It raises DataError, with the reasons.
        return PrepareSummary(
            root=listing.root,
            target=target,
            settings=settings,
            catalog=scan(DataConfig(root=str(target))),
            converted=tuple(converted),
            kept=len({outcome.path for outcome in converted} - set(todo)),
        )


# --- Before


def _splits_of_folds(source: DataConfig, listing: Listing) -> SplitsOfFolds:
    """Returns the splits of all official folds, or those of the one division that there is as fold 1."""
    folds = official_folds(listing)
    if not folds:
        return {1: {entry.path: entry.split for entry in listing.entries}}
    listings = {fold: discover_videos(replace(source, fold=fold)) for fold in folds}
    return {fold: {entry.path: entry.split for entry in listings[fold].entries} for fold in listings}


def _is_settled(root: Path, target: Path, log: ConversionLog, path: str) -> bool:
    """Returns whether an earlier run has dealt with a source, and both it and its prepared video are still there."""
    outcome = log.outcomes.get(path)
    if outcome is None or outcome.stamp is None or outcome.stamp != stamp_of(root / path):
        return False
    if isinstance(outcome, RejectedSource):
        return True
    prepared = stamp_of(target / prepared_path(path))
    return prepared is not None and prepared.size == outcome.size_bytes


def _clean_up(target: Path, *, keeps_index: bool) -> None:
    """Removes what killed processes left, and an index that would speak of files that are replaced now."""
    with target_errors(target):
        for leftover in (target / VIDEOS).rglob(".*.writing"):  # `atomic_write` names them so.
            if leftover.is_file():
                leftover.unlink()
        if not keeps_index:
            (target / INDEX_NAME).unlink(missing_ok=True)


# --- The sources


def _convert_all(
    listing: Listing,
    target: Path,
    settings: TranscodeSettings,
    log: ConversionLog,
    todo: Sequence[str],
    workers: int,
    progress: ProgressCallback,
) -> None:
    total = len(listing.entries)
    convert = partial(convert_source, listing.root, target, settings)
    with contextlib.closing(map_unordered(convert, todo, workers or len(os.sched_getaffinity(0)))) as outcomes:
        for number, (path, outcome) in enumerate(outcomes, total - len(todo) + 1):
            with target_errors(target):
                log.add(outcome or RejectedSource(path=path, stamp=None, reason="crashes the decoder"))
            progress(number, total, path)


def _outcomes(listing: Listing, log: ConversionLog) -> tuple[list[ConvertedSource], list[Rejected]]:
    converted: list[ConvertedSource] = []
    rejected: list[Rejected] = []
    for entry in listing.entries:
        outcome = log.outcomes[entry.path]
        if isinstance(outcome, RejectedSource):
            rejected.append(Rejected(entry.path, outcome.reason))
        else:
            converted.append(outcome)
    return converted, rejected


# --- After


def _write_index(
    listing: Listing,
    splits: SplitsOfFolds,
    target: Path,
    settings: TranscodeSettings,
    converted: Sequence[ConvertedSource],
    rejected: Sequence[Rejected],
) -> None:
    """Writes the index of a set, or removes it if no video was converted."""
    entries = {entry.path: entry for entry in listing.entries}
    writer = IndexWriter(target)
    for source in converted:
        writer.add(
            PreparedVideo(
                video=_with_init_segment(target, source),
                entry=entries[source.path],
                splits={fold: paths.get(source.path) for fold, paths in splits.items()},
                size=source.size_bytes,
                source=source.content_hash,
            )
        )
    about = {
        "layout": listing.layout,
        "settings": asdict(settings),
        "rejected": rejected,
        "missing": listing.missing,
        "notes": [*listing.notes, *summarize_quirks((source.path, source.quirks) for source in converted)],
    }
    with target_errors(target):
        if converted:
            writer.save(about)
        else:
            (target / INDEX_NAME).unlink(missing_ok=True)


def _with_init_segment(target: Path, source: ConvertedSource) -> VideoRecord:
    """Returns the prepared video with its path in the target and with its init segment, which the log does not keep."""
    fragments = source.video.fragments
    assert fragments is not None
    path = prepared_path(source.path)
    init_segment = storage.read(target / path, 0, int(fragments.offsets[0]))
    if zlib.crc32(init_segment) != source.init_checksum:
        raise DataError(f"{target / path}: is damaged; remove it, and the same command makes it again")
    return replace(source.video, path=path, fragments=fragments._replace(init_segment=init_segment))


def _remove_outdated(target: Path, log: ConversionLog, converted: Sequence[ConvertedSource]) -> None:
    """Removes the prepared videos that are in no index any more."""
    with target_errors(target):
        for path in log.outcomes.keys() - {source.path for source in converted}:
            (target / prepared_path(path)).unlink(missing_ok=True)
