"""The index of a prepared set: one file of columns, of which only what is looked at is in memory.

It is a safetensors file whose arrays are mapped, not read, so that a set of a million videos opens at once. A video's
record is put together when it is asked for. What a set has few of (labels, splits, heads of files) stands once, in
tables, and the columns hold positions in them.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from cacl.clips import Fragments, VideoRecord
from cacl.errors import DataError, reason_of
from cacl.loaders.catalog.layouts.hold_out import hold_out
from cacl.loaders.catalog.layouts.listing import VideoEntry
from cacl.loaders.catalog.prepared_files import INDEX_NAME
from cacl.loaders.decode import storage

FORMAT = "cacl prepared set 1"
DTYPES = {"U8": np.uint8, "U32": np.uint32, "I32": np.int32, "I64": np.int64, "F64": np.float64}
"""Those of safetensors that are used here."""
NONE = -1
"""In a column of positions: no entry of the table."""
HASH_BYTES = 16
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """One video as `cacl data prepare` wrote it, with all that is known of it."""

    video: VideoRecord
    """With its fragments; its path is relative to the folder of the set. Label and split are in `entry`."""
    entry: VideoEntry
    """What the lists of the source say; its path is that in the source."""
    splits: Mapping[int, str | None]
    """By the number of the official split; a data set without numbered ones has only split 1."""
    size: int
    """Bytes of the file."""
    source: str
    """Content hash of the source file, as in VideoRecord."""


class _Table:
    """Different values, by the order in which they came."""

    def __init__(self) -> None:
        self.positions: dict[Any, int] = {}

    def position(self, value: Any) -> int:
        return NONE if value is None else self.positions.setdefault(value, len(self.positions))


class IndexWriter:
    """Collects the videos of a set, in columns from the start, and writes its index."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self.columns: dict[str, array[Any]] = {}
        self.tables: dict[str, _Table] = {}

    def add(self, prepared: Prepared) -> None:
        video, entry, fragments = prepared.video, prepared.entry, prepared.video.fragments
        assert fragments is not None
        self._text("path", video.path)
        self._text("source_path", entry.path)
        self._put("frames", "i", video.frames)
        self._put("rate", "d", video.rate)
        self._put("width", "i", video.width)
        self._put("height", "i", video.height)
        self._put("size", "q", prepared.size)
        self._put("content", "B", *bytes.fromhex(video.content))
        self._put("source_content", "B", *bytes.fromhex(prepared.source))
        self._choice("init", fragments.init)
        self._choice("codec", video.codec)
        self._choice("label", entry.label)
        for number, split in prepared.splits.items():
            self._choice(f"split.{number}", split)
        for name, value in entry.attributes.items():
            self._choice(f"attribute.{name}", value)
        self._put("fragment_first", "i", *fragments.first.tolist())
        self._put("fragment_offset", "q", *fragments.offset.tolist())
        self._put("fragment_checksum", "I", *fragments.checksum.tolist())
        self._put("fragment_end", "q", len(self.columns["fragment_first"]))
        self.count += 1

    def save(self, about: Mapping[str, Any]) -> None:
        """Writes the index; `about` is kept in it, and JSON can hold it.

        The file appears whole or not at all. Raises OSError if it cannot be written.
        """
        assert self.count, "a set without videos has no index"
        for name in self.tables:
            self._fill(name)
        inits = list(self.tables["init"].positions)
        columns = {name: np.frombuffer(column, column.typecode) for name, column in self.columns.items()}
        columns["init_bytes"] = np.frombuffer(b"".join(inits), np.uint8)
        columns["init_end"] = np.cumsum([len(init) for init in inits], dtype=np.int64)
        tables = {name: list(table.positions) for name, table in self.tables.items() if name != "init"}
        parts = [(name, column.dtype, [column.tobytes()]) for name, column in columns.items()]
        samples = json.dumps({"videos": self.count, "tables": tables}, sort_keys=True)
        rest = json.dumps(about, sort_keys=True)  # decides no samples: it has a digest of its own
        head = {"format": FORMAT, "digest": _digest(parts, samples), "samples": samples}
        # One entry: safetensors writes several in random order, and the same set should have the same bytes.
        metadata = {"cacl": json.dumps(head | {"about_digest": _digest([], rest), "about": rest})}
        temporary = self.folder / f".{INDEX_NAME}.tmp"
        try:
            save_file(columns, temporary, metadata)
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, self.folder / INDEX_NAME)
        except SafetensorError as error:
            raise OSError(str(error)) from None
        finally:
            temporary.unlink(missing_ok=True)

    def _put(self, name: str, kind: str, *values: float) -> None:
        self.columns.setdefault(name, array(kind)).extend(values)

    def _text(self, name: str, text: str) -> None:
        self._put(name, "B", *os.fsencode(text))
        self._put(f"{name}_end", "q", len(self.columns[name]))

    def _choice(self, name: str, value: Any) -> None:
        self._fill(name)  # a name may come up for the first time
        self._put(name, "i", self.tables.setdefault(name, _Table()).position(value))

    def _fill(self, name: str) -> None:
        column = self.columns.setdefault(name, array("i"))
        column.extend([NONE] * (self.count - len(column)))


