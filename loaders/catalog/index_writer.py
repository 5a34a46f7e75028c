"""Writing the index of a prepared set, in the format of `index_format`."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from cacl.clips import VideoRecord
from cacl.files import atomic_write
from cacl.loaders.catalog.index_format import FORMAT, NO_VALUE, digest_columns
from cacl.loaders.catalog.layouts.listing import VideoEntry
from cacl.loaders.catalog.prepared_files import INDEX_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedVideo:
    """One video as `cacl data prepare` wrote it, with all that is known of it."""

    video: VideoRecord
    """The record with its fragments; its path is relative to the folder of the set. Label and split are in `entry`."""
    entry: VideoEntry
    """What the lists of the source say; its path is that in the source."""
    splits: Mapping[int, str | None]
    """The split by the number of the official fold; a data set without numbered ones has only fold 1."""
    size: int
    """Bytes of the file."""
    source: str
    """The content hash of the source file, as in VideoRecord."""


class _Table:
    """Different values, each with the position at which it first came."""

    def __init__(self) -> None:
        self.positions: dict[Any, int] = {}

    def position(self, value: Any) -> int:
        return NO_VALUE if value is None else self.positions.setdefault(value, len(self.positions))


class IndexWriter:
    """Collects the videos of a set, in columns from the start, and writes its index."""

    def __init__(self, folder: Path) -> None:
        """Begins an index that will lie in this folder. Nothing is written before `save`."""
        self.folder = folder
        self.count = 0
        self.columns: dict[str, array[Any]] = {}
        self.tables: dict[str, _Table] = {}

    def add(self, prepared: PreparedVideo) -> None:
        """Takes in one video. The order of the calls is the order of the set."""
        video, entry, fragments = prepared.video, prepared.entry, prepared.video.fragments
        assert fragments is not None
        self._add_text("path", video.path)
        self._add_text("source_path", entry.path)
        self._add_values("frames", "i", video.frames)
        self._add_values("rate", "d", video.rate)
        self._add_values("width", "i", video.width)
        self._add_values("height", "i", video.height)
        self._add_values("size", "q", prepared.size)
        self._add_values("content", "B", *bytes.fromhex(video.content_hash))
        self._add_values("source_content", "B", *bytes.fromhex(prepared.source))
        self._add_choice("init", fragments.init_segment)
        self._add_choice("codec", video.codec)
        self._add_choice("label", entry.label)
        for fold, split in prepared.splits.items():
            self._add_choice(f"split.{fold}", split)
        for name, value in entry.attributes.items():
            self._add_choice(f"attribute.{name}", value)
        self._add_values("fragment_first", "i", *fragments.first_frames.tolist())
        self._add_values("fragment_offset", "q", *fragments.offsets.tolist())
        self._add_values("fragment_checksum", "I", *fragments.checksums.tolist())
        self._add_values("fragment_end", "q", len(self.columns["fragment_first"]))
        self.count += 1

    def save(self, about: Mapping[str, Any]) -> None:
        """Writes the index. The file appears whole or not at all.

        Args:
            about: What else is known of the set, which the index keeps; JSON must be able to hold it.

        Raises:
            OSError: The file cannot be written.
        """
        assert self.count, "a set without videos has no index"
        for name in self.tables:
            self._fill_up(name)
        inits = list(self.tables["init"].positions)
        columns = {name: np.frombuffer(column, column.typecode) for name, column in self.columns.items()}
        columns["init_bytes"] = np.frombuffer(b"".join(inits), np.uint8)
        columns["init_end"] = np.cumsum([len(init) for init in inits], dtype=np.int64)
        tables = {name: list(table.positions) for name, table in self.tables.items() if name != "init"}
        parts = [(name, column.dtype, [column.tobytes()]) for name, column in columns.items()]
        samples = json.dumps({"videos": self.count, "tables": tables}, sort_keys=True)
        rest = json.dumps(about, sort_keys=True)  # It decides no samples, so it has a digest of its own.
        head = {"format": FORMAT, "digest": digest_columns(parts, samples), "samples": samples}
        # One entry: safetensors writes several in random order, and the same set should have the same bytes.
        metadata = {"cacl": json.dumps(head | {"about_digest": digest_columns([], rest), "about": rest})}
        try:
            with atomic_write(self.folder / INDEX_NAME) as temporary:
                save_file(columns, temporary, metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from None

    def _add_values(self, name: str, typecode: str, *values: float) -> None:
        """Appends values to a column; `typecode` is its type as the module `array` names it."""
        self.columns.setdefault(name, array(typecode)).extend(values)

    def _add_text(self, name: str, text: str) -> None:
        """Appends a text to a column of bytes, and where it ends to another column."""
        self._add_values(name, "B", *os.fsencode(text))
        self._add_values(f"{name}_end", "q", len(self.columns[name]))

    def _add_choice(self, name: str, value: Any) -> None:
        """Appends the position of a value in the table of this name."""
        self._fill_up(name)  # A name may come up for the first time.
        self._add_values(name, "i", self.tables.setdefault(name, _Table()).position(value))

    def _fill_up(self, name: str) -> None:
        """Gives the earlier videos no value in a column of positions."""
        column = self.columns.setdefault(name, array("i"))
        column.extend([NO_VALUE] * (self.count - len(column)))
