"""The catalog of several roots, which are trained on together (`data.roots`)."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import numpy as np

from cacl.clips import RootShare, VideoRecord
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.prepared_videos import PreparedVideos
from cacl.loaders.decode.storage import Location, is_remote


class CombinedVideos(Sequence[VideoRecord]):
    """The videos of several catalogs, one catalog after the other. The path of each record is absolute, or a URL."""

    def __init__(self, catalogs: Sequence[Catalog]) -> None:
        """Takes the videos of these catalogs. Their records are looked up when they are asked for."""
        self.catalogs = catalogs
        self.ends = list(accumulate(len(catalog.videos) for catalog in catalogs))

    def __len__(self) -> int:
        return self.ends[-1]

    @overload
    def __getitem__(self, which: int) -> VideoRecord: ...
    @overload
    def __getitem__(self, which: slice) -> list[VideoRecord]: ...
    def __getitem__(self, which: int | slice) -> VideoRecord | list[VideoRecord]:
        """Returns the record at a position, or those of a slice."""
        if isinstance(which, slice):
            return [self[number] for number in range(len(self))[which]]
        number = range(len(self))[which]
        root = bisect_right(self.ends, number)
        catalog = self.catalogs[root]
        video = catalog.videos[number - self.ends[root]]  # It counts from the end of this root.
        return replace(video, path=str(catalog.location(video)))


@dataclass(frozen=True, slots=True, kw_only=True)
class CombinedCatalog(Catalog):
    """All videos of several roots, those of the first root first.

    What was rejected, what is missing and what is to be noted stands in the catalog of each root (`parts`) alone.
    """

    catalogs: tuple[Catalog, ...]
    """The catalog of each root."""
    weights: tuple[float, ...]
    """How many times an epoch visits each video of a root."""

    @property
    def parts(self) -> tuple[Catalog, ...]:
        """The catalog of each root."""
        return self.catalogs

    def with_parts(self, parts: Sequence[Catalog]) -> Catalog:
        """Returns this catalog with another catalog of each root."""
        return _combined(parts, self.weights)

    def location(self, video: VideoRecord) -> Location:
        """Returns the path or address of a video of this catalog."""
        return video.path if is_remote(video.path) else Path(video.path)

    @property
    def shares(self) -> tuple[RootShare, ...]:
        """How many clips an epoch takes of each root: the weight times the number of videos, rounded, at least one."""
        counts = [len(catalog.videos) for catalog in self.catalogs]
        return tuple(
            RootShare(count, max(1, round(weight * count)) if count else 0)
            for count, weight in zip(counts, self.weights, strict=True)
        )

    @property
    def is_remote(self) -> bool:
        """Whether any videos lie on a server."""
        return any(catalog.is_remote for catalog in self.catalogs)

    @property
    def has_splits(self) -> bool:
        """Whether any video of any root is known to belong to a split."""
        return any(catalog.has_splits for catalog in self.catalogs)

    def of_split(self, split: str) -> Catalog:
        """Returns a catalog of the videos of one split, of which a root may have none.

        Args:
            split: `train`, `val` or `test`.
        """
        return self.with_parts([catalog.of_split(split) for catalog in self.catalogs])

    def choose_split(self, split: str) -> Catalog:
        """Returns the videos of one split; of a root that says nothing of splits, all videos are training videos.

        Args:
            split: `train`, `val` or `test`.

        Returns:
            A catalog with at least one video, and for `train` with at least one of each root.

        Raises:
            DataError: No video, or none of a root that is to be trained on, belongs to the split.
        """
        if split != "train":
            return Catalog.choose_split(self, split)
        return self.with_parts([catalog.choose_split(split) for catalog in self.catalogs])

    @property
    def fingerprint(self) -> str:
        """A SHA-256, as hex digits, over everything that decides samples: all roots, their order and their weights."""
        roots = [(catalog.fingerprint, weight) for catalog, weight in zip(self.catalogs, self.weights, strict=True)]
        return hashlib.sha256(json.dumps(roots).encode()).hexdigest()

    def check(self, max_rejected: float) -> None:
        """Checks that enough of the files of each root can be used.

        Args:
            max_rejected: The largest share of the files of a root that may be rejected, from 0 to 1.

        Raises:
            DataError: More than this share of the files of a root was rejected, or all of them.
        """
        for catalog in self.catalogs:
            catalog.check(max_rejected)

    def to_json(self) -> dict[str, Any]:
        """Returns the catalogs as a dictionary that `json.dumps` takes."""
        pairs = zip(self.catalogs, self.weights, strict=True)
        return {"roots": [catalog.to_json() | {"weight": weight} for catalog, weight in pairs]}


def combine(catalogs: Sequence[Catalog], weights: Sequence[float]) -> Catalog:
    """Combines the catalogs of several roots into one. Files that are in two of them become a note of the later one.

    Args:
        catalogs: The catalog of each root.
        weights: How many times an epoch visits each video of a root.

    Returns:
        The catalog of all; of a single root with a weight of 1 its own catalog.
    """
    if len(catalogs) == 1 and weights[0] == 1:
        return catalogs[0]
    return _combined([replace(c, notes=(*c.notes, *_copies(c, catalogs[:n]))) for n, c in enumerate(catalogs)], weights)


def _combined(catalogs: Sequence[Catalog], weights: Sequence[float]) -> CombinedCatalog:
    return CombinedCatalog(
        root=", ".join(str(catalog.root) for catalog in catalogs),
        layout=", ".join(catalog.layout for catalog in catalogs),
        videos=CombinedVideos(catalogs),
        rejected=(),
        missing=(),
        catalogs=tuple(catalogs),
        weights=tuple(map(float, weights)),
    )


def _copies(catalog: Catalog, others: Sequence[Catalog]) -> Iterator[str]:
    """Yields a note for each of the other roots that holds files of this one, byte for byte."""
    hashes = _source_hashes(catalog)
    for other in others:
        other_hashes = _source_hashes(other)
        shared = np.flatnonzero(np.isin(hashes, other_hashes))
        if len(shared):
            first, there = int(shared[0]), int(np.flatnonzero(other_hashes == hashes[shared[0]])[0])
            yield (
                f"{len(shared)} of its {len(catalog.videos)} videos are in {other.root} too, such as "
                f"{catalog.videos[first].path} ({other.videos[there].path} there); each root counts them as its own"
            )


def _source_hashes(catalog: Catalog) -> np.ndarray:
    """Returns the first 64 bits of the content hash of each file, or of what it was prepared from: uint64 [videos]."""
    if isinstance(catalog.videos, PreparedVideos):
        return catalog.videos.source_hashes
    return np.array([int(video.content_hash[:16], 16) for video in catalog.videos], np.uint64)
