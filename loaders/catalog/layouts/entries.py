"""What is known of each video file: from the lines of lists that name it, once for each file, held out where nothing
tells which videos are for testing.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeAlias

from cacl.errors import DataError
from cacl.loaders.catalog.layouts.lists import SUFFIXES


class Entry(NamedTuple):
    """One video file and what is known of it."""

    path: str
    """Relative to the root, with forward slashes; absolute where a list names a video outside the root that way."""
    label: str | None = None
    split: str | None = None
    """`train`, `val`, `test`, or None where nothing tells it."""
    attributes: Mapping[str, str] = {}


Rows: TypeAlias = Mapping[str, Sequence[tuple[str, Entry]]]
"""What the lists say, by a key that tells videos apart: list and line (for messages), and an entry that has the listed
name for its path."""


def join(
    videos: Sequence[str],
    rows: Rows,
    key: Callable[[str], str],
    classes: Collection[str] = (),
    *,
    listed_only: bool = False,
) -> tuple[list[Entry], list[str], list[str]]:
    """Gives every video the row it answers to; one that answers to none keeps the label of its class folder.

    Args:
        videos: Paths.
        key: What a path is found by in `rows`.
        classes: Names of folders that are labels.
        listed_only: Leave out videos that answer to no row.

    Returns the entries, the listed names for which there is no video, sorted, and notes. Raises DataError if a video
    answers to rows that contradict each other.
    """
    by_name: dict[str, list[tuple[str, Entry]]] = defaultdict(list)
    for same in rows.values():
        for where, row in same:
            by_name[row.path].append((where, row))
    answers: dict[str, Sequence[tuple[str, Entry]]] = {p: same for p in videos if (same := rows.get(key(p)))}
    missing = by_name.keys() - {row.path for same in answers.values() for _, row in same}
    loosely = _only_ones_like(missing, videos, answers.keys())
    answers |= {path: by_name[name] for path, name in loosely.items()}
    entries: list[Entry] = []
    for path in videos:
        same = answers.get(path, ())
        folder = os.path.basename(os.path.dirname(path))
        known = Entry(path, folder if folder in classes and not same else None)
        for where, row in same:
            both = _together(known, row)
            if both is None:
                raise DataError(
                    f"{where}: lists {path} with {_facts(row)}; {same[0][0]} with {_facts(known)}; correct one"
                )
            known = both
        if same or not listed_only:
            entries.append(known)
    notes = []
    if loosely:
        path, name = min(loosely.items())
        notes.append(
            f"listed names that are not quite those of their files: {len(loosely)}, such as {name} for {path}; matched "
            "without regard to case, suffix and folders in front"
        )
    return entries, sorted(missing - set(loosely.values())), notes


def once(root: Path, entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """Leaves one entry for each file, with all that is known of it, however many paths lead there through links.

    Returns them with notes. Raises DataError where what is known under two paths contradicts itself.
    """
    left: list[Entry] = []
    again: list[tuple[str, str]] = []
    for same in _by_file(root, entries):
        known = same[0]
        for entry in same[1:]:
            both = _together(known, entry)
            if both is None:
                raise DataError(
                    f"data.root = {root}: {known.path} and {entry.path} are one file, reached through a link, with "
                    f"{_facts(known)} and with {_facts(entry)}: remove one of them, or set data.layout = folder to do "
                    "without labels"
                )
            known = both
            again.append((entry.path, known.path))
        left.append(known)
    if not again:
        return left, []
    (path, file), count = again[0], len(again)
    return left, [f"paths that lead to files counted already, through links: {count}, such as {path} to {file}"]


def _by_file(root: Path, entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """The entries of each file, those first whose path has no link in it; a file that is not there is a file."""
    found: dict[tuple[int, int], list[Entry]] = defaultdict(list)
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


def _together(one: Entry, other: Entry) -> Entry | None:
    """All that two entries of one file say, with the path of the first; None if they contradict each other."""
    if any(a and b and a != b for a, b in ((one.label, other.label), (one.split, other.split))):
        return None
    attributes = {**other.attributes, **one.attributes}
    if any(attributes[name] != value for name, value in other.attributes.items()):
        return None
    return Entry(one.path, one.label or other.label, one.split or other.split, attributes)


def _facts(entry: Entry) -> str:
    others = "".join(f", {name} {value}" for name, value in entry.attributes.items())
    return f"label {entry.label}, split {entry.split}{others}"


def hold_out(entries: Sequence[Entry], share: float) -> list[Entry]:
    """Makes about this share of each class `test`, the other labelled videos `train`; unlabelled ones stay as they are.

    A video is test when the hash of its path, read as a number in [0, 1), is below the share. So its side depends on
    nothing but its path and the share: adding, removing or damaging other files does not move it, and a larger share
    only adds test videos. The price: the share holds on average, not exactly. One exception keeps small classes usable:
    of two or more videos, the one with the lowest hash is always test and, unless the share is 1, the one with the
    highest always train. Those two may move when the class grows.
    """
    classes: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for entry in entries:
        if entry.label is not None:
            classes[entry.label].append((_draw(entry.path), entry.path))
    test: set[str] = set()
    for members in classes.values():
        members.sort()
        count = bisect_left(members, (share, ""))
        if len(members) > 1:
            count = max(count, 1)
        if share < 1:
            count = min(count, len(members) - 1)
        test.update(path for _, path in members[:count])
    return [e._replace(split="test" if e.path in test else "train") if e.label is not None else e for e in entries]


def _draw(path: str) -> float:
    return int.from_bytes(hashlib.sha256(os.fsencode(path)).digest()[:6], "big") / 2**48


# --- Names that are not quite those of files ---


class Names:
    """Videos by names that need not be quite theirs."""

    def __init__(self, videos: Sequence[str]) -> None:
        self.videos = videos

    @cached_property
    def by_stem(self) -> Mapping[str, Sequence[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for path in self.videos:
            found[_words(path)[-1]].append(path)
        return found

    @cached_property
    def is_flat(self) -> bool:
        return not any("/" in path for path in self.videos)

    def like(self, name: str) -> list[str]:
        """Videos whose path ends as the name does, or the other way round, whatever case, suffix and form of accents.

        A video in the root itself has one name only, so it is meant by a longer path only if all lie there.
        """
        words = _words(name)
        return [
            path
            for path in (self.by_stem.get(words[-1], ()) if words else ())
            if _end_alike(words, _words(path)) and ("/" in path or len(words) == 1 or self.is_flat)
        ]


def _words(path: str) -> list[str]:
    """Folders and stem, in the form in which they are compared."""
    words = unicodedata.normalize("NFC", path).casefold().replace("\\", "/").split("/")
    stem, suffix = os.path.splitext(words[-1])
    words[-1] = stem if suffix[1:] in SUFFIXES else words[-1]
    return [word for word in words if word not in ("", ".", "..")]


def _end_alike(one: Sequence[str], other: Sequence[str]) -> bool:
    shared = min(len(one), len(other))
    return one[-shared:] == other[-shared:]


def _only_ones_like(names: Collection[str], videos: Sequence[str], taken: Collection[str]) -> dict[str, str]:
    """The names that these videos go by, where no other video and no other name can be meant."""
    known, claims = Names(videos), defaultdict(list)
    for name in names:
        if len(like := known.like(name)) == 1:
            claims[like[0]].append(name)
    return {path: same[0] for path, same in claims.items() if len(same) == 1 and path not in taken}
