"""The catalog of a data set: every video file that was found, either as a VideoRecord or with the reason against it.

`scan` decodes each file once in full (`decode.probe`) and remembers the outcome in a cache, so that the next scan only
looks at sizes and modification times. Of a prepared set it only opens the index.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote

import av

from cacl.clips import SeekPoint, VideoRecord
from cacl.config import DataConfig
from cacl.errors import DataError
from cacl.loaders.catalog import index
from cacl.loaders.catalog.index import PreparedVideos
from cacl.loaders.catalog.layouts import discover
from cacl.loaders.catalog.notes import notes_of, remarks_on, slowness_of
from cacl.loaders.decode.probe import probe
from cacl.loaders.decode.storage import Location, is_remote
from cacl.loaders.prepared import conversion_log

CACHE_FORMAT = ("cacl-scan", 5, *av.library_versions["libavformat"], *av.library_versions["libavcodec"])
"""Raise the first number when `probe` judges files differently; another demuxer or decoder may do so as well."""

SAVE_EVERY_SECONDS = 60.0

Report: TypeAlias = Callable[[int, int, str], None]
"""Called in the scanning thread after each file: files done, files in all, path of this one."""


class Rejected(NamedTuple):
    path: str
    reason: str
    """Continues a sentence that begins with the path: `is empty (0 bytes)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Videos and rejected files together are every video file found; paths are relative to the root, or absolute."""

    root: Location
    layout: str
    videos: tuple[VideoRecord, ...] | PreparedVideos
    """Sorted by path."""
    rejected: tuple[Rejected, ...]
    """Sorted by path."""
    missing: tuple[str, ...]
    """Names in the lists of the data set for which there is no file."""
    notes: tuple[str, ...] = ()
    """What the listing guessed, what it found and does not use (`layouts.Listing.notes`), and what is unusual about
    videos that are used (`remarks`)."""

    def file(self, video: int) -> Location:
        return self.location(self.videos[video])

    def location(self, video: VideoRecord) -> Location:
        if isinstance(self.root, Path):
            return self.root / video.path
        return f"{self.root}/{quote(os.fsencode(video.path)) if self.root.startswith('http') else video.path}"

    @property
    def has_splits(self) -> bool:
        """Whether any video is known to belong to a split."""
        return self.videos.has_splits if isinstance(self.videos, PreparedVideos) else any(v.split for v in self.videos)

    def only(self, split: str) -> Catalog:
        """Just the videos of this split (there may be none), without rejected and missing ones and notes."""
        if isinstance(self.videos, PreparedVideos):
            chosen = self.videos.of_split(split)
        else:
            chosen = tuple(v for v in self.videos if v.split == split)
        return replace(self, videos=chosen, rejected=(), missing=(), notes=())

    @property
    def fingerprint(self) -> str:
        """sha256, as hex digits, over everything that decides samples; the place of the root does not."""
        if isinstance(self.videos, PreparedVideos):
            return self.videos.fingerprint
        digest = hashlib.sha256()
        for v in self.videos:
            picture = (v.content, v.frames, v.width, v.height, v.mirrored, v.rotation, v.seek_points)
            digest.update(json.dumps([v.path, picture, v.label, v.split, sorted(v.attributes.items())]).encode())
        return digest.hexdigest()

    def check(self, max_rejected: float) -> None:
        """Raises DataError if more than this share of the files found was rejected, or all of them."""
        count, total = len(self.rejected), len(self.videos) + len(self.rejected)
        if self.videos and count / total <= max_rejected:
            return
        reasons = "; ".join(f"{path} {reason}" for path, reason in self.rejected[:3])
        reasons += f"; and {count - 3} more" if count > 3 else ""
        if not self.videos:
            raise DataError(f"data.root = {self.root}: none of the {total} videos can be used: {reasons}")
        raise DataError(
            f"data.root = {self.root}: {count} of {total} videos cannot be used, more than data.max_rejected = "
            f"{max_rejected} allows: {reasons}. Mend or remove them, or raise data.max_rejected"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "root": str(self.root),
            "layout": self.layout,
            "videos": [
                {"path": v.path, **_facts(v), "label": v.label, "split": v.split, "attributes": dict(v.attributes)}
                for v in self.videos
            ],
            "rejected": [rejected._asdict() for rejected in self.rejected],
            "missing": list(self.missing),
            "notes": list(self.notes),
        }


def scan(config: DataConfig, *, min_frames: int = 1, threads: int = 0, report: Report | None = None) -> Catalog:
    """Finds the videos of `config.root`, probes them in parallel (0 threads: one per core), and rejects unusable ones.

    Videos with fewer than `min_frames` frames are rejected. Outcomes are cached in `config.cache`, or in
    `$XDG_CACHE_HOME/cacl`; an outcome holds while size and modification time of the file stay. A cache that is damaged
    or cannot be written costs time and nothing else. Of a prepared set the index is opened, and nothing is decoded.

    Raises DataError if the root does not exist, holds no video or is a prepared set that is not finished, if its lists
    are damaged or contradictory, or if all its videos are too short. How many rejected files are too many is for the
    caller to say: `Catalog.check`.
    """
    if is_remote(config.root) or (_local(config.root) / index.NAME).is_file():
        return _open_prepared(config, min_frames)
    if (_local(config.root) / conversion_log.NAME).is_file():
        raise DataError(
            f"data.root = {_local(config.root)}: is a prepared set that is not finished; the `cacl data prepare` "
            "command that began it goes on with it"
        )
    listing = discover.find(config)
    paths = [entry.path for entry in listing.entries]
    cache = _cache_file(config.cache, listing.root)
    outcomes = _outcomes(listing.root, paths, cache, threads or os.cpu_count() or 1, report or (lambda *_: None))

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
        notes=(*listing.notes, *notes_of((v.path, remarks_on(v) | slowness_of(v)) for v in videos)),
    )


def _open_prepared(config: DataConfig, min_frames: int) -> Catalog:
    if is_remote(config.root):
        root: Location = config.root.rstrip("/")
        opened = index.fetched(root, _cache_folder(config.cache), f"data.root = {root}")
    else:
        root = _local(config.root)
        opened = index.Index(root / index.NAME, f"data.root = {root}")
    layout, rejected = opened.about["layout"], [Rejected(*pair) for pair in opened.about["rejected"]]
    if config.layout not in ("auto", layout):
        raise DataError(
            f"data.root = {root}: was prepared from layout {layout}; data.layout = {config.layout} is not it"
        )
    videos = index.PreparedVideos(opened, config.split, config.test_share)
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
        notes=tuple(opened.about.get("notes", ())),  # older sets have none
    )


def _local(root: str) -> Path:
    return Path(os.path.abspath(os.path.expanduser(root)))


def _too_short(path: str, frames: int, min_frames: int) -> Rejected:
    return Rejected(path, f"has {_frames(frames)}; a clip needs {min_frames}")


def _refuse_if_all_too_short(root: Location, short: Sequence[VideoRecord], min_frames: int) -> None:
    if short:
        frames, path = max((video.frames, video.path) for video in short)
        raise DataError(
            f"data.root = {root}: every video is too short; the longest, {path}, has {_frames(frames)}, and a clip "
            f"needs {min_frames} (clip.frames, clip.window)"
        )


def _facts(video: VideoRecord) -> dict[str, Any]:
    """What a probe finds, without the seek points."""
    return {
        "frames": video.frames,
        "declared_frames": video.declared_frames,
        "rate": video.rate,
        "width": video.width,
        "height": video.height,
        "codec": video.codec,
        "mirrored": video.mirrored,
        "rotation": video.rotation,
        "undecodable": video.undecodable,
        "gaps": video.gaps,
        "video_streams": video.video_streams,
        "pixel_aspect": video.pixel_aspect,
        "content": video.content,
    }


def _frames(count: int) -> str:
    return f"{count} frame" if count == 1 else f"{count} frames"


# --- Probing ---

_Outcome: TypeAlias = VideoRecord | str
"""What a file holds, or why it cannot be used."""


class _Probed(NamedTuple):
    stamp: tuple[int, int]
    """Size in bytes and modification time in nanoseconds of the file when it was probed."""
    outcome: _Outcome


_NO_STAMP = (-1, -1)
"""The outcome may be another one the next time, though the file is the same."""


def _outcomes(root: Path, paths: list[str], cache: Path, threads: int, report: Report) -> list[_Outcome]:
    """The outcome for each path, from the cache or from a probe."""
    known = _load(cache)
    outcomes: list[_Outcome] = []
    unsaved, saved = False, time.monotonic()
    # Threads, because decoding releases the interpreter's lock: they keep up with processes and share the results.
    pool = ThreadPoolExecutor(threads, "cacl-scan")
    try:
        for path, probed in zip(paths, pool.map(lambda path: _probe(root / path, known.get(path)), paths), strict=True):
            if probed.stamp != _NO_STAMP and probed is not known.get(path):
                known[path] = probed
                unsaved = True
            if unsaved and time.monotonic() - saved > SAVE_EVERY_SECONDS:
                _save(cache, known)
                unsaved, saved = False, time.monotonic()
            outcomes.append(probed.outcome)
            report(len(outcomes), len(paths), path)
    finally:  # an interrupted scan goes on where it was
        pool.shutdown(cancel_futures=True)
        if unsaved:
            _save(cache, known)
    return outcomes


def _probe(file: Path, known: _Probed | None) -> _Probed:
    stamp = _NO_STAMP
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            return _Probed(_NO_STAMP, "is not a regular file")
        stamp = (status.st_size, status.st_mtime_ns)
        return known if known and known.stamp == stamp else _Probed(stamp, probe(file))
    except DataError as error:
        # No permission, no file handle left, a failing network: the file may be in order.
        return _Probed(_NO_STAMP if isinstance(error.__context__, OSError) else stamp, str(error))
    except OSError as error:
        return _Probed(_NO_STAMP, f"cannot be read ({error.strerror})")
    except Exception as error:
        error.add_note(f"while probing {file}")
        raise


# --- The cache: one file per root, a line that names its format and checksum, and then JSON ---


def _cache_folder(folder: str) -> Path:
    if not folder:
        folder = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "cacl")
    return Path(os.path.expanduser(folder))


def _cache_file(folder: str, root: Path) -> Path:
    location = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
    return _cache_folder(folder) / f"{location}.scan"


def _load(cache: Path) -> dict[str, _Probed]:
    try:
        header, _, body = cache.read_bytes().partition(b"\n")
    except OSError:
        return {}
    if header != _header(body):
        return {}  # damaged, or written by another version: all files are probed again
    return {path: _Probed((size, time_ns), _from_cache(what)) for path, size, time_ns, what in json.loads(body)}


def _save(cache: Path, known: Mapping[str, _Probed]) -> None:
    files = [[path, *stamp, _to_cache(outcome)] for path, (stamp, outcome) in known.items()]
    body = json.dumps(files, separators=(",", ":")).encode()
    temporary = None
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache.parent, prefix=cache.stem, suffix=".tmp", delete=False) as out:
            temporary = Path(out.name)
            out.write(_header(body) + b"\n" + body)
        os.replace(temporary, cache)
    except OSError:  # nothing is lost but time
        if temporary:
            temporary.unlink(missing_ok=True)


def _header(body: bytes) -> bytes:
    return " ".join(map(str, [*CACHE_FORMAT, hashlib.sha256(body).hexdigest()])).encode()


def _to_cache(outcome: _Outcome) -> Any:
    return outcome if isinstance(outcome, str) else {**_facts(outcome), "seek_points": outcome.seek_points}


def _from_cache(outcome: Any) -> _Outcome:
    if isinstance(outcome, str):
        return outcome
    seek_points = tuple(SeekPoint(*point) for point in outcome.pop("seek_points"))
    return VideoRecord(path="", seek_points=seek_points, **outcome)