class Index:
    """An open index: its columns, mapped, and its tables. Raises DataError naming the file if it is not in order."""

    def __init__(self, file: Path, name: str) -> None:
        """name: of the set, in messages."""
        self.name = name
        try:
            self.columns, head = _mapped(file)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
            reason = reason_of(error)
            raise DataError(f"{name}: its {INDEX_NAME} cannot be used ({reason}); prepare the set again") from None
        self.digest: str = head["digest"]
        """Of all but `about`."""
        samples = json.loads(head["samples"])
        self.count: int = samples["videos"]
        self.tables: Mapping[str, list[Any]] = samples["tables"]
        self.about: Mapping[str, Any] = json.loads(head["about"])

    @property
    def splits(self) -> list[int]:
        """Numbers of the official splits."""
        return sorted(int(name.partition(".")[2]) for name in self.tables if name.startswith("split."))

    def text(self, name: str, row: int) -> str:
        return os.fsdecode(_slice(self.columns[name], self.columns[f"{name}_end"], row).tobytes())

    def choice(self, name: str, row: int) -> Any:
        position = int(self.columns[name][row])
        return None if position == NONE else self.tables[name][position]

    def fragments(self, row: int) -> Fragments:
        end = self.columns["fragment_end"]
        first = _slice(self.columns["fragment_first"], end, row)
        # Each video has one offset more than fragments.
        start, stop = (int(end[row - 1]) if row else 0) + row, int(end[row]) + row + 1
        return Fragments(
            init=_slice(self.columns["init_bytes"], self.columns["init_end"], int(self.columns["init"][row])).tobytes(),
            first=first,
            offset=self.columns["fragment_offset"][start:stop],
            checksum=_slice(self.columns["fragment_checksum"], end, row),
        )


def fetched(root: str, folder: Path, name: str) -> Index:
    """The index of a remote set, of which a copy is kept in a folder. Raises DataError as Index does."""
    copy = _copy(root, folder)
    try:
        return Index(copy, name)
    except DataError:  # a copy that is damaged costs time and nothing else
        copy.unlink(missing_ok=True)
        return Index(_copy(root, folder), name)


def _copy(root: str, folder: Path) -> Path:
    """A copy of the index as it is now: its head, in which there is a digest of all else, tells whether it changed.
    Times and tags of files do not, or not everywhere."""
    address = f"{root}/{INDEX_NAME}"
    (length,) = struct.unpack("<Q", storage.read(address, 0, 8))
    head = storage.read(address, 8, 8 + length)
    return storage.download(address, folder, hashlib.sha256(head).hexdigest())


