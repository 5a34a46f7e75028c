"""The videos that a run began with, kept in its folder: it goes on with them, though a scan may find fewer by then."""

from __future__ import annotations

import json
import os
from dataclasses import fields, replace
from pathlib import Path

from cacl.clips import SeekPoint, VideoRecord
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.index import PreparedVideos

NAME = "videos.jsonl"
KEPT = [field.name for field in fields(VideoRecord) if field.name != "fragments"]


def write(run: Path, catalog: Catalog) -> None:
    """One record a line; nothing for a prepared set, whose index stays. The file appears whole or not at all."""
    if isinstance(catalog.videos, PreparedVideos):
        return
    temporary = run / f".{NAME}.writing"
    with temporary.open("w") as lines:
        for video in catalog.videos:
            lines.write(json.dumps({name: getattr(video, name) for name in KEPT}) + "\n")
    os.replace(temporary, run / NAME)


def read(run: Path, fingerprint: str, found: Catalog, chosen: Catalog) -> Catalog | None:
    """The catalog of this fingerprint that the run began with, though some of its files may be gone or damaged by now.

    found: all videos that are usable now. chosen: those of them to train on. None if these hold another video than the
    run began with, or if its videos were not written down.
    """
    if isinstance(found.videos, PreparedVideos) or not (run / NAME).exists():
        return None
    with (run / NAME).open() as lines:
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
