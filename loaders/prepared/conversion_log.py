"""What `cacl data prepare` has done in a folder, so that it goes on there after any end: one JSON object a line.

The first line says from what and how the set is made. Each further one is a source that is finished or rejected; it is
written after the video is in its place, and a later line about the same source counts. A line that is torn (the machine
went down) and all after it are not there.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from cacl.clips import Fragments, VideoRecord
from cacl.errors import DataError
from cacl.loaders.catalog.prepared_files import CONVERSION_LOG_NAME
from cacl.loaders.catalog.quirks import Quirks

FORMAT = "cacl conversion log 3"

Stamp: TypeAlias = tuple[int, int]
"""Size in bytes and modification time in nanoseconds of a source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedSource:
    path: str
    """Of the source."""
    stamp: Stamp | None
    """None: the reason may pass, though the source stays the same."""
    reason: str
    """Continues a sentence that begins with the path."""

    def to_json(self) -> dict[str, Any]:
        return {"path": self.path, "stamp": self.stamp, "rejected": self.reason}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedSource:
    path: str
    """Of the source."""
    stamp: Stamp
    content: str
    """Content hash of the source."""
    copied: bool
    video: VideoRecord
    """What was written, without its path, and without the head of the file: to be read from there."""
    head: int
    """CRC-32 of that."""
    quirks: Quirks
    """On the source."""

    @property
    def size(self) -> int:
        """Bytes written."""
        assert self.video.fragments is not None
        return int(self.video.fragments.offset[-1])

    def to_json(self) -> dict[str, Any]:
        video, fragments = self.video, self.video.fragments
        assert fragments is not None
        return {
            "path": self.path,
            "stamp": self.stamp,
            "source": self.content,
            "copied": self.copied,
            "content": video.content,
            "rate": video.rate,
            "size": [video.width, video.height],
            "frames": video.frames,
            "first": fragments.first.tolist(),
            "offset": fragments.offset.tolist(),
            "crc": fragments.checksum.tolist(),
            "head": self.head,
            "quirks": self.quirks,
        }


def _from_json(line: dict[str, Any]) -> ConvertedSource | RejectedSource:
    if "rejected" in line:
        return RejectedSource(path=line["path"], stamp=line["stamp"] and tuple(line["stamp"]), reason=line["rejected"])
    video = VideoRecord(
        path="",
        frames=line["frames"],
        declared_frames=line["frames"],
        rate=line["rate"],
        width=line["size"][0],
        height=line["size"][1],
        codec="h264",
        content=line["content"],
        fragments=Fragments(
            init=b"",
            first=np.array(line["first"], np.int64),
            offset=np.array(line["offset"], np.int64),
            checksum=np.array(line["crc"], np.uint32),
        ),
    )
    return ConvertedSource(
        path=line["path"],
        stamp=tuple(line["stamp"]),
        content=line["source"],
        copied=line["copied"],
        video=video,
        head=line["head"],
        quirks=line["quirks"],
    )


class ConversionLog:
    """An open journal. While it is open nobody else writes to it, and so to the set."""

    def __init__(self, folder: Path, root: Path, settings: Mapping[str, Any]) -> None:
        """Opens the journal of a set made from this root with these settings, or begins it.

        Raises DataError if another process has it open, or if it tells of another root or other settings; OSError if it
        cannot be written.
        """
        self.outcomes: dict[str, ConvertedSource | RejectedSource] = {}
        """By the path of the source."""
        self.file = (folder / CONVERSION_LOG_NAME).open(
            "ab", buffering=0
        )  # a line that cannot be written is not tried again
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read(folder, {"format": FORMAT, "source": str(root), **settings})
        except BlockingIOError:
            self.file.close()
            raise DataError(f"{folder}: another `cacl data prepare` is at work there") from None
        except BaseException:
            self.file.close()
            raise

    def __enter__(self) -> ConversionLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    def add(self, outcome: ConvertedSource | RejectedSource) -> None:
        """Raises OSError if it cannot be written."""
        self._append(outcome.to_json())
        self.outcomes[outcome.path] = outcome

    def _append(self, content: Mapping[str, Any]) -> None:
        line = json.dumps(content, separators=(",", ":")).encode() + b"\n"
        while line:
            line = line[self.file.write(line) :]
        os.fsync(self.file.fileno())

    def _read(self, folder: Path, header: Mapping[str, Any]) -> None:
        with (folder / CONVERSION_LOG_NAME).open("rb") as lines:
            first = lines.readline()
            if first.endswith(b"\n"):
                _compare(folder, first, header)
                self.file.truncate(len(first) + self._read_outcomes(lines))
            else:  # new, or torn at once
                self.file.truncate(0)
                self._append(header)

    def _read_outcomes(self, lines: BinaryIO) -> int:
        """Returns how many bytes of them are whole lines."""
        whole = 0
        for line in lines:
            try:
                outcome = _from_json(json.loads(line))
            except ValueError:
                break
            if not line.endswith(b"\n"):
                break
            self.outcomes[outcome.path] = outcome
            whole += len(line)
        return whole


def _compare(folder: Path, line: bytes, header: Mapping[str, Any]) -> None:
    try:
        found = json.loads(line)
    except ValueError:
        raise DataError(
            f"{folder}: its {CONVERSION_LOG_NAME} is damaged in the first line; name another folder"
        ) from None
    for key, wanted in header.items():
        if found.get(key) != wanted:
            raise DataError(
                f"{folder}: was begun with {key} = {found.get(key)}, not {wanted}; give the same again, or name another"
                " folder"
            )
