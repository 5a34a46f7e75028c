"""The scan cache: what decoding each file of a root found, kept on disk so that a second scan decodes nothing.

There is one file per root: a line that names its format and checksum, and then JSON.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import av

from cacl.clips import SeekPoint, VideoRecord
from cacl.files import FileStamp, atomic_write
from cacl.loaders.catalog.catalog import probed_facts

CACHE_FORMAT = ("cacl-scan", 6, *av.library_versions["libavformat"], *av.library_versions["libavcodec"])
"""Raise the first number when `probe` judges files differently; another demuxer or decoder may do so as well."""

ProbeOutcome: TypeAlias = VideoRecord | str
"""What a file holds, or the reason why it cannot be used."""


class ProbedFile(NamedTuple):
    """The outcome of decoding one file."""

    stamp: FileStamp | None
    """The stamp of the file when it was probed. None means that the outcome may be another one the next time, though
    the file stays the same; it is not cached."""
    outcome: ProbeOutcome


class ScanCache:
    """The outcomes that are known for the files of one root.

    A cache that is damaged or cannot be written costs time and nothing else.
    """

    def __init__(self, folder: str, root: Path) -> None:
        """Reads the cache of a root.

        Args:
            folder: The folder of caches, see `cache_folder`.
            root: The root of the data set; links to it share its cache.
        """
        root_hash = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
        self.file = cache_folder(folder) / f"{root_hash}.scan"
        self.is_saved = True
        self._files = _load(self.file)

    def get(self, path: str) -> ProbedFile | None:
        """Returns what is known of the file with this path relative to the root."""
        return self._files.get(path)

    def add(self, path: str, probed: ProbedFile) -> None:
        """Takes in an outcome, unless it may be another one the next time."""
        if probed.stamp is not None and probed is not self._files.get(path):
            self._files[path] = probed
            self.is_saved = False

    def save(self) -> None:
        """Writes the cache if there is anything new in it."""
        if self.is_saved:
            return
        files = [[path, *(probed.stamp or ()), _to_json(probed.outcome)] for path, probed in self._files.items()]
        body = json.dumps(files, separators=(",", ":")).encode()
        with contextlib.suppress(OSError):  # Nothing is lost but time.
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.file, concurrent=True) as temporary:
                temporary.write_bytes(_header(body) + b"\n" + body)
        self.is_saved = True


def cache_folder(folder: str) -> Path:
    """Returns the folder that caches lie in: `folder` itself, or `$XDG_CACHE_HOME/cacl` where it is empty."""
    if not folder:
        folder = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "cacl")
    return Path(os.path.expanduser(folder))


def _load(file: Path) -> dict[str, ProbedFile]:
    try:
        header, _, body = file.read_bytes().partition(b"\n")
    except OSError:
        return {}
    if header != _header(body):
        return {}  # The cache is damaged, or another version wrote it: all files are probed again.
    return {
        path: ProbedFile(FileStamp(size, modified_ns), _from_json(outcome))
        for path, size, modified_ns, outcome in json.loads(body)
    }


def _header(body: bytes) -> bytes:
    return " ".join(map(str, [*CACHE_FORMAT, hashlib.sha256(body).hexdigest()])).encode()


def _to_json(outcome: ProbeOutcome) -> Any:
    return outcome if isinstance(outcome, str) else {**probed_facts(outcome), "seek_points": outcome.seek_points}


def _from_json(outcome: Any) -> ProbeOutcome:
    if isinstance(outcome, str):
        return outcome
    seek_points = tuple(SeekPoint(*point) for point in outcome.pop("seek_points"))
    return VideoRecord(path="", seek_points=seek_points, **outcome)
