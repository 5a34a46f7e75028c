"""Which files below a root are found."""

import os
import re
from pathlib import Path

import pytest

from cacl.errors import DataError
from cacl.loaders.catalog.layouts.suffixes import VIDEO_SUFFIXES
from tests.loaders.catalog.layouts.data_sets import facts, find, put


def test_every_suffix_in_any_case_and_nothing_hidden(tmp_path: Path) -> None:
    put(
        tmp_path,
        *(f"{suffix}.{suffix.upper()}" for suffix in VIDEO_SUFFIXES),
        *(f"b.{s}" for s in VIDEO_SUFFIXES),
    )
    put(tmp_path, ".hidden.mp4", ".hidden/a.mp4", "._a.mp4", "mp4", "a.mp4.part", "a.txt", "lost+found/a.mp4")
    assert len(find(tmp_path).entries) == 2 * len(VIDEO_SUFFIXES)
    assert not any("hidden" in entry.path for entry in find(tmp_path).entries)


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    put(tmp_path / "root", "run/a.mp4", "walk/b.mp4")
    put(tmp_path / "far", "c.mp4")
    (tmp_path / "root/jump").symlink_to(tmp_path / "far")
    (tmp_path / "far/back").symlink_to(tmp_path / "root")
    (tmp_path / "root/run/self").symlink_to(".")
    (tmp_path / "root/run/dangling.mp4").symlink_to("nowhere")
    (tmp_path / "root/run/itself.mp4").symlink_to("itself.mp4")
    paths = [entry.path for entry in find(tmp_path / "root").entries]
    assert paths == ["jump/c.mp4", "run/a.mp4", "run/dangling.mp4", "run/itself.mp4", "walk/b.mp4"]


def test_an_unreadable_folder_is_named_and_the_others_count(tmp_path: Path) -> None:
    """A path that is too long, which not even the superuser can open; to remove it takes steps, too."""
    put(tmp_path, "run/a.mp4", "walk/b.mp4")
    deep, here = "d" * 200, os.open(tmp_path / "walk", os.O_RDONLY)
    for _ in range(25):
        os.mkdir(deep, dir_fd=here)
        below = os.open(deep, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    listing = find(tmp_path)
    assert facts(listing) == {"run/a.mp4": ("run", None), "walk/b.mp4": ("walk", None)}
    (note,) = listing.notes
    assert re.fullmatch(r"walk/(d+/)+ cannot be read \(File name too long\): what is in it is left out", note)
    (tmp_path / "empty").mkdir()
    (tmp_path / "walk").rename(tmp_path / "empty/walk")
    (tmp_path / "empty/walk/b.mp4").unlink()
    with pytest.raises(DataError, match=r"holds no video .*; walk/.* cannot be read"):
        find(tmp_path / "empty")
