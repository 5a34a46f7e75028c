"""Prepares a data set for training: each of its videos by `transcode`, side by side, and an index over them.

    <target>/videos/<path in the source>.mp4    appear whole, under their names, one by one
    <target>/conversion_log.jsonl               what is done so far (`conversion_log`)
    <target>/index.safetensors                  written last: a folder without it is unfinished (`index`)

The same call again goes on where an earlier one ended, whatever ended it: what is finished stays, sources that changed
are done again, and what became of sources that are gone is removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from cacl.clips import VideoRecord
from cacl.config import DataConfig
from cacl.errors import DataError, UsageError, reason_of
from cacl.loaders.catalog.catalog import Catalog, Rejected
from cacl.loaders.catalog.index_writer import IndexWriter, PreparedVideo
from cacl.loaders.catalog.layouts.discover import discover_videos, official_folds
from cacl.loaders.catalog.layouts.listing import Listing
from cacl.loaders.catalog.prepared_files import CONVERSION_LOG_NAME, INDEX_NAME
from cacl.loaders.catalog.quirks import find_quirks, summarize_quirks
from cacl.loaders.catalog.scan import scan
from cacl.loaders.decode import storage
from cacl.loaders.decode.probe import probe
from cacl.loaders.prepared.conversion_log import ConversionLog, ConvertedSource, RejectedSource, Stamp
from cacl.loaders.prepared.process_pool import map_unordered
from cacl.loaders.prepared.transcode import TranscodeResult, TranscodeSettings, transcode
from cacl.loaders.progress import ProgressCallback

VIDEOS = "videos"
ELSEWHERE = "_elsewhere"
"""Folder of videos whose source path cannot be theirs: outside the root, or too long."""
MAX_NAME_BYTES = 240
"""Of a source's file name; that of the prepared one is longer, and file systems take 255."""

Splits: TypeAlias = Mapping[int, Mapping[str, str | None]]
"""The split of each video, by the number of the official fold and by its path."""


