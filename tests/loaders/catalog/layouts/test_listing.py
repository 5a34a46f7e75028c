"""A file counts once, by whatever paths it is reached."""

import os
from pathlib import Path

import pytest

from cacl.errors import DataError
from tests.loaders.catalog.layouts.data_sets import facts, find, put


def test_a_file_reached_twice_counts_once(tmp_path: Path) -> None:
    put(tmp_path / "root", "run/a.mp4", "walk/b.mp4")
    (tmp_path / "root/all").mkdir()
    (tmp_path / "root/run/again.mp4").symlink_to("a.mp4")
    os.link(tmp_path / "root/walk/b.mp4", tmp_path / "root/walk/c.mp4")
    listing = find(tmp_path / "root")
    assert facts(listing) == {"run/a.mp4": ("run", None), "walk/b.mp4": ("walk", None)}
    assert listing.notes == (
        "paths that lead to files counted already, through links: 2, such as run/again.mp4 to run/a.mp4",
    )


def test_what_is_known_of_a_file_under_several_names_comes_together(tmp_path: Path) -> None:
    put(tmp_path, "pool/1.mp4", "pool/2.mp4")
    for split, number in (("train", 1), ("test", 2)):
        (tmp_path / split).mkdir()
        (tmp_path / split / "clip.mp4").symlink_to(f"../pool/{number}.mp4")
    listing = find(tmp_path)
    assert facts(listing) == {"pool/1.mp4": (None, "train"), "pool/2.mp4": (None, "test")}


def test_a_file_with_two_labels_or_splits_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "run/a.mp4", "walk/b.mp4")
    (tmp_path / "walk/a.mp4").symlink_to("../run/a.mp4")
    with pytest.raises(
        DataError, match=r"run/a\.mp4 and walk/a\.mp4 are one file, .* label run, split None and with label walk, split"
    ):
        find(tmp_path)
    assert len(find(tmp_path, layout="folder").entries) == 2
    put(tmp_path / "leak", "train/run/a.mp4", "test/run/b.mp4")
    (tmp_path / "leak/test/run/a.mp4").symlink_to("../../train/run/a.mp4")
    for layout in ("auto", "folder"):
        with pytest.raises(DataError, match=r"are one file, .*split train and with .*split test"):
            find(tmp_path / "leak", layout=layout)
