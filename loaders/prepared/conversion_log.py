"""The log of what `cacl data prepare` has done in a folder, so that it goes on there after any end.

Each line is a JSON object. The first line says from what and how the set is made. Each further one is a source that is
converted or rejected; it is written after the video is in its place, and a later line about the same source counts. A
line that is torn (the machine went down) and all lines after it are dropped.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from cacl.clips import Fragments, VideoRecord
from cacl.errors import DataError
from cacl.files import FileStamp, atomic_write
from cacl.loaders.catalog.prepared_files import CONVERSION_LOG_NAME
from cacl.loaders.catalog.quirks import Quirks
from cacl.loaders.prepared.shard import Shard

FORMAT = "cacl conversion log 3"


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedSource:
    """A source that cannot be used."""

    path: str
    """The path of the source."""
    stamp: FileStamp | None
    """The stamp of the source. None means that the reason may pass, though the source stays the same."""
    reason: str
    """The reason, which continues a sentence that begins with the path."""

    def to_json(self) -> dict[str, Any]:
        """Returns the line of the log as an object for `json`."""
        return {"path": self.path, "stamp": self.stamp, "rejected": self.reason}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedSource:
    """A source whose prepared video is in its place."""

    path: str
    """The path of the source."""
    stamp: FileStamp
    """The stamp of the source when it was converted."""
    content_hash: str
    """The content hash of the source, see `VideoRecord.content_hash`."""
    copied: bool
    """Whether its packets were copied; if not, it was encoded."""
    video: VideoRecord
    """The prepared video, without its path and without its init segment, which is to be read from its file."""
    init_checksum: int
    """The CRC-32 of the init segment."""
    quirks: Quirks
    """What is unusual about the source."""

    @property
    def size_bytes(self) -> int:
        """The size of the prepared video."""
        assert self.video.fragments is not None
        return int(self.video.fragments.offsets[-1])

    def to_json(self) -> dict[str, Any]:
        """Returns the line of the log as an object for `json`."""
        video, fragments = self.video, self.video.fragments
        assert fragments is not None
        return {
            "path": self.path,
            "stamp": self.stamp,
            "source_hash": self.content_hash,
            "copied": self.copied,
            "content_hash": video.content_hash,
            "rate": video.rate,
            "size": [video.width, video.height],
            "frames": video.frames,
            "first_frames": fragments.first_frames.tolist(),
            "offsets": fragments.offsets.tolist(),
            "checksums": fragments.checksums.tolist(),
            "init_checksum": self.init_checksum,
            "quirks": self.quirks,
        }


SourceOutcome: TypeAlias = ConvertedSource | RejectedSource


class ConversionLog:
    """An open log. While it is open nobody else writes to it, and so to the set."""

    def __init__(self, folder: Path, root: Path, settings: Mapping[str, Any], shard: Shard | None = None) -> None:
        """Opens the log of a prepared set, or begins it.

        Args:
            folder: The folder of the prepared set.
            root: The folder of the sources.
            settings: What the sources are converted with.
            shard: The shard whose log it is; None stands for that of the whole set.

        Raises:
            DataError: Another process has the log open, or it tells of another root or other settings.
            OSError: The log cannot be written.
        """
        self.outcomes: dict[str, SourceOutcome] = {}
        """What became of each source, by its path."""
        # The file has no buffer: a line that cannot be written is not tried again.
        path = folder / (shard.log_name if shard else CONVERSION_LOG_NAME)
        self.file = path.open("ab", buffering=0)
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read(path, _header(root, settings) | ({"shard": str(shard)} if shard else {}))
        except BlockingIOError:
            self.file.close()
            command = f"cacl data prepare --shard {shard}" if shard else "cacl data prepare"
            raise DataError(f"{folder}: another `{command}` is at work there") from None
        except BaseException:
            self.file.close()
            raise

    def __enter__(self) -> ConversionLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    def add(self, outcome: SourceOutcome) -> None:
        """Writes down what became of a source. When it returns, the line has reached the disk.

        Args:
            outcome: The converted or rejected source.

        Raises:
            OSError: The log cannot be written.
        """
        self._append(_line(outcome.to_json()))
        self.outcomes[outcome.path] = outcome

    def _append(self, line: bytes) -> None:
        while line:
            line = line[self.file.write(line) :]
        os.fsync(self.file.fileno())

    def _read(self, path: Path, header: Mapping[str, Any]) -> None:
        with path.open("rb") as lines:
            first = lines.readline()
            if first.endswith(b"\n"):
                _check_header(path, first, header)
                self.file.truncate(len(first) + self._read_outcomes(lines, header["codec"]))
            else:  # The log is new, or its first line is torn.
                self.file.truncate(0)
                self._append(_line(header))

    def _read_outcomes(self, lines: BinaryIO, codec: str) -> int:
        """Reads the outcomes up to the first torn line, and returns how many bytes they take."""
        whole = 0
        for line in lines:
            try:
                outcome = _outcome_from_json(json.loads(line), codec)
            except ValueError:
                break
            if not line.endswith(b"\n"):
                break
            self.outcomes[outcome.path] = outcome
            whole += len(line)
        return whole


def read_header(path: Path) -> dict[str, Any]:
    """Returns the first line of a log, which says from what and how the set is made.

    Args:
        path: The log.

    Raises:
        DataError: The line is damaged or torn.
        OSError: The log cannot be read.
    """
    with path.open("rb") as lines:
        first = lines.readline()
    return _header_from_line(path, first)


def write_merged(folder: Path, root: Path, settings: Mapping[str, Any], outcomes: Iterable[SourceOutcome]) -> None:
    """Writes the log of a whole set that was made in shards. It appears whole or not at all.

    Args:
        folder: The folder of the prepared set.
        root: The folder of the sources.
        settings: What the sources were converted with.
        outcomes: What became of each source.

    Raises:
        OSError: The log cannot be written.
    """
    with atomic_write(folder / CONVERSION_LOG_NAME) as temporary, temporary.open("wb") as log:
        log.write(_line(_header(root, settings)))
        log.writelines(_line(outcome.to_json()) for outcome in outcomes)


def _header(root: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"format": FORMAT, "source": str(root), **settings}


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def _header_from_line(path: Path, line: bytes) -> dict[str, Any]:
    try:
        return {"codec": "h264"} | json.loads(line)  # Sets that do not tell are from before there was a choice.
    except (ValueError, TypeError):
        raise DataError(f"{path.parent}: its {path.name} is damaged in the first line; name another folder") from None


def _check_header(path: Path, line: bytes, header: Mapping[str, Any]) -> None:
    found = _header_from_line(path, line)
    for key, wanted in header.items():
        if found.get(key) != wanted:
            raise DataError(
                f"{path.parent}: was begun with {key} = {found.get(key)}, not {wanted}; give the same again, or name"
                " another folder"
            )


def _outcome_from_json(line: dict[str, Any], codec: str) -> SourceOutcome:
    if "rejected" in line:
        stamp = line["stamp"] and FileStamp(*line["stamp"])
        return RejectedSource(path=line["path"], stamp=stamp, reason=line["rejected"])
    video = VideoRecord(
        path="",
        frames=line["frames"],
        declared_frames=line["frames"],
        rate=line["rate"],
        width=line["size"][0],
        height=line["size"][1],
        codec=codec,
        content_hash=line["content_hash"],
        fragments=Fragments(
            init_segment=b"",
            first_frames=np.array(line["first_frames"], np.int64),
            offsets=np.array(line["offsets"], np.int64),
            checksums=np.array(line["checksums"], np.uint32),
        ),
    )
    return ConvertedSource(
        path=line["path"],
        stamp=FileStamp(*line["stamp"]),
        content_hash=line["source_hash"],
        copied=line["copied"],
        video=video,
        init_checksum=line["init_checksum"],
        quirks=line["quirks"],
    )
