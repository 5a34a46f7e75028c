"""The root, the choice of a layout, and lists that it does not use."""

from pathlib import Path

import pytest

from cacl.config import DataConfig
from cacl.errors import DataError
from cacl.loaders.catalog.layouts.discover import discover_videos, official_folds
from tests.loaders.catalog.layouts.data_sets import find, put, write


def test_numbers_of_the_official_folds(ucf101: Path, tmp_path: Path) -> None:
    assert official_folds(find(ucf101)) == [1, 2]
    put(tmp_path / "other", "run/a.mp4", "walk/b.mp4")
    write(tmp_path / "other/trainlist01.txt", "run/a.mp4")
    assert official_folds(find(tmp_path / "other", layout="classes")) == []


def test_lists_that_a_layout_does_not_use_are_named(ucf101: Path) -> None:
    names = ["UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi 0"]
    for number in range(5):
        write(ucf101 / f"list{number}.csv", *names)
    notes = find(ucf101).notes
    assert notes[:3] == tuple(
        f"{ucf101 / f'list{number}.csv'}: lists videos; it is not used (layout ucf101)" for number in range(3)
    )
    assert notes[3:] == ("2 more lists are not used, such as list4.csv",)


def test_no_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root is not set"):
        discover_videos(DataConfig())
    with pytest.raises(DataError, match=r"data\.root = .*/gone: does not exist"):
        find(tmp_path / "gone")


def test_root_that_is_a_file(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4")
    write(tmp_path / "list.csv", "path", "a.mp4")
    with pytest.raises(
        DataError, match=r"a\.mp4: is a single file; give the folder that it lies in, or a list of videos$"
    ):
        find(tmp_path / "a.mp4")
    with pytest.raises(DataError, match=r"list\.csv: is a file; layout ucf101 takes a folder"):
        find(tmp_path / "list.csv", layout="ucf101")


def test_nothing_that_looks_like_a_video(tmp_path: Path) -> None:
    put(tmp_path, "a.txt", "b/c.jpg")
    with pytest.raises(DataError, match=r"holds no video \(looked for \.avi \.mp4 .*\.ogv\)$"):
        find(tmp_path)


@pytest.mark.parametrize(
    ("layout", "message"),
    [("ucf101", "trainlist01.txt"), ("hmdb51", "_test_split1.txt"), ("kinetics", "youtube_id"), ("csv", "`path`")],
)
def test_layout_without_its_lists(tmp_path: Path, layout: str, message: str) -> None:
    put(tmp_path, "run/a.mp4", "walk/b.mp4")
    with pytest.raises(DataError, match=message):
        find(tmp_path, layout=layout)


def test_lists_of_two_data_sets(ucf101: Path) -> None:
    write(ucf101 / "splits/wave_test_split1.txt", "a.avi 1")
    with pytest.raises(DataError, match=r"lists of ucf101 \(ucfTrainTestlist/.*\) and of hmdb51 \(splits/wave_test"):
        find(ucf101)
    assert find(ucf101, layout="ucf101").layout == "ucf101"
