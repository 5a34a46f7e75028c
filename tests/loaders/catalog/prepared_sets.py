"""Indices of prepared sets that tests write. Their videos are random, and the files of these do not exist."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cacl.clips import Fragments, VideoRecord
from cacl.loaders.catalog.index_reader import PreparedIndex
from cacl.loaders.catalog.index_writer import IndexWriter, PreparedVideo
from cacl.loaders.catalog.layouts.listing import VideoEntry
from cacl.loaders.catalog.prepared_files import INDEX_NAME
from cacl.loaders.catalog.prepared_videos import PreparedVideos

ABOUT = {
    "layout": "classes",
    "rejected": [["walk/bad.mp4", "is empty (0 bytes)"]],
    "missing": ["x.mp4"],
    "notes": ["a note"],
}
LATIN = os.fsdecode(b"caf\xe9")
"""Not UTF-8."""


def entry(path: str, label: str | None = None, **attributes: str) -> VideoEntry:
    return VideoEntry(path, label, None, attributes)


ENTRIES = [
    entry(f"run/{LATIN}.avi", "run"),
    entry("run/b.mp4", "run", who="Ann"),
    entry("run/c c.mp4", "run", who="Bob", **{"how.fast": ""}),
    entry("sit/d.mp4", LATIN, who="Ann"),
    entry("sit/e.mp4", None),
    entry("/elsewhere/f.mp4", "run", who=LATIN),
    entry("sit/" + "g" * 250 + ".mp4", "逃げる"),
]
SPLITS: list[dict[int, str | None]] = [
    {1: "train", 2: "train", 3: "test"},
    {1: "train", 2: "test", 3: "val"},
    {1: "test", 2: None, 3: None},
    {1: None, 2: "train", 3: "test"},
    {1: "test", 2: None, 3: "test"},
    {1: "train", 2: "train", 3: "test"},
    {1: "train", 2: "test", 3: None},
]


def prepared(number: int, entry: VideoEntry, splits: dict[int, str | None] | None = None) -> PreparedVideo:
    draw = np.random.default_rng(number)
    groups = [1, 4, 1, 30, 2][number % 5]
    init = [b"head", b"another head", b"head"][number % 3]
    lengths = draw.integers(1, 17, groups)
    fragments = Fragments(
        init_segment=init,
        first_frames=np.cumsum([0, *lengths[:-1]]),
        offsets=len(init) + np.cumsum([0, *draw.integers(100, 2**33 if number == 3 else 9000, groups)]),
        checksums=draw.integers(0, 2**32, groups, np.uint32),
    )
    video = VideoRecord(
        path=f"videos/{entry.path}.mp4",
        frames=int(lengths.sum()),
        declared_frames=int(lengths.sum()),
        rate=[25.0, 30000 / 1001][number % 2],
        width=128 + 2 * number,
        height=128,
        codec="h264",
        content_hash=draw.bytes(16).hex(),
        fragments=fragments,
    )
    size = int(fragments.offsets[-1])
    return PreparedVideo(video=video, entry=entry, splits=splits or {1: None}, size=size, source=draw.bytes(16).hex())


MEMBERS = [prepared(number, entry, SPLITS[number]) for number, entry in enumerate(ENTRIES)]
UNSPLIT = [prepared(number, entry) for number, entry in enumerate(ENTRIES)]


def write(folder: Path, members: Sequence[PreparedVideo] = MEMBERS, about: dict[str, object] = ABOUT) -> Path:
    folder.mkdir(exist_ok=True)
    writer = IndexWriter(folder)
    for member in members:
        writer.add(member)
    writer.save(about)
    return folder


def opened(folder: Path, split: int = 1, test_share: float = 0.0) -> PreparedVideos:
    return PreparedVideos(PreparedIndex(folder / INDEX_NAME, "the set"), split, test_share)


def record(member: PreparedVideo, split: str | None) -> VideoRecord:
    return replace(member.video, label=member.entry.label, split=split, attributes=member.entry.attributes)


def facts(video: VideoRecord) -> tuple[object, ...]:
    """All of it, as values that compare exactly."""
    assert video.fragments is not None
    places = [values.tolist() for values in video.fragments[1:]]
    return replace(video, fragments=None), video.fragments.init_segment, places
