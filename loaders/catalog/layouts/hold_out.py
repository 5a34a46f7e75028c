"""Holding out test or validation videos where nothing tells which videos are for that."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from cacl.loaders.catalog.layouts.listing import VideoEntry


def hold_out(entries: Sequence[VideoEntry], share: float) -> list[VideoEntry]:
    """Makes about this share of each class `test` and the other labelled videos `train`.

    A video is test when the hash of its path, read as a number in [0, 1), is below the share. So its side depends on
    nothing but its path and the share: adding, removing or damaging other files does not move it, and a larger share
    only adds test videos. The price is that the share holds on average, not exactly. One exception keeps small classes
    usable: of two or more videos, the one with the lowest hash is always test and, unless the share is 1, the one with
    the highest always train. Those two may move when the class grows.

    Args:
        entries: The videos. Those without a label stay as they are.
        share: The share of each class to hold out, from 0 to 1.

    Returns:
        The entries in the same order, with their splits.
    """
    test = _draw(((entry.path, entry.label) for entry in entries if entry.label is not None), share, "")
    return [e._replace(split="test" if e.path in test else "train") if e.label is not None else e for e in entries]


def draw_validation(labels_by_path: Mapping[str, str], share: float) -> set[str]:
    """Draws about this share of each class of the training videos, on which settings can be chosen.

    The draw follows the rules of `hold_out`, with hashes that do not depend on those of the test videos.

    Args:
        labels_by_path: The label of each training video by its path.
        share: The share of each class to draw, from 0 to 1.

    Returns:
        The paths of the validation videos.
    """
    return _draw(labels_by_path.items(), share, "validation ")


def _draw(videos: Iterable[tuple[str, str]], share: float, salt: str) -> set[str]:
    """Returns the paths that are drawn of pairs (path, label). Draws with different salts are independent."""
    classes: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for path, label in videos:
        classes[label].append((_hash_fraction(salt + path), path))
    drawn: set[str] = set()
    for members in classes.values():
        members.sort()
        count = bisect_left(members, (share, ""))
        if len(members) > 1:
            count = max(count, 1)
        if share < 1:
            count = min(count, len(members) - 1)
        drawn.update(path for _, path in members[:count])
    return drawn


def _hash_fraction(name: str) -> float:
    """Returns the first 48 bits of the SHA-256 of a name as a number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:6], "big") / 2**48
