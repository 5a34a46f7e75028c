"""What the names of folders and lists tell: the splits, and the classes beside them."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""The usual words for the three splits. `eval` is none: it is validation to some and test to others."""

NAMED = 3
"""Folders that a doubt names; more are counted."""


class Folders(NamedTuple):
    labels: Mapping[str, str | None]
    """By path, as `splits`."""
    splits: Mapping[str, str | None]
    notes: Sequence[str] = ()
    doubt: str = ""
    """Why the folders may be splits or classes."""

    @property
    def tell_classes(self) -> bool:
        told = set(self.labels.values())
        return told != {None} if any(self.splits.values()) else len(told) > 1 and None not in told


def read_classes(videos: Sequence[str]) -> Folders:
    """Classes, whatever their names: the first folders that differ, since those that all videos lie in say nothing."""
    folders = {path: path.split("/")[:-1] for path in videos}
    return Folders(_first_that_differ(folders), dict.fromkeys(videos))


def read_folders(videos: Sequence[str]) -> Folders:
    """Splits where the folders of one level have names of splits, and classes around or below them."""
    folders = {path: path.split("/")[:-1] for path in videos}
    level, names, doubt = _level_of_splits({tuple(above) for above in folders.values() if above})
    if level is None:
        return read_classes(videos)._replace(doubt=doubt)
    splits = {path: names.get(above[level]) if len(above) > level else None for path, above in folders.items()}
    within = [path for path in videos if splits[path]]
    around = len({tuple(folders[path][:level]) for path in within}) > 1
    notes = []
    if around:
        classes = {path: above[:level] for path, above in folders.items()}
        if any(len(folders[path]) > level + 1 for path in within):
            notes.append(
                f"folders differ above and below those of splits, as of {within[0]}: those above are the classes"
            )
    else:
        classes = {path: above[level + 1 :] if splits[path] else [] for path, above in folders.items()}
    if beside := [path for path in videos if not splits[path]]:
        notes.append(
            f"videos beside the folders of splits ({', '.join(sorted(names))}): {len(beside)}, such as {beside[0]}; "
            "they belong to no split, and are neither trained on nor evaluated"
        )
    return Folders(_first_that_differ(classes), splits, notes)


def _level_of_splits(folders: Collection[Sequence[str]]) -> tuple[int | None, Mapping[str, str], str]:
    """The level of the folders that are splits, and which these are; or None, and perhaps a doubt.

    Several splits in one level are no chance, nor is one in which all lies. One split beside other folders may also be
    a class: of vehicles, for instance.
    """
    doubt, top = "", _in_common(folders)
    for level in range(max(map(len, folders), default=0)):
        here = {above[level] for above in folders if len(above) > level}
        names = _splits_among(here)
        everywhere = all(len(above) > level and above[level] in names for above in folders)
        if len(set(names.values())) > 1 or (names and everywhere):
            return level, names, ""
        if names and level == top:
            others = sorted(here - names.keys())
            more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
            doubt = (
                f"the folder {', '.join(sorted(names))} has the name of a split, and {', '.join(others[:NAMED])}{more} "
                "beside it not"
            )
    return None, {}, doubt


def _first_that_differ(folders: Mapping[str, Sequence[str]]) -> dict[str, str | None]:
    """By path: the first of its folders, but for those that all videos have in common."""
    given = {tuple(above) for above in folders.values() if above}
    common = min([_in_common(given), *(len(above) - 1 for above in given)])
    return {path: above[common] if above else None for path, above in folders.items()}


def _in_common(folders: Collection[Sequence[str]]) -> int:
    """How many folders, from the first on, are the same in all of these."""
    together = [len(set(same)) == 1 for same in zip(*folders, strict=False)]
    return [*together, False].index(False)


# --- Words for splits ---


def _splits_among(names: Iterable[str]) -> Mapping[str, str]:
    """Those of these names that are names of splits, and of which.

    A name is one if it is a usual word for a split, perhaps with a number (`train`, `Val_256`), or if it holds such a
    word among others, and another name holds the word of another split among the same others (`k400_train` beside
    `k400_val`).
    """
    known = {name: found for name in names if (found := _split_and_rest(name))}
    splits: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for split, rest in known.values():
        splits[rest].add(split)
    return {name: split for name, (split, rest) in known.items() if not rest or len(splits[rest]) > 1}


def split_in(path: str) -> str | None:
    """The split that the name of a list tells, or else that of its folder."""
    folder, _, file = path.rpartition("/")
    found = _split_and_rest(os.path.splitext(file)[0]) or _split_and_rest(folder)
    return found[0] if found else None


def _split_and_rest(name: str) -> tuple[str, tuple[str, ...]] | None:
    """The only split among the words of a name, and its other words; numbers do not count."""
    words = re.findall(r"[^\W\d_]+", name.casefold())
    splits = [SPLITS.get(re.sub("(set|list|split)$", "", word)) for word in words]  # trainset, testlist
    found = [split for split in splits if split]
    if len(found) != 1:
        return None
    return found[0], tuple(word for word, split in zip(words, splits, strict=True) if not split)
