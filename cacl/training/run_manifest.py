"""The videos that a run began with. The run goes on with them, though a later scan may find fewer."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

from cacl.clips import SeekPoint, VideoRecord
from cacl.files import atomic_write
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.prepared_videos import PreparedVideos

MANIFEST_NAME = "manifest.jsonl"
"""The name of the file in a run folder."""
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
        """Writes one record per line. Nothing is written for a prepared set, whose own index stays as it is.

        Args:
            catalog: The training videos.
        """
        if isinstance(catalog.videos, PreparedVideos):
            return
        with atomic_write(self.file) as temporary, temporary.open("w") as lines:
            for video in catalog.videos:
                lines.write(json.dumps({name: getattr(video, name) for name in STORED_FIELDS}) + "\n")

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
        if isinstance(found.videos, PreparedVideos) or not self.file.exists():
            return None
        with self.file.open() as lines:
            begun = replace(chosen, videos=tuple(_record(line) for line in lines))
        videos = {video.path: video for video in begun.videos}
        lost = videos.keys() - {video.path for video in chosen.videos}
        same = all(videos.get(video.path) == video for video in chosen.videos)
        same = same and lost.isdisjoint(video.path for video in found.videos)
        return begun if same and begun.fingerprint == fingerprint else None


def _record(line: str) -> VideoRecord:
    values = json.loads(line)
    values["seek_points"] = tuple(SeekPoint(*point) for point in values["seek_points"])
    return VideoRecord(**values)
