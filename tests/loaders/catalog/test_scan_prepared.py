"""Scanning a prepared set opens its index, and little of that is in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cacl.clips import Fragments
from cacl.config import DataConfig
from cacl.errors import DataError
from cacl.loaders.catalog.index_writer import IndexWriter
from cacl.loaders.catalog.prepared_files import INDEX_NAME
from cacl.loaders.catalog.scan import scan
from tests.loaders.catalog.prepared_sets import ABOUT, MEMBERS, SPLITS, entry, record, write


def test_scan_opens_it(tmp_path: Path) -> None:
    write(tmp_path)
    found = scan(DataConfig(root=str(tmp_path), fold=3), min_frames=15)
    wanted = [record(member, splits[3]) for member, splits in zip(MEMBERS, SPLITS, strict=True)]
    assert list(found.videos) == [video for video in wanted if video.frames >= 15]
    short = [(video.path, f"has {video.frames} frames; a clip needs 15") for video in wanted if video.frames < 15]
    assert short
    assert list(found.rejected) == sorted([*short, ("walk/bad.mp4", "is empty (0 bytes)")])
    assert (found.layout, found.missing, found.root) == ("classes", ("x.mp4",), tmp_path)
    assert found.notes == ("a note",)
    assert found.of_split("test").notes == ()
    assert found.location(found.videos[0]) == tmp_path / found.videos[0].path
    assert list(found.of_split("test").videos) == [video for video in found.videos if video.split == "test"]
    assert json.loads(json.dumps(found.to_json()))["videos"][0]["path"] == found.videos[0].path
    val = scan(DataConfig(root=str(tmp_path), fold=3)).of_split("val").videos
    assert list(val) == [video for video in wanted if video.split == "val"] != []
    assert len(scan(DataConfig(root=str(tmp_path), layout="classes")).videos) == len(wanted)
    older = write(tmp_path / "older", about={name: value for name, value in ABOUT.items() if name != "notes"})
    assert scan(DataConfig(root=str(older))).notes == ()
    with pytest.raises(
        DataError, match=r"was prepared from layout classes; data\.layout = csv is not it: --set data\.layout=classes "
    ):
        scan(DataConfig(root=str(tmp_path), layout="csv"))
    with pytest.raises(
        DataError, match=r": every video is too short; the longest, .*, has \d+ frames, and a clip needs"
    ):
        scan(DataConfig(root=str(tmp_path)), min_frames=10**6)


GROWTH = """
import sys
from cacl.config import DataConfig
from cacl.loaders.catalog.scan import scan

def resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096

scan(DataConfig(root=sys.argv[1]))
before = resident()
found = scan(DataConfig(root=sys.argv[2]), min_frames=16)
train, one = found.of_split("train"), found.videos[16_000]
print(resident() - before, len(found.videos), len(train.videos), one.path, found.fingerprint and 1)
"""


def test_opening_many_videos_takes_little_memory(tmp_path: Path) -> None:
    """A mapped page counts as soon as it is touched."""
    draw, count, groups = np.random.default_rng(0), 20_000, 150
    fragments = Fragments(
        init_segment=b"head" * 200,
        first_frames=16 * np.arange(groups),
        offsets=800 + 3000 * np.arange(groups + 1),
        checksums=draw.integers(0, 2**32, groups, np.uint32),
    )
    video = replace(MEMBERS[0].video, frames=16 * groups, fragments=fragments)
    member = replace(MEMBERS[0], video=video)
    writer = IndexWriter(tmp_path)
    for number in range(count):
        path, label = f"class {number % 400}/a name as long as names are {number}.mp4", f"class {number % 400}"
        splits = {1: "train" if number % 5 else "test"}
        named = replace(video, path=f"videos/{path}.mp4")
        writer.add(replace(member, video=named, entry=entry(path, label), splits=splits))
    writer.save(ABOUT)
    size = (tmp_path / INDEX_NAME).stat().st_size
    assert size > 50_000_000
    small = write(tmp_path / "small")
    run = subprocess.run([sys.executable, "-c", GROWTH, small, tmp_path], capture_output=True, text=True, check=True)
    growth, *rest = run.stdout.split(" ", 3)
    assert rest == ["20000", "16000", "videos/class 0/a name as long as names are 16000.mp4.mp4 1\n"]
    assert int(growth) < 10_000_000  # half a kilobyte for each video would be too much
