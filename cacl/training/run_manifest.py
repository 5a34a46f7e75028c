"""The videos that a run began with. The run goes on with them, though a later scan may find fewer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from cacl.clips import SeekPoint, VideoRecord
from cacl.files import atomic_write
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.prepared_videos import PreparedVideos

MANIFEST_NAME = "manifest.jsonl"
"""The name of the file in a run folder."""
ROOT = "root"
"""What a line calls the position of its root in `data.roots`, beside the fields of the record."""
STORED_FIELDS = [field.name for field in fields(VideoRecord) if field.name != "fragments"]


class RunManifest:
    """The list of a run's training videos, in a file of its folder."""

    def __init__(self, run: Path) -> None:
        """Names the file, which need not exist yet.

        Args:
            run: The folder of the run.
        """
        self.file = run / MANIFEST_NAME

    def write(self, catalog: Catalog) -> None:
        """Writes one record per line, with the number of its root.

        Nothing is written for a prepared set, whose own index stays as it is.

        Args:
            catalog: The training videos.
        """
        roots = [(n, part) for n, part in enumerate(catalog.parts) if not isinstance(part.videos, PreparedVideos)]
        if not roots:
            return
        with atomic_write(self.file) as temporary, temporary.open("w") as lines:
            for root, part in roots:
                for video in part.videos:
                    stored = {name: getattr(video, name) for name in STORED_FIELDS}
                    lines.write(json.dumps(stored | {ROOT: root}) + "\n")

    def read(self, fingerprint: str, found: Catalog, chosen: Catalog) -> Catalog | None:
        """Reads the videos that the run began with, some of which may be gone or damaged by now.

        Args:
            fingerprint: The fingerprint of the training videos that the run began with.
            found: All videos that are usable now.
            chosen: Those of them to train on.

        Returns:
            The catalog with this fingerprint; None if the run did not write down its videos, or if there are videos
            now that differ from those that it began with, or that it did not begin with.
        """
        if not self.file.exists():
            return None
        recorded: list[list[VideoRecord]] = [[] for _ in chosen.parts]
        with self.file.open() as lines:
            for line in lines:
                root, record = _parse(line)
                if root >= len(recorded):
                    return None
                recorded[root].append(record)
        parts = []
        for records, part, whole in zip(recorded, chosen.parts, found.parts, strict=True):
            if not records:
                parts.append(part)
            elif _holds_others(records, part, whole):
                return None
            else:
                parts.append(replace(part, videos=tuple(records)))
        begun = chosen.with_parts(parts)
        return begun if begun.fingerprint == fingerprint else None


def _holds_others(begun: Sequence[VideoRecord], chosen: Catalog, found: Catalog) -> bool:
    """Returns whether a root holds training videos that the run did not begin with, or keeps one of its own from it."""
    videos = {video.path: video for video in begun}
    lost = videos.keys() - {video.path for video in chosen.videos}
    is_other = any(videos.get(video.path) != video for video in chosen.videos)
    return is_other or not lost.isdisjoint(video.path for video in found.videos)


def _parse(line: str) -> tuple[int, VideoRecord]:
    """Returns the number of the root and the record."""
    values = json.loads(line)
    values["seek_points"] = tuple(SeekPoint(*point) for point in values["seek_points"])
    return values.pop(ROOT, 0), VideoRecord(**values)
