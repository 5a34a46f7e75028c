"""What the tests of several backends share."""

from __future__ import annotations

import pytest

from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.decode.probe import probe
from tests.loaders.backends.clips import (
    MakeVideo,
    catalog,
)


@pytest.fixture(scope="module")
def videos(make_video: MakeVideo, tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = tmp_path_factory.mktemp("videos")
    sizes = [(96, 72), (64, 120), (160, 96)]
    names = [make_video(folder / f"{w}x{h}.mp4", frames=60, size=(w, h), bframes=2) for w, h in sizes]
    return catalog(*(probe(name) for name in names))
