"""Folders that tell nothing."""

from pathlib import Path

import pytest

from tests.loaders.catalog.layouts.data_sets import facts, find, put


@pytest.mark.parametrize(
    "videos",
    [["a.mp4", "run/b.mp4", "walk/c.mp4"], ["only/a.mp4", "only/b.mp4"], ["a.mp4"]],
)
def test_auto_takes_all_else_as_a_folder(tmp_path: Path, videos: list[str]) -> None:
    put(tmp_path, *videos)
    listing = find(tmp_path)
    assert listing.layout == "folder"
    assert facts(listing) == dict.fromkeys(videos, (None, None))
