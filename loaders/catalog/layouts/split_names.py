"""The words by which the splits `train`, `val` and `test` are known in lists and in the names of lists and folders."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from cacl.errors import DataError

SPLIT_WORDS = {
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


def parse_split(word: str, where: str) -> str | None:
    """Returns the split that a cell of a list names.

    Args:
        word: The cell. An empty one names no split.
        where: The list and line of the cell, for the message.

    Returns:
        `train`, `val`, `test`, or None for an empty cell.

    Raises:
        DataError: The word is no usual word for a split.
    """
    if word and word.lower() not in SPLIT_WORDS:
        raise DataError(f"{where}: split {word!r} is none of {', '.join(SPLIT_WORDS)}")
    return SPLIT_WORDS[word.lower()] if word else None


def split_of_list(path: str) -> str | None:
    """Returns the split that the name of a list tells, or else that of the folder it lies in, or None."""
    folder, _, file = path.rpartition("/")
    found = _split_and_rest(os.path.splitext(file)[0]) or _split_and_rest(folder)
    return found[0] if found else None


def splits_among(names: Iterable[str]) -> Mapping[str, str]:
    """Finds the names of splits among the names of folders.

    A name is one if it is a usual word for a split, perhaps with a number (`train`, `Val_256`), or if it holds such a
    word among others, and another name holds the word of another split among the same others (`k400_train` beside
    `k400_val`).

    Args:
        names: The names of folders that lie in one level.

    Returns:
        The split of each name that is one.
    """
    known = {name: found for name in names if (found := _split_and_rest(name))}
    splits: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for split, rest in known.values():
        splits[rest].add(split)
    return {name: split for name, (split, rest) in known.items() if not rest or len(splits[rest]) > 1}


def _split_and_rest(name: str) -> tuple[str, tuple[str, ...]] | None:
    """Returns the only split among the words of a name, and its other words; numbers do not count."""
    words = re.findall(r"[^\W\d_]+", name.casefold())
    # Words such as `trainset` and `testlist` count as `train` and `test`.
    splits = [SPLIT_WORDS.get(re.sub("(set|list|split)$", "", word)) for word in words]
    found = [split for split in splits if split]
    if len(found) != 1:
        return None
    return found[0], tuple(word for word, split in zip(words, splits, strict=True) if not split)
