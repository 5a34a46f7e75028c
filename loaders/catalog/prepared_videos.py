"""The videos of a prepared set, as a sequence of records that are put together when they are asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import overload

import numpy as np

from cacl.clips import VideoRecord
from cacl.errors import DataError
from cacl.loaders.catalog.index_format import HASH_BYTES, NO_VALUE
from cacl.loaders.catalog.index_reader import PreparedIndex
from cacl.loaders.catalog.layouts.hold_out import hold_out
from cacl.loaders.catalog.layouts.listing import VideoEntry


class PreparedVideos(Sequence[VideoRecord]):
    """The videos of an index, or a choice of them. Records are put together when asked for, and are not kept."""

    def __init__(self, prepared_index: PreparedIndex, fold: int, test_share: float) -> None:
        """Takes all videos of an index.

        Args:
            prepared_index: The open index.
            fold: The number of the official fold.
            test_share: The share of each class that is held out as test where the set tells no splits.

        Raises:
            DataError: The set has no such fold, or videos are to be held out and it tells no classes.
        """
        self.prepared_index, self.rows = prepared_index, np.arange(prepared_index.count)
        if prepared_index.folds and fold not in prepared_index.folds:
            there = ", ".join(map(str, prepared_index.folds))
            raise DataError(f"data.fold = {fold}: {prepared_index.set_name} was prepared with fold {there}")
        name = f"split.{fold}"
        names = list(prepared_index.tables.get(name, []))
        column = prepared_index.columns.get(name, np.full(prepared_index.count, NO_VALUE))
        if test_share and not names:
            names, column = _hold_out(prepared_index, test_share)
        self.split_names, self.split_column = names, column

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, which: int) -> VideoRecord: ...
    @overload
    def __getitem__(self, which: slice) -> PreparedVideos: ...
    def __getitem__(self, which: int | slice) -> VideoRecord | PreparedVideos:
        """Returns the record at a position, or the videos of a slice."""
        if isinstance(which, slice):
            return self._choose(self.rows[which])
        row, columns, opened = int(self.rows[which]), self.prepared_index.columns, self.prepared_index
        split = int(self.split_column[row])
        attributes = {n.partition(".")[2]: opened.choice(n, row) for n in opened.tables if n.startswith("attribute.")}
        return VideoRecord(
            path=opened.text("path", row),
            frames=int(columns["frames"][row]),
            declared_frames=int(columns["frames"][row]),
            rate=float(columns["rate"][row]),
            width=int(columns["width"][row]),
            height=int(columns["height"][row]),
            codec=opened.choice("codec", row),
            content_hash=columns["content"][row * HASH_BYTES : (row + 1) * HASH_BYTES].tobytes().hex(),
            label=opened.choice("label", row),
            split=None if split == NO_VALUE else self.split_names[split],
            attributes={name: value for name, value in attributes.items() if value is not None},
            fragments=opened.fragments(row),
        )

    def of_split(self, split: str) -> PreparedVideos:
        """Returns the videos of one split; there may be none."""
        wanted = self.split_names.index(split) if split in self.split_names else len(self.split_names)
        return self._choose(self.rows[self.split_column[self.rows] == wanted])

    def source_path(self, which: int) -> str:
        """Returns the path that a video had in the source of the set."""
        return self.prepared_index.text("source_path", int(self.rows[which]))

    def with_validation(self, positions: Sequence[int]) -> PreparedVideos:
        """Returns the same videos, of which some belong to `val`. Where nothing is said of splits, others are `train`.

        Args:
            positions: The positions of the new validation videos.
        """
        names, column = self.split_names or ["train"], self.split_column.copy()
        if not self.split_names:
            column[:] = 0
        names = [*names, *({"val"} - set(names))]
        column[self.rows[list(positions)]] = names.index("val")
        chosen = self._choose(self.rows)
        chosen.split_names, chosen.split_column = names, column
        return chosen

    def shorter_than(self, frames: int) -> PreparedVideos:
        """Returns the videos with fewer frames than these."""
        return self._choose(self.rows[self.prepared_index.columns["frames"][self.rows] < frames])

    def at_least(self, frames: int) -> PreparedVideos:
        """Returns the videos with this many frames or more."""
        return self._choose(self.rows[self.prepared_index.columns["frames"][self.rows] >= frames])

    @property
    def source_hashes(self) -> np.ndarray:
        """The first 64 bits of the content hash of each source: uint64 [videos]."""
        hashes = self.prepared_index.columns["source_content"].reshape(-1, HASH_BYTES)[self.rows, :8]
        return np.ascontiguousarray(hashes).view(">u8")[:, 0].astype(np.uint64)

    @property
    def has_splits(self) -> bool:
        """Whether any video of the set is known to belong to a split."""
        return bool(self.split_names)

    @property
    def fingerprint(self) -> str:
        """Hex digits that change with anything that decides samples."""
        splits = json.dumps(self.split_names).encode() + np.ascontiguousarray(self.split_column).tobytes()
        return hashlib.sha256(self.prepared_index.digest.encode() + splits + self.rows.tobytes()).hexdigest()

    def _choose(self, rows: np.ndarray) -> PreparedVideos:
        chosen = object.__new__(PreparedVideos)
        chosen.__dict__ = self.__dict__ | {"rows": rows}
        return chosen


def _hold_out(opened: PreparedIndex, share: float) -> tuple[list[str], np.ndarray]:
    """Holds out videos as `hold_out` does for the source of the set: its paths decide, not those of prepared files.

    Returns:
        The names of the splits, and the position of each video's split among them, int32 [videos].
    """
    entries = [VideoEntry(opened.text("source_path", row), opened.choice("label", row)) for row in range(opened.count)]
    if not any(entry.label for entry in entries):
        raise DataError(
            f"data.test_share = {share} holds out videos of each class, but {opened.set_name} tells no classes"
        )
    names = ["train", "test"]
    return names, np.array([names.index(e.split) if e.split else NO_VALUE for e in hold_out(entries, share)], np.int32)
