"""What is known of the videos of a data set before any of them is decoded: an entry for each, a listing of all."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cacl.errors import DataError


class VideoEntry(NamedTuple):
    """One video file and what lists and folders say of it."""

    path: str
    """Relative to the root, with forward slashes; absolute where a list names a video outside the root that way."""
    label: str | None = None
    """The name of the class, or None where nothing tells it."""
    split: str | None = None
    """`train`, `val`, `test`, or None where nothing tells it."""
    attributes: Mapping[str, str] = {}
    """Further columns of a list, by name."""

    @property
    def description(self) -> str:
        """What is known of the video apart from its path, for messages."""
        others = "".join(f", {name} {value}" for name, value in self.attributes.items())
        return f"label {self.label}, split {self.split}{others}"


class LayoutResult(NamedTuple):
    """What a layout makes of the files below a root."""

    entries: Sequence[VideoEntry]
    """An entry for each path of a video; several paths may still lead to the same file."""
    missing: Sequence[str] = ()
    """Listed names for which there is no file, sorted."""
    notes: Sequence[str] = ()
    """What was guessed, one line each."""
    used_lists: Collection[str] = ()
    """The lists among `FolderContents.lists` that this comes from."""


class Listing(NamedTuple):
    """All videos of a data set, each file once."""

    root: Path
    """The absolute path of the root; that of the folder of the list where data.root is one."""
    layout: str
    """The layout that was found, never `auto`."""
    entries: tuple[VideoEntry, ...]
    """An entry for each video file, sorted by path."""
    missing: tuple[str, ...]
    """Listed names for which there is no file, sorted."""
    notes: tuple[str, ...] = ()
    """What was guessed, and what was found and not used; one line each."""


def merge_entries(one: VideoEntry, other: VideoEntry) -> VideoEntry | None:
    """Returns all that two entries of one file say, with the path of the first; None if they contradict each other."""
    if any(a and b and a != b for a, b in ((one.label, other.label), (one.split, other.split))):
        return None
    attributes = {**other.attributes, **one.attributes}
    if any(attributes[name] != value for name, value in other.attributes.items()):
        return None
    return VideoEntry(one.path, one.label or other.label, one.split or other.split, attributes)


def merge_linked_files(root: Path, entries: Sequence[VideoEntry]) -> tuple[list[VideoEntry], list[str]]:
    """Merges the entries of each file, however many paths lead there through links.

    Args:
        root: The folder that relative paths start from.
        entries: One entry for each path.

    Returns:
        One entry for each file with all that is known of it, and notes.

    Raises:
        DataError: What is known of a file under two paths contradicts itself.
    """
    merged: list[VideoEntry] = []
    duplicates: list[tuple[str, str]] = []
    for same in _grouped_by_file(root, entries):
        known = same[0]
        for entry in same[1:]:
            both = merge_entries(known, entry)
            if both is None:
                raise DataError(
                    f"data.root = {root}: {known.path} and {entry.path} are one file, reached through a link, with "
                    f"{known.description} and with {entry.description}: remove one of them, or set data.layout = "
                    "folder to do without labels"
                )
            known = both
            duplicates.append((entry.path, known.path))
        merged.append(known)
    if not duplicates:
        return merged, []
    (path, file), count = duplicates[0], len(duplicates)
    return merged, [f"paths that lead to files counted already, through links: {count}, such as {path} to {file}"]


def _grouped_by_file(root: Path, entries: Sequence[VideoEntry]) -> Iterator[list[VideoEntry]]:
    """Yields the entries of each file, first those whose path has no link in it.

    An entry whose file is not there stands for a file of its own.
    """
    found: dict[tuple[int, int], list[VideoEntry]] = defaultdict(list)
    for entry in entries:
        try:
            status = os.stat(os.path.join(root, entry.path))
        except OSError:
            yield [entry]
        else:
            found[status.st_dev, status.st_ino].append(entry)
    for same in found.values():
        yield same if len(same) == 1 else sorted(same, key=lambda entry: (_is_linked(root, entry.path), entry.path))


def _is_linked(root: Path, path: str) -> bool:
    return os.path.realpath(root / path) != os.path.join(os.path.realpath(root), path)
