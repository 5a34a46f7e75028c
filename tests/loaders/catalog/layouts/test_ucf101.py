"""UCF101: official names and lists; no file is ever opened."""

from pathlib import Path

import pytest

from cacl.errors import DataError
from tests.loaders.catalog.layouts.data_sets import facts, find, put, write


def test_ucf101(ucf101: Path) -> None:
    listing = find(ucf101)
    assert listing.layout == "ucf101"
    assert facts(listing) == {
        "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi": ("ApplyEyeMakeup", "test"),
        "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g02_c01.avi": ("ApplyEyeMakeup", None),  # in no list
        "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi": ("ApplyEyeMakeup", "train"),
        "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g09_c01.avi": ("ApplyEyeMakeup", "train"),
        "UCF-101/HandstandPushups/v_HandStandPushups_g01_c01.avi": ("HandstandPushups", "test"),
        "UCF-101/HandstandPushups/v_HandStandPushups_g08_c01.avi": ("HandstandPushups", "train"),
    }
    assert listing.missing == ("ApplyEyeMakeup/v_ApplyEyeMakeup_g03_c01.avi",)


def test_ucf101_with_everything_in_the_root_and_transcoded(ucf101: Path) -> None:
    flat = ucf101 / "flat"
    for file in (ucf101 / "ucfTrainTestlist").iterdir():
        write(flat / file.name, *file.read_text().splitlines())
    put(flat, "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.mp4", "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.MP4")
    put(flat, "extra/v_ApplyEyeMakeup_g09_c01.mp4")
    assert facts(find(flat)) == {
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.mp4": ("ApplyEyeMakeup", "test"),
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.MP4": ("ApplyEyeMakeup", "train"),
        "extra/v_ApplyEyeMakeup_g09_c01.mp4": (None, None),  # not a class that the lists know
    }


def test_ucf101_second_split(ucf101: Path) -> None:
    parts = {path: split for path, (_, split) in facts(find(ucf101, fold=2)).items() if split}
    assert parts == {
        "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi": "train",
        "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi": "test",
    }


def test_ucf101_split_that_is_not_there(ucf101: Path) -> None:
    with pytest.raises(DataError, match=r"data\.fold = 3: no list named trainlist03\.txt .* of fold 01, 02$"):
        find(ucf101, fold=3)
    (ucf101 / "ucfTrainTestlist/testlist01.txt").unlink()
    with pytest.raises(DataError, match=r"no list named testlist01\.txt"):
        find(ucf101)


def test_ucf101_video_in_both_lists(ucf101: Path) -> None:
    write(ucf101 / "ucfTrainTestlist/testlist01.txt", "", "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi")
    with pytest.raises(DataError, match=r"testlist01\.txt line 2: lists .*g08_c01\.avi .*trainlist01\.txt line 1"):
        find(ucf101)


def test_ucf101_line_that_names_no_class(ucf101: Path) -> None:
    write(ucf101 / "ucfTrainTestlist/testlist01.txt", "v_ApplyEyeMakeup_g08_c01.avi")
    with pytest.raises(DataError, match=r"testlist01\.txt line 1: 'v_Apply.*' is not <class>/<video>"):
        find(ucf101)


def test_ucf101_as_it_is_distributed(ucf101: Path) -> None:
    folder = ucf101 / "UCF-101/HandstandPushups"
    for file in folder.iterdir():
        file.rename(folder / file.name.replace("HandStand", "Handstand"))
    listing = find(ucf101)
    assert {path: fact for path, fact in facts(listing).items() if "andstand" in path} == {
        "UCF-101/HandstandPushups/v_HandstandPushups_g01_c01.avi": ("HandstandPushups", "test"),
        "UCF-101/HandstandPushups/v_HandstandPushups_g08_c01.avi": ("HandstandPushups", "train"),
    }
    assert listing.missing == ("ApplyEyeMakeup/v_ApplyEyeMakeup_g03_c01.avi",)
    assert listing.notes == (
        "listed names that are not quite those of their files: 2, such as "
        "HandstandPushups/v_HandStandPushups_g01_c01.avi for UCF-101/HandstandPushups/v_HandstandPushups_g01_c01.avi; "
        "matched without regard to case, suffix and folders in front",
    )
