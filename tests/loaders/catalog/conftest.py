"""Folders of real, small videos that tests of several modules scan."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.loaders.catalog.scans import UNUSABLE

MakeVideo = Callable[..., Path]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory, make_video: MakeVideo) -> Path:
    """Two classes, three containers, and one file of each kind that cannot be used."""
    root = tmp_path_factory.mktemp("originals")
    make_video(root / "run/a.mp4", frames=30, size=(64, 48), bframes=2)
    make_video(root / "run/b.avi", frames=20, size=(80, 48), codec="mpeg4", rate=10)
    make_video(root / "walk/c.webm", frames=25, codec="libvpx-vp9")
    make_video(root / "walk/short.mp4", frames=4)
    (root / "walk/empty.mp4").touch()
    (root / "walk/text.mp4").write_text("not a video at all\n" * 20)
    cut(make_video(root / "run/cut.mp4", frames=40))
    cut(make_video(root / "run/cut_behind_its_index.mp4", frames=40, muxer={"movflags": "faststart"}))
    return root


def cut(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])


@pytest.fixture
def root(originals: Path, tmp_path: Path) -> Path:
    return shutil.copytree(originals, tmp_path / "root")


@pytest.fixture
def good(root: Path) -> Path:
    for path in UNUSABLE:
        (root / path).unlink()
    return root