class PreparedVideos(Sequence[VideoRecord]):
    """The videos of an index, or a choice of them. Records are put together when asked for, and are not kept."""

    def __init__(self, index: Index, split: int, test_share: float) -> None:
        """split: the number of the official split. test_share: held out of each class where there are no splits."""
        self.opened, self.rows = index, np.arange(index.count)
        if index.splits and split not in index.splits:
            there = ", ".join(map(str, index.splits))
            raise DataError(f"data.fold = {split}: {index.name} was prepared with fold {there}")
        name = f"split.{split}"
        names, column = list(index.tables.get(name, [])), index.columns.get(name, np.full(index.count, NONE))
        if test_share and not names:
            names, column = _held_out(index, test_share)
        self.split_names, self.split_column = names, column

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, which: int) -> VideoRecord: ...
    @overload
    def __getitem__(self, which: slice) -> PreparedVideos: ...
    def __getitem__(self, which: int | slice) -> VideoRecord | PreparedVideos:
        if isinstance(which, slice):
            return self._chosen(self.rows[which])
        row, columns, index = int(self.rows[which]), self.opened.columns, self.opened
        split = int(self.split_column[row])
        attributes = {n.partition(".")[2]: index.choice(n, row) for n in index.tables if n.startswith("attribute.")}
        return VideoRecord(
            path=index.text("path", row),
            frames=int(columns["frames"][row]),
            declared_frames=int(columns["frames"][row]),
            rate=float(columns["rate"][row]),
            width=int(columns["width"][row]),
            height=int(columns["height"][row]),
            codec=index.choice("codec", row),
            content=columns["content"][row * HASH_BYTES : (row + 1) * HASH_BYTES].tobytes().hex(),
            label=index.choice("label", row),
            split=None if split == NONE else self.split_names[split],
            attributes={name: value for name, value in attributes.items() if value is not None},
            fragments=index.fragments(row),
        )

    def of_split(self, split: str) -> PreparedVideos:
        wanted = self.split_names.index(split) if split in self.split_names else len(self.split_names)
        return self._chosen(self.rows[self.split_column[self.rows] == wanted])

    def shorter_than(self, frames: int) -> PreparedVideos:
        return self._chosen(self.rows[self.opened.columns["frames"][self.rows] < frames])

    def at_least(self, frames: int) -> PreparedVideos:
        return self._chosen(self.rows[self.opened.columns["frames"][self.rows] >= frames])

    @property
    def has_splits(self) -> bool:
        return bool(self.split_names)

    @property
    def fingerprint(self) -> str:
        """Hex digits that change with anything that decides samples."""
        splits = json.dumps(self.split_names).encode() + np.ascontiguousarray(self.split_column).tobytes()
        return hashlib.sha256(self.opened.digest.encode() + splits + self.rows.tobytes()).hexdigest()

    def _chosen(self, rows: np.ndarray) -> PreparedVideos:
        chosen = object.__new__(PreparedVideos)
        chosen.__dict__ = self.__dict__ | {"rows": rows}
        return chosen


def _held_out(index: Index, share: float) -> tuple[list[str], np.ndarray]:
    """As for the source of the set: its paths decide, and not where the prepared files lie."""
    entries = [VideoEntry(index.text("source_path", row), index.choice("label", row)) for row in range(index.count)]
    if not any(entry.label for entry in entries):
        raise DataError(f"data.test_share = {share} holds out videos of each class, but {index.name} tells no classes")
    names = ["train", "test"]
    return names, np.array([names.index(e.split) if e.split else NONE for e in hold_out(entries, share)], np.int32)


def _slice(values: np.ndarray, end: np.ndarray, row: int) -> np.ndarray:
    """The values of one row of a column whose rows have different lengths; end: where each row ends."""
    return values[int(end[row - 1]) if row else 0 : int(end[row])]


def _mapped(file: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of the file by name, and what else it says. Raises ValueError if they are not what was written; an odd
    header may also fail in other ways."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        if length > os.fstat(opened.fileno()).st_size:
            raise ValueError("it is cut short")
        header = json.loads(opened.read(length))
        head = json.loads(header.pop("__metadata__")["cacl"])
        if head["format"] != FORMAT:
            raise ValueError(f"its format is {head['format']!r}, not {FORMAT!r}")
        columns = {
            name: (np.dtype(DTYPES[about["dtype"]]), [8 + length + location for location in about["data_offsets"]])
            for name, about in header.items()
        }
        # Read, not mapped: pages of the mapping that nobody needs again would stay in memory.
        parts = ((name, dtype, _read(opened, *location)) for name, (dtype, location) in columns.items())
        if _digest(parts, head["samples"]) != head["digest"] or _digest([], head["about"]) != head["about_digest"]:
            raise ValueError("it is damaged")
        data = np.asarray(np.memmap(opened, np.uint8, "r"))  # the same file, though its name may be another's by now
    return {name: data[slice(*location)].view(dtype) for name, (dtype, location) in columns.items()}, head


def _read(file: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    file.seek(start)
    while start < stop:
        part = file.read(min(CHUNK_BYTES, stop - start))
        if not part:
            raise ValueError("it is cut short")
        yield part
        start += len(part)


def _digest(columns: Iterable[tuple[str, np.dtype[Any], Iterable[bytes]]], text: str) -> str:
    """BLAKE2b, 128 bits as hex digits, of columns in any order, with their names and types, and a text."""
    digest = hashlib.blake2b(text.encode(), digest_size=HASH_BYTES)
    for name, dtype, parts in sorted(columns, key=lambda column: column[0]):
        digest.update(f"{name} {dtype.str}".encode() + b"\0")
        for part in parts:
            digest.update(part)
    return digest.hexdigest()
