"""The videos that a run began with: gone on with where some are lost, and refused where any is another one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cacl.clips import SeekPoint, VideoRecord
from cacl.loaders.catalog.catalog import Catalog
from cacl.training.run_manifest import RunManifest


def record(number: int, split: str | None = "train") -> VideoRecord:
    return VideoRecord(
        path=f"b\udcff{number}.avi",
        frames=20 + number,
        declared_frames=21,
        rate=30000 / 1001,
        width=64,
        height=48,
        codec="mpeg4",
        content_hash=f"{number:032x}",
        rotation=90,
        label="run",
        split=split,
        attributes={"who": "Ann"},
        seek_points=(SeekPoint(12, 480, 480), SeekPoint(18, 720 + number, 700)),
    )


def catalog(*videos: VideoRecord) -> Catalog:
    return Catalog(root=Path("/set"), layout="csv", videos=videos, rejected=(), missing=())


VIDEOS = [record(number) for number in range(6)]
HELD_OUT = record(9, "test")
BEGUN = catalog(*VIDEOS)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that began with VIDEOS."""
    RunManifest(tmp_path).write(BEGUN)
    return tmp_path


def found_now(run: Path, *videos: VideoRecord) -> Catalog | None:
    found = catalog(*videos)
    return RunManifest(run).read(BEGUN.fingerprint, found, found.of_split("train"))


def test_all_that_it_began_with(run: Path) -> None:
    """They agree in every field, and those that are gone by now are among them."""
    for there in (VIDEOS, VIDEOS[2:], VIDEOS[:3], [VIDEOS[4]]):
        begun = found_now(run, *there, HELD_OUT)
        assert begun is not None
        assert begun.videos == BEGUN.videos
        assert begun.fingerprint == BEGUN.fingerprint
        assert begun.root == BEGUN.root


@pytest.mark.parametrize(
    "change",
    [
        {"content_hash": "ff" * 16},
        {"frames": 19},
        {"width": 66},
        {"rotation": 0},
        {"label": "sit"},
        {"attributes": {}},
        {"seek_points": ()},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_video_that_is_another_one(run: Path, change: dict[str, object]) -> None:
    assert found_now(run, *VIDEOS[:3], replace(VIDEOS[3], **change)) is None  # pyright: ignore[reportArgumentType]


def test_a_video_that_is_new(run: Path) -> None:
    assert found_now(run, *VIDEOS, record(6)) is None


def test_a_video_that_is_held_out_by_now(run: Path) -> None:
    """The run would train on it, and a test would use it too."""
    for split in ("test", None):
        assert found_now(run, *VIDEOS[:3], replace(VIDEOS[3], split=split), *VIDEOS[4:], HELD_OUT) is None


def test_the_list_of_another_run(run: Path) -> None:
    """A run that began with more videos, or in another order, has other samples."""
    for others in ([*VIDEOS, record(6)], VIDEOS[::-1], VIDEOS[1:]):
        RunManifest(run).write(catalog(*others))
        assert found_now(run, *VIDEOS[1:]) is None
    RunManifest(run).write(BEGUN)
    assert found_now(run, *VIDEOS[1:]) is not None
    RunManifest(run).file.unlink()
    assert found_now(run, *VIDEOS[1:]) is None
