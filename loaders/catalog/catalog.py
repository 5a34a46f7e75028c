"""The catalog of a data set: every video file that was found, either as a VideoRecord or with the reason against it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from cacl.clips import RootShare, VideoRecord
from cacl.errors import DataError
from cacl.loaders.catalog.prepared_videos import PreparedVideos
from cacl.loaders.decode.storage import Location

NAMED_REASONS = 3
"""An error message gives the reasons against this many rejected files; the others are counted."""


class Rejected(NamedTuple):
    """A video file that cannot be used."""

    path: str
    """The path of the file relative to the root, or absolute, as in VideoRecord."""
    reason: str
    """The reason continues a sentence that begins with the path: `is empty (0 bytes)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """All videos of a data set, usable and rejected ones; their paths are relative to the root, or absolute."""

    root: Location
    """The folder or address that relative paths start from."""
    layout: str
    """The layout that labels and splits were read by, never `auto`."""
    videos: Sequence[VideoRecord]
    """The usable videos, sorted by path: a tuple, or the `PreparedVideos` of an index."""
    rejected: tuple[Rejected, ...]
    """The files that cannot be used, sorted by path."""
    missing: tuple[str, ...]
    """Names in the lists of the data set for which there is no file."""
    notes: tuple[str, ...] = ()
    """What was guessed, what was found and is not used (`Listing.notes`), and what is unusual about videos that are
    used (`quirks`); one line each."""

    def location(self, video: VideoRecord) -> Location:
        """Returns the path or address of a video of this catalog."""
        if isinstance(self.root, Path):
            return self.root / video.path
        return f"{self.root}/{quote(os.fsencode(video.path)) if self.root.startswith('http') else video.path}"

    @property
    def parts(self) -> tuple[Catalog, ...]:
        """The catalog of each root; this one has a single root."""
        return (self,)

    def with_parts(self, parts: Sequence[Catalog]) -> Catalog:
        """Returns this catalog with another catalog of each root."""
        (part,) = parts
        return part

    @property
    def shares(self) -> tuple[RootShare, ...]:
        """How many clips an epoch takes of each root: one of each video."""
        return (RootShare(len(self.videos), len(self.videos)),)

    @property
    def clips_per_epoch(self) -> int:
        """The number of clips of an epoch over all videos."""
        return sum(share.clips for share in self.shares)

    @property
    def is_remote(self) -> bool:
        """Whether videos lie on a server."""
        return not isinstance(self.root, Path)

    @property
    def has_splits(self) -> bool:
        """Whether any video is known to belong to a split."""
        return self.videos.has_splits if isinstance(self.videos, PreparedVideos) else any(v.split for v in self.videos)

    def of_split(self, split: str) -> Catalog:
        """Returns a catalog of the videos of one split.

        Args:
            split: `train`, `val` or `test`.

        Returns:
            A catalog that may be empty, without rejected files, missing names and notes: those are told of the whole.
        """
        if isinstance(self.videos, PreparedVideos):
            chosen = self.videos.of_split(split)
        else:
            chosen = tuple(v for v in self.videos if v.split == split)
        return replace(self, videos=chosen, rejected=(), missing=(), notes=())

    def choose_split(self, split: str) -> Catalog:
        """Returns the videos of one split; where nothing is said of splits, all videos are training videos.

        Args:
            split: `train`, `val` or `test`.

        Returns:
            A catalog with at least one video.

        Raises:
            DataError: No video belongs to the split.
        """
        if split == "train" and not self.has_splits:
            return self
        chosen = self.of_split(split)
        if not chosen.videos:
            others = sorted({video.split for video in self.videos if video.split})
            known = f"their splits are {', '.join(others)}" if others else "data.test_share holds some out as test"
            raise DataError(f"{self.root}: none of its {len(self.videos)} videos belongs to {split}; {known}")
        return chosen

    def classes(self, column: str) -> tuple[str, ...]:
        """Returns the different labels of the videos, sorted.

        Args:
            column: `label`, or the name of another column of the lists of the data set.

        Raises:
            DataError: No video has such a label.
        """
        found = {label for video in self.videos if (label := video.label_in(column))}
        if not found:
            others = sorted({name for video in self.videos for name in video.attributes})
            known = f"; its other columns are {', '.join(others)}" if others else ""
            raise DataError(f"{self.root}: its videos have no {column!r}{known}")
        return tuple(sorted(found))

    def label_numbers(self, column: str, classes: Sequence[str]) -> list[int]:
        """Returns the class of each video, as a position among the classes.

        Args:
            column: `label`, or the name of another column of the lists of the data set.
            classes: The names of the classes, each label among them.

        Raises:
            DataError: A video has no such label.
        """
        number_of = {name: number for number, name in enumerate(classes)}
        labels = [video.label_in(column) for video in self.videos]
        if missing := [video.path for video, label in zip(self.videos, labels, strict=True) if not label]:
            raise DataError(
                f"{self.root}: {len(missing)} of {len(labels)} videos have no {column!r}, {missing[0]} among them"
            )
        return [number_of[label or ""] for label in labels]

    @property
    def fingerprint(self) -> str:
        """A SHA-256, as hex digits, over everything that decides samples. Where the root lies does not count."""
        if isinstance(self.videos, PreparedVideos):
            return self.videos.fingerprint
        digest = hashlib.sha256()
        for v in self.videos:
            picture = (v.content_hash, v.frames, v.width, v.height, v.mirrored, v.rotation, v.seek_points)
            digest.update(json.dumps([v.path, picture, v.label, v.split, sorted(v.attributes.items())]).encode())
        return digest.hexdigest()

    def check(self, max_rejected: float) -> None:
        """Checks that enough of the files can be used.

        Args:
            max_rejected: The largest share of the files found that may be rejected, from 0 to 1.

        Raises:
            DataError: More than this share of the files was rejected, or all of them.
        """
        count, total = len(self.rejected), len(self.videos) + len(self.rejected)
        if self.videos and count / total <= max_rejected:
            return
        reasons = "; ".join(f"{path} {reason}" for path, reason in self.rejected[:NAMED_REASONS])
        reasons += f"; and {count - NAMED_REASONS} more" if count > NAMED_REASONS else ""
        if not self.videos:
            raise DataError(f"data.root = {self.root}: no video can be used, of {total} found: {reasons}")
        raise DataError(
            f"data.root = {self.root}: {count} of {total} videos cannot be used, more than data.max_rejected_share = "
            f"{max_rejected} allows: {reasons}. Mend or remove them, or raise data.max_rejected_share"
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the catalog as a dictionary that `json.dumps` takes, without seek points and fragments."""
        return {
            "root": str(self.root),
            "layout": self.layout,
            "videos": [
                {
                    "path": v.path,
                    **probed_facts(v),
                    "label": v.label,
                    "split": v.split,
                    "attributes": dict(v.attributes),
                }
                for v in self.videos
            ],
            "rejected": [rejected._asdict() for rejected in self.rejected],
            "missing": list(self.missing),
            "notes": list(self.notes),
        }


def probed_facts(video: VideoRecord) -> dict[str, Any]:
    """Returns what decoding a file found, by the names of VideoRecord, without the seek points."""
    return {
        "frames": video.frames,
        "declared_frames": video.declared_frames,
        "rate": video.rate,
        "width": video.width,
        "height": video.height,
        "codec": video.codec,
        "mirrored": video.mirrored,
        "rotation": video.rotation,
        "undecodable_frames": video.undecodable_frames,
        "incomplete_packets": video.incomplete_packets,
        "video_streams": video.video_streams,
        "pixel_aspect": video.pixel_aspect,
        "content_hash": video.content_hash,
    }
