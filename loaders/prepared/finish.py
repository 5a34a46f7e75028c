"""From what became of all sources to the index of the set: the end of `prepare`, and of `join`."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeAlias

from cacl.clips import VideoRecord
from cacl.config import DataConfig
from cacl.errors import DataError
from cacl.loaders.catalog.catalog import Catalog, Rejected
from cacl.loaders.catalog.index_writer import IndexWriter, PreparedVideo
from cacl.loaders.catalog.layouts.discover import discover_videos, official_folds
from cacl.loaders.catalog.layouts.listing import Listing, VideoEntry
from cacl.loaders.catalog.prepared_files import INDEX_NAME
from cacl.loaders.catalog.quirks import summarize_quirks
from cacl.loaders.catalog.scan import scan
from cacl.loaders.decode import storage
from cacl.loaders.prepared.conversion_log import ConvertedSource, RejectedSource, SourceOutcome
from cacl.loaders.prepared.shard import find_shards
from cacl.loaders.prepared.summary import PrepareSummary
from cacl.loaders.prepared.target import prepared_path, target_errors
from cacl.loaders.prepared.transcode import TranscodeSettings

SplitsOfFolds: TypeAlias = Mapping[int, Mapping[str, str | None]]
"""The split of each source, by the number of the official fold and by its path."""


def splits_of_folds(source: DataConfig, listing: Listing) -> SplitsOfFolds:
    """Returns the splits of all official folds, or those of the one division that there is as fold 1.

    Args:
        source: The data set.
        listing: Its videos.

    Raises:
        DataError: The lists of a fold are not in order.
    """
    folds = official_folds(listing)
    if not folds:
        return {1: {entry.path: entry.split for entry in listing.entries}}
    listings = {fold: discover_videos(replace(source, fold=fold)) for fold in folds}
    return {fold: {entry.path: entry.split for entry in listings[fold].entries} for fold in listings}


def divide_outcomes(
    entries: Iterable[VideoEntry], outcomes: Mapping[str, SourceOutcome]
) -> tuple[list[ConvertedSource], list[Rejected]]:
    """Divides sources into those that are converted and those that are rejected.

    Args:
        entries: The sources.
        outcomes: What became of each, by its path.

    Returns:
        The converted and the rejected sources, each in the order of the entries.
    """
    converted: list[ConvertedSource] = []
    rejected: list[Rejected] = []
    for entry in entries:
        outcome = outcomes[entry.path]
        if isinstance(outcome, RejectedSource):
            rejected.append(Rejected(entry.path, outcome.reason))
        else:
            converted.append(outcome)
    return converted, rejected


def finish_set(
    listing: Listing,
    splits: SplitsOfFolds,
    target: Path,
    settings: TranscodeSettings,
    outcomes: Mapping[str, SourceOutcome],
    kept: Iterable[str],
) -> PrepareSummary:
    """Writes the index of a set, and removes what is in it no more.

    Args:
        listing: The sources.
        splits: Their splits.
        target: The folder of the prepared set.
        settings: What the sources were converted with.
        outcomes: What became of each source, by its path; also of sources that are gone by now.
        kept: The paths of the sources that an earlier run had dealt with.

    Returns:
        The finished set.

    Raises:
        DataError: No source is usable, a prepared video is damaged, or the target cannot be written.
    """
    converted, rejected = divide_outcomes(listing.entries, outcomes)
    _write_index(listing, splits, target, settings, converted, rejected)
    with target_errors(target):
        for path in outcomes.keys() - {source.path for source in converted}:
            (target / prepared_path(path)).unlink(missing_ok=True)
        for shard in find_shards(target):  # They are merged by now.
            (target / shard.log_name).unlink()
    if not converted:
        empty = Catalog(root=listing.root, layout=listing.layout, videos=(), rejected=tuple(rejected), missing=())
        empty.check(1.0)  # It raises DataError, with the reasons.
    return PrepareSummary(
        root=listing.root,
        target=target,
        settings=settings,
        catalog=scan(DataConfig(root=str(target))),
        converted=tuple(converted),
        kept=len({source.path for source in converted} & set(kept)),
    )


def finish_shard(
    listing: Listing,
    entries: Sequence[VideoEntry],
    target: Path,
    settings: TranscodeSettings,
    outcomes: Mapping[str, SourceOutcome],
    kept: Iterable[str],
) -> PrepareSummary:
    """Returns what became of the sources of one shard. It writes nothing; `join` does.

    Args:
        listing: The sources of the whole set.
        entries: Those of the shard.
        target: The folder of the prepared set.
        settings: What the sources were converted with.
        outcomes: What became of each source of the shard, by its path.
        kept: The paths of the sources that an earlier run had dealt with.

    Raises:
        DataError: A prepared video is damaged.
    """
    converted, rejected = divide_outcomes(entries, outcomes)
    return PrepareSummary(
        root=listing.root,
        target=target,
        settings=settings,
        catalog=Catalog(
            root=target,
            layout=listing.layout,
            videos=tuple(_with_init_segment(target, source) for source in converted),
            rejected=tuple(rejected),
            missing=listing.missing,
            notes=_notes(listing, converted),
        ),
        converted=tuple(converted),
        kept=len({source.path for source in converted} & set(kept)),
    )


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
        "notes": _notes(listing, converted),
    }
    with target_errors(target):
        if converted:
            writer.save(about)
        else:
            (target / INDEX_NAME).unlink(missing_ok=True)


def _notes(listing: Listing, converted: Sequence[ConvertedSource]) -> tuple[str, ...]:
    return (*listing.notes, *summarize_quirks((source.path, source.quirks) for source in converted))


def _with_init_segment(target: Path, source: ConvertedSource) -> VideoRecord:
    """Returns the prepared video with its path in the target and with its init segment, which the log does not keep."""
    fragments = source.video.fragments
    assert fragments is not None
    path = prepared_path(source.path)
    init_segment = storage.read(target / path, 0, int(fragments.offsets[0]))
    if zlib.crc32(init_segment) != source.init_checksum:
        raise DataError(f"{target / path}: is damaged; remove it, and the same command makes it again")
    return replace(source.video, path=path, fragments=fragments._replace(init_segment=init_segment))
