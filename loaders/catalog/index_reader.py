"""Opening the index of a prepared set, which `index_format` describes."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cacl.clips import Fragments
from cacl.errors import DataError, reason_of
from cacl.loaders.catalog.index_format import DTYPES, FORMAT, NO_VALUE, digest_columns
from cacl.loaders.catalog.prepared_files import INDEX_NAME
from cacl.loaders.decode import storage

CHUNK_BYTES = 1 << 20
"""The index is checked in parts of this many bytes."""


class PreparedIndex:
    """An open index: its columns, mapped into memory, and its tables."""

    def __init__(self, file: Path, set_name: str) -> None:
        """Opens and checks an index.

        Args:
            file: The index.
            set_name: What messages call the set.

        Raises:
            DataError: The file is not there, or is not what was written.
        """
        self.set_name = set_name
        try:
            self.columns, head = _map_columns(file)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
            reason = reason_of(error)
            raise DataError(f"{set_name}: its {INDEX_NAME} cannot be used ({reason}); prepare the set again") from None
        self.digest: str = head["digest"]
        """The digest of all but `about`."""
        samples = json.loads(head["samples"])
        self.count: int = samples["videos"]
        self.tables: Mapping[str, list[Any]] = samples["tables"]
        self.about: Mapping[str, Any] = json.loads(head["about"])

    @property
    def folds(self) -> list[int]:
        """The numbers of the official folds."""
        return sorted(int(name.partition(".")[2]) for name in self.tables if name.startswith("split."))

    def text(self, name: str, row: int) -> str:
        """Returns the text of one video in a column of texts."""
        return os.fsdecode(_values_of_row(self.columns[name], self.columns[f"{name}_end"], row).tobytes())

    def choice(self, name: str, row: int) -> Any:
        """Returns the value of one video in a column of positions in a table, or None."""
        position = int(self.columns[name][row])
        return None if position == NO_VALUE else self.tables[name][position]

    def fragments(self, row: int) -> Fragments:
        """Returns where the fragments of one video lie in its file."""
        end = self.columns["fragment_end"]
        first = _values_of_row(self.columns["fragment_first"], end, row)
        # Each video has one offset more than fragments.
        start, stop = (int(end[row - 1]) if row else 0) + row, int(end[row]) + row + 1
        init = _values_of_row(self.columns["init_bytes"], self.columns["init_end"], int(self.columns["init"][row]))
        return Fragments(
            init_segment=init.tobytes(),
            first_frames=first,
            offsets=self.columns["fragment_offset"][start:stop],
            checksums=_values_of_row(self.columns["fragment_checksum"], end, row),
        )


def open_remote_index(root: str, cache: Path, set_name: str) -> PreparedIndex:
    """Opens the index of a remote set.

    Args:
        root: The address of the set.
        cache: The folder that a copy of the index is kept in.
        set_name: What messages call the set.

    Raises:
        DataError: The index cannot be fetched, or is not what was written.
    """
    copy = _fetch_copy(root, cache)
    try:
        return PreparedIndex(copy, set_name)
    except DataError:  # A copy that is damaged costs time and nothing else.
        copy.unlink(missing_ok=True)
        return PreparedIndex(_fetch_copy(root, cache), set_name)


def _fetch_copy(root: str, cache: Path) -> Path:
    """Returns a copy of the index as it is now.

    Its head, in which there is a digest of all else, tells whether it changed. Times and tags of files do not, or not
    everywhere.
    """
    address = f"{root}/{INDEX_NAME}"
    (length,) = struct.unpack("<Q", storage.read(address, 0, 8))
    head = storage.read(address, 8, 8 + length)
    return storage.download(address, cache, hashlib.sha256(head).hexdigest())


def _values_of_row(values: np.ndarray, end: np.ndarray, row: int) -> np.ndarray:
    """Returns the values of one row of a column whose rows have different lengths; `end` says where each row ends."""
    return values[int(end[row - 1]) if row else 0 : int(end[row])]


def _map_columns(file: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Maps the arrays of a file into memory.

    Returns:
        The arrays by name, and what else the file says.

    Raises:
        ValueError: They are not what was written. An odd header may also fail in other ways.
    """
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        if length > os.fstat(opened.fileno()).st_size:
            raise ValueError("it is cut short")
        header = json.loads(opened.read(length))
        head = json.loads(header.pop("__metadata__")["cacl"])
        if head["format"] != FORMAT:
            raise ValueError(f"its format is {head['format']!r}, not {FORMAT!r}")
        columns = {
            name: (np.dtype(DTYPES[about["dtype"]]), [8 + length + offset for offset in about["data_offsets"]])
            for name, about in header.items()
        }
        # Read, not mapped: pages of the mapping that nobody needs again would stay in memory.
        parts = ((name, dtype, _read_chunks(opened, *span)) for name, (dtype, span) in columns.items())
        is_whole = digest_columns(parts, head["samples"]) == head["digest"]
        if not is_whole or digest_columns([], head["about"]) != head["about_digest"]:
            raise ValueError("it is damaged")
        # The open file is mapped, since its name may be that of another file by now.
        data = np.asarray(np.memmap(opened, np.uint8, "r"))
    return {name: data[slice(*span)].view(dtype) for name, (dtype, span) in columns.items()}, head


def _read_chunks(file: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    file.seek(start)
    while start < stop:
        chunk = file.read(min(CHUNK_BYTES, stop - start))
        if not chunk:
            raise ValueError("it is cut short")
        yield chunk
        start += len(chunk)
