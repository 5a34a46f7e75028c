"""Videos that the tests of the DALI backend share."""

from __future__ import annotations

import pytest

from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.decode.probe import probe
from tests.loaders.backends.clips import MakeVideo, catalog
from tests.loaders.backends.dali.clips import FRAMES


@pytest.fixture(scope="module")
def videos(make_video: MakeVideo, tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Four H.264 videos with B-frames, of different sizes."""
    folder = tmp_path_factory.mktemp("videos")
    sizes = [(96, 72), (48, 120), (160, 160), (200, 66)]
    names = [make_video(folder / f"{w}x{h}.mp4", frames=FRAMES, size=(w, h), bframes=2) for w, h in sizes]
    return catalog(*(probe(name) for name in names))


@pytest.fixture(scope="module")
def vp9(make_video: MakeVideo, tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = tmp_path_factory.mktemp("vp9")
    sizes = [(96, 72), (48, 120), (200, 66)]
    names = [
        make_video(folder / f"{w}x{h}.webm", frames=FRAMES, size=(w, h), codec="libvpx-vp9", gop=10) for w, h in sizes
    ]
    return catalog(*(probe(name) for name in names))
