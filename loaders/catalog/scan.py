"""Scanning a data set: finding its videos, decoding each file once in full, and telling what is in it.

`scan` remembers the outcomes in a cache (`scan_cache`), so that the next scan only looks at sizes and modification
times. Of a prepared set it only opens the index.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from cacl.clips import VideoRecord
from cacl.config import DataConfig
from cacl.errors import DataError
from cacl.files import FileStamp
from cacl.loaders.catalog.catalog import Catalog, Rejected
from cacl.loaders.catalog.combined_catalog import combine
from cacl.loaders.catalog.index_reader import PreparedIndex, open_remote_index
from cacl.loaders.catalog.layouts.discover import discover_videos
from cacl.loaders.catalog.prepared_files import CONVERSION_LOG_NAME, INDEX_NAME, SHARD_LOGS
from cacl.loaders.catalog.prepared_videos import PreparedVideos
from cacl.loaders.catalog.quirks import find_quirks, find_slow_seeking, summarize_quirks
from cacl.loaders.catalog.scan_cache import ProbedFile, ProbeOutcome, ScanCache, cache_folder
from cacl.loaders.decode.probe import probe
from cacl.loaders.decode.storage import Location, is_remote
from cacl.loaders.progress import ProgressCallback

SAVE_EVERY_SECONDS = 60.0
"""A long scan saves its cache this often, since it may be killed."""


def scan(
    config: DataConfig, *, min_frames: int = 1, threads: int = 0, progress: ProgressCallback | None = None
) -> Catalog:
    """Finds the videos of a data set and decodes each of them once, in parallel; of several roots one after the other.

    An outcome that is cached holds while size and modification time of the file stay. A cache that is damaged or cannot
    be written costs time and nothing else. Of a prepared set the index is opened, and nothing is decoded.

    Args:
        config: Where the data set is, and how labels and splits are told. Outcomes are cached in `config.cache`, or in
            `$XDG_CACHE_HOME/cacl` where it is empty.
        min_frames: Videos with fewer frames are rejected.
        threads: How many files are decoded at the same time; 0 means one per core.
        progress: A function that is called after each file.

    Returns:
        The catalog. How many rejected files are too many is for the caller to say: `Catalog.check`.

    Raises:
        DataError: The root does not exist, holds no video or is a prepared set that is not finished or not joined; or
            the lists are damaged or contradictory; or all videos are too short.
    """
    if config.roots:
        return _scan_roots(config, min_frames, threads, progress)
    if is_remote(config.root) or (_local(config.root) / INDEX_NAME).is_file():
        return _open_prepared(config, min_frames)
    if any(_local(config.root).glob(SHARD_LOGS)):
        raise DataError(
            f"data.root = {_local(config.root)}: is a prepared set whose shards are not joined; `cacl data join "
            f"{_local(config.root)}` does it"
        )
    if (_local(config.root) / CONVERSION_LOG_NAME).is_file():
        raise DataError(
            f"data.root = {_local(config.root)}: is a prepared set that is not finished; the `cacl data prepare` "
            "command that began it goes on with it"
        )
    return _scan_files(config, min_frames, threads or os.cpu_count() or 1, progress or (lambda *_: None))


def _scan_roots(config: DataConfig, min_frames: int, threads: int, progress: ProgressCallback | None) -> Catalog:
    catalogs = []
    for number, alone in enumerate(config.each_root()):

        def tell(done: int, total: int, path: str, root: str = alone.root) -> None:
            if progress:
                progress(done, total, f"{root}/{path}")

        try:
            catalogs.append(scan(alone, min_frames=min_frames, threads=threads, progress=tell))
        except DataError as error:
            raise DataError(f"data.roots.{number}: {error}") from None
    return combine(catalogs, [root.weight for root in config.roots])


def _scan_files(config: DataConfig, min_frames: int, threads: int, progress: ProgressCallback) -> Catalog:
    listing = discover_videos(config)
    paths = [entry.path for entry in listing.entries]
    cache = ScanCache(config.cache, listing.root)
    outcomes = _probe_all(listing.root, paths, cache, threads, progress)

    videos: list[VideoRecord] = []
    rejected: list[Rejected] = []
    for entry, outcome in zip(listing.entries, outcomes, strict=True):
        if isinstance(outcome, str):
            rejected.append(Rejected(entry.path, outcome))
        elif outcome.frames < min_frames:
            rejected.append(_too_short(entry.path, outcome.frames, min_frames))
        else:
            videos.append(replace(outcome, **entry._asdict()))
    if not videos:
        usable = [replace(o, path=path) for path, o in zip(paths, outcomes, strict=True) if not isinstance(o, str)]
        _refuse_if_all_too_short(listing.root, usable, min_frames)
    return Catalog(
        root=listing.root,
        layout=listing.layout,
        videos=tuple(videos),
        rejected=tuple(rejected),
        missing=listing.missing,
        notes=(*listing.notes, *summarize_quirks((v.path, find_quirks(v) | find_slow_seeking(v)) for v in videos)),
    )


def _open_prepared(config: DataConfig, min_frames: int) -> Catalog:
    if is_remote(config.root):
        root: Location = config.root.rstrip("/")
        opened = open_remote_index(root, cache_folder(config.cache), f"data.root = {root}")
    else:
        root = _local(config.root)
        opened = PreparedIndex(root / INDEX_NAME, f"data.root = {root}")
    layout, rejected = opened.about["layout"], [Rejected(*pair) for pair in opened.about["rejected"]]
    if config.layout not in ("auto", layout):
        raise DataError(
            f"data.root = {root}: was prepared from layout {layout}; data.layout = {config.layout} is not it: "
            f"--set data.layout={layout} takes it as it is"
        )
    videos = PreparedVideos(opened, config.fold, config.test_share)
    usable, short = videos.at_least(min_frames), videos.shorter_than(min_frames)
    if not usable:
        _refuse_if_all_too_short(root, short, min_frames)
    rejected += [_too_short(video.path, video.frames, min_frames) for video in short]
    return Catalog(
        root=root,
        layout=layout,
        videos=usable,
        rejected=tuple(sorted(rejected)),
        missing=tuple(opened.about["missing"]),
        notes=tuple(opened.about.get("notes", ())),  # A set may have been written without any.
    )


def _local(root: str) -> Path:
    return Path(os.path.abspath(os.path.expanduser(root)))


def _too_short(path: str, frames: int, min_frames: int) -> Rejected:
    return Rejected(path, f"has {counted_frames(frames)}; a clip needs {min_frames}")


def _refuse_if_all_too_short(root: Location, short: Sequence[VideoRecord], min_frames: int) -> None:
    if short:
        frames, path = max((video.frames, video.path) for video in short)
        raise DataError(
            f"data.root = {root}: every video is too short; the longest, {path}, has {counted_frames(frames)}, and a "
            f"clip needs {min_frames} (clip.frames, clip.min_remaining_frames)"
        )


def counted_frames(count: int) -> str:
    """Returns a number of frames in words, such as `1 frame` or `2 frames`."""
    return f"{count} frame" if count == 1 else f"{count} frames"


# --- Probing ---


def _probe_all(
    root: Path, paths: list[str], cache: ScanCache, threads: int, progress: ProgressCallback
) -> list[ProbeOutcome]:
    """Returns the outcome for each path, from the cache or from a probe."""
    outcomes: list[ProbeOutcome] = []
    saved_at = time.monotonic()
    # Threads, because decoding releases the interpreter's lock: they keep up with processes and share the results.
    pool = ThreadPoolExecutor(threads, "cacl-scan")
    try:
        for path, probed in zip(paths, pool.map(lambda path: _probe(root / path, cache.get(path)), paths), strict=True):
            cache.add(path, probed)
            if not cache.is_saved and time.monotonic() - saved_at > SAVE_EVERY_SECONDS:
                cache.save()
                saved_at = time.monotonic()
            outcomes.append(probed.outcome)
            progress(len(outcomes), len(paths), path)
    finally:  # The next scan goes on where an interrupted one was.
        pool.shutdown(cancel_futures=True)
        cache.save()
    return outcomes


def _probe(file: Path, known: ProbedFile | None) -> ProbedFile:
    stamp = None
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            return ProbedFile(None, "is not a regular file")
        stamp = FileStamp.of(status)
        return known if known and known.stamp == stamp else ProbedFile(stamp, probe(file))
    except DataError as error:
        # No permission, no file handle left, a failing network: the file may be in order.
        return ProbedFile(None if isinstance(error.__context__, OSError) else stamp, str(error))
    except OSError as error:
        return ProbedFile(None, f"cannot be read ({error.strerror})")
    except Exception as error:
        error.add_note(f"while probing {file}")
        raise
