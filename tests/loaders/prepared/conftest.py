"""A folder of videos and the prepared set that is made of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.loaders.prepared.prepared_sets import run

MakeVideo = Callable[..., Path]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory, make_video: MakeVideo) -> Path:
    """Two classes with three files to encode, one to copy, and two that cannot be used."""
    root = tmp_path_factory.mktemp("originals")
    make_video(root / "run/a.mp4", frames=30, size=(80, 64), bframes=2)
    make_video(root / "run/b.avi", frames=20, size=(96, 80), codec="mpeg4", rate=10)
    make_video(root / "walk/a.mp4", frames=18, size=(64, 48))
    make_video(root / "walk/c.webm", frames=25, size=(80, 96), codec="libvpx-vp9")
    (root / "walk/empty.mp4").touch()
    (root / "walk/text.mp4").write_text("not a video at all\n" * 20)
    return root


@pytest.fixture(scope="module")
def whole(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The originals and what an undisturbed run makes of them. Tests only read or copy them."""
    location = tmp_path_factory.mktemp("whole")
    shutil.copytree(originals, location / "source")
    run(location / "source", location / "target")
    return location


@pytest.fixture
def location(whole: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy that tests may change, under the same name, since the conversion log names its source."""
    kept = whole.with_name("kept")
    whole.rename(kept)
    shutil.copytree(kept, whole)
    yield whole
    shutil.rmtree(whole)
    kept.rename(whole)