class TargetError(DataError):
    """The target cannot be written, which is no fault of any one source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareSummary:
    root: Path
    """Of the source."""
    target: Path
    settings: TranscodeSettings
    catalog: Catalog
    """The prepared set, with the rejected sources."""
    done: tuple[ConvertedSource, ...]
    """One for each video of the catalog."""
    kept: int
    """How many of them an earlier run had finished."""

    @property
    def copied(self) -> int:
        return sum(done.copied for done in self.done)

    @property
    def source_bytes(self) -> int:
        return sum(done.stamp[0] for done in self.done)

    @property
    def prepared_bytes(self) -> int:
        return sum(done.size for done in self.done)

    def check(self, max_rejected: float) -> None:
        """Raises DataError if more than this share of the sources was rejected."""
        replace(self.catalog, root=self.root).check(max_rejected)

    def to_json(self) -> dict[str, Any]:
        return {
            "source": str(self.root),
            "target": str(self.target),
            "layout": self.catalog.layout,
            "settings": asdict(self.settings),
            "videos": len(self.done),
            "copied": self.copied,
            "encoded": len(self.done) - self.copied,
            "kept": self.kept,
            "source_bytes": self.source_bytes,
            "prepared_bytes": self.prepared_bytes,
            "rejected": [rejected._asdict() for rejected in self.catalog.rejected],
            "missing": list(self.catalog.missing),
            "notes": list(self.catalog.notes),
        }


def prepare(
    source: DataConfig, target: Path, settings: TranscodeSettings, *, workers: int, progress: ProgressCallback
) -> PrepareSummary:
    """Makes `target` the prepared form of the data set `source`, in so many processes (0: one per core).

    Sources that cannot be used are left out, and told in the catalog. How many are too many is for the caller to say:
    `Summary.check`. Processes are spawned, so a script needs its `if __name__ == "__main__":`.

    Raises UsageError if source and target do not go together, and DataError if the source has no usable video or its
    lists are not in order, or if the target cannot be written, is in use, or was begun otherwise.
    """
    if source.test_share:
        raise UsageError("data.test_share holds videos out when a prepared set is opened: leave it out here")
    target = Path(os.path.abspath(target.expanduser()))
    listing = discover_videos(source)
    _check_places(listing.root, target)
    splits = _splits_of_folds(source, listing)
    with _writing(target):
        (target / VIDEOS).mkdir(parents=True, exist_ok=True)
        log = ConversionLog(target, listing.root, asdict(settings))
    with log:
        todo = [entry.path for entry in listing.entries if not _is_settled(listing.root, target, log, entry.path)]
        total = len(listing.entries)
        with _writing(target):
            for leftover in (target / VIDEOS).rglob(".*.tmp"):
                if leftover.is_file():
                    leftover.unlink()
            if todo:
                (target / INDEX_NAME).unlink(missing_ok=True)  # it would speak of files that are replaced now
        work = partial(_make, listing.root, target, settings)
        with contextlib.closing(map_unordered(work, todo, workers or len(os.sched_getaffinity(0)))) as outcomes:
            for number, (path, outcome) in enumerate(outcomes, total - len(todo) + 1):
                with _writing(target):
                    log.add(outcome or RejectedSource(path=path, stamp=None, reason="crashes the decoder"))
                progress(number, total, path)
        return _finish(listing, splits, target, log, settings, set(todo))


def prepared_path(path: str) -> str:
    """Where the prepared form of the source with this path lies in the target."""
    name = path.rpartition("/")[2]
    if path.startswith(("/", "../")) or len(os.fsencode(name)) > MAX_NAME_BYTES:
        return f"{VIDEOS}/{ELSEWHERE}/{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.mp4"
    return f"{VIDEOS}/{path}.mp4"


# --- Before


def _check_places(root: Path, target: Path) -> None:
    if (root / INDEX_NAME).exists():
        raise UsageError(f"{root}: is a prepared set; name the videos that it was made from")
    real_root, real_target = root.resolve(), target.resolve()
    if real_root.is_relative_to(real_target) or real_target.is_relative_to(real_root):
        raise UsageError(f"{target}: lies within {root}, or around it; name a folder apart from the videos")
    with _writing(target):
        there = {file.name for file in target.iterdir()} - {"lost+found"} if target.is_dir() else set()
    if there and CONVERSION_LOG_NAME not in there:
        raise UsageError(f"{target}: is not empty, and no prepared set; name a new or empty folder")


def _splits_of_folds(source: DataConfig, listing: Listing) -> Splits:
    """Returns the splits of all official folds, or those of the one division that there is as fold 1."""
    folds = official_folds(listing)
    if not folds:
        return {1: {entry.path: entry.split for entry in listing.entries}}
    listings = {fold: discover_videos(replace(source, fold=fold)) for fold in folds}
    return {fold: {entry.path: entry.split for entry in listings[fold].entries} for fold in listings}


def _is_settled(root: Path, target: Path, log: ConversionLog, path: str) -> bool:
    """Whether an earlier run has dealt with this source, and both it and what was made of it are still there."""
    outcome = log.outcomes.get(path)
    if outcome is None or outcome.stamp is None or outcome.stamp != _stamp(root / path):
        return False
    if isinstance(outcome, RejectedSource):
        return True
    made = _stamp(target / prepared_path(path))
    return made is not None and made[0] == outcome.size


def _stamp(file: Path) -> Stamp | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


# --- One source, in a process of its own


def _make(root: Path, target: Path, settings: TranscodeSettings, path: str) -> ConvertedSource | RejectedSource:
    """Raises TargetError; all that is wrong with the source is a reason to refuse it."""
    source, file = root / path, target / prepared_path(path)
    temporary = file.with_name(f".{file.name}.tmp")
    stamp = None
    try:
        status = source.stat()
        if not stat.S_ISREG(status.st_mode):
            return RejectedSource(path=path, stamp=None, reason="is not a regular file")
        stamp = (status.st_size, status.st_mtime_ns)
        video = probe(source, seekable=False)  # it is read from its start to its end
        with _writing(target):
            file.parent.mkdir(parents=True, exist_ok=True)
            converted = transcode(source, video, temporary, settings)
            if _stamp(source) == stamp:
                os.replace(temporary, file)
                return _done(path, stamp, video, converted)
    except TargetError:
        raise
    except DataError as error:
        if _stamp(source) == stamp:
            # No permission, no file handle left, a failing network: the file may be in order.
            passing = isinstance(error.__context__, OSError)
            return RejectedSource(path=path, stamp=None if passing else stamp, reason=str(error))
    except OSError as error:
        return RejectedSource(path=path, stamp=None, reason=f"cannot be read ({error.strerror})")
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return RejectedSource(path=path, stamp=None, reason="changed while it was being read")


def _done(path: str, stamp: Stamp, source: VideoRecord, converted: TranscodeResult) -> ConvertedSource:
    fragments = converted.video.fragments
    assert fragments is not None
    return ConvertedSource(
        path=path,
        stamp=stamp,
        content=source.content,
        copied=converted.copied,
        video=replace(converted.video, fragments=fragments._replace(init=b"")),
        head=zlib.crc32(fragments.init),
        quirks=find_quirks(source),
    )


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TargetError(
            f"{target}: cannot be written ({reason_of(error)}); mend that, and the same command goes on from here, or "
            "name another folder"
        ) from None


# --- After


def _finish(
    listing: Listing, splits: Splits, target: Path, log: ConversionLog, settings: TranscodeSettings, made_now: set[str]
) -> PrepareSummary:
    """Writes the index, and then removes what is in no index any more."""
    done: list[ConvertedSource] = []
    rejected: list[Rejected] = []
    writer = IndexWriter(target)
    for entry in listing.entries:
        outcome = log.outcomes[entry.path]
        if isinstance(outcome, RejectedSource):
            rejected.append(Rejected(entry.path, outcome.reason))
            continue
        done.append(outcome)
        writer.add(
            PreparedVideo(
                video=_with_head(target, outcome),
                entry=entry,
                splits={fold: paths.get(entry.path) for fold, paths in splits.items()},
                size=outcome.size,
                source=outcome.content,
            )
        )
    about = {
        "layout": listing.layout,
        "settings": asdict(settings),
        "rejected": rejected,
        "missing": listing.missing,
        "notes": [*listing.notes, *summarize_quirks((outcome.path, outcome.quirks) for outcome in done)],
    }
    with _writing(target):
        if done:
            writer.save(about)
        else:
            (target / INDEX_NAME).unlink(missing_ok=True)
        for path in log.outcomes.keys() - {outcome.path for outcome in done}:
            (target / prepared_path(path)).unlink(missing_ok=True)
    if not done:
        empty = Catalog(root=listing.root, layout=listing.layout, videos=(), rejected=tuple(rejected), missing=())
        empty.check(1.0)  # raises, with the reasons
    return PrepareSummary(
        root=listing.root,
        target=target,
        settings=settings,
        catalog=scan(DataConfig(root=str(target))),
        done=tuple(done),
        kept=sum(outcome.path not in made_now for outcome in done),
    )


def _with_head(target: Path, done: ConvertedSource) -> VideoRecord:
    """The video with its path in the target, and with the head of its file, which the journal does not keep."""
    fragments = done.video.fragments
    assert fragments is not None
    path = prepared_path(done.path)
    head = storage.read(target / path, 0, int(fragments.offset[0]))
    if zlib.crc32(head) != done.head:
        raise DataError(f"{target / path}: is damaged; remove it, and the same command makes it again")
    return replace(done.video, path=path, fragments=fragments._replace(init=head))
