"""Kinetics: official names and lists; no file is ever opened."""

from pathlib import Path

import pytest

from cacl.errors import DataError
from tests.loaders.catalog.layouts.data_sets import facts, find, put, write


def kinetics(root: Path, **lists: list[str]) -> None:
    for name, rows in lists.items():
        write(root / f"{name}.csv", "label,youtube_id,time_start,time_end,split", *rows)


def test_kinetics(tmp_path: Path) -> None:
    kinetics(
        tmp_path / "annotations",
        train=[
            '"playing ""the"" harp",-_aB3_01234,7,17,train',
            "abseiling,plainplain1,0,10,train",
            "abseiling,gone,3,13,train",
        ],
        validate=["abseiling,val4567890,10,20,validate"],
    )
    write(
        tmp_path / "annotations/test.csv",  # the official test list has no labels
        "youtube_id,time_start,time_end,split",
        "test4567890,1,11,test",
    )
    put(tmp_path, "train/-_aB3_01234_000007_000017.mp4", "train/abseiling/plainplain1.mkv", "other.webm")
    put(tmp_path, "val/val4567890_000010_000020.mp4", "test/test4567890_000001_000011.mp4")
    listing = find(tmp_path)
    assert listing.layout == "kinetics"
    assert facts(listing) == {
        "other.webm": (None, None),
        "test/test4567890_000001_000011.mp4": (None, "test"),
        "train/-_aB3_01234_000007_000017.mp4": ('playing "the" harp', "train"),
        "train/abseiling/plainplain1.mkv": ("abseiling", "train"),
        "val/val4567890_000010_000020.mp4": ("abseiling", "val"),
    }
    assert listing.missing == ("gone_000003_000013.mp4",)
    (note,) = listing.notes
    assert note.startswith("Kinetics gives no labels for its test videos: its validation list stands for them")
    assert "--queries val" in note
    (tmp_path / "annotations/test.csv").unlink()
    assert find(tmp_path).notes == (note,)


def test_kinetics_test_list_with_labels_needs_no_other(tmp_path: Path) -> None:
    kinetics(tmp_path, kinetics600_train=["a,one,0,10,train"], kinetics600_test=["a,two,0,10,test"])
    put(tmp_path, "one.mp4", "two.mp4")
    assert facts(find(tmp_path)) == {"one.mp4": ("a", "train"), "two.mp4": ("a", "test")}
    assert find(tmp_path).notes == ()
    kinetics(tmp_path, kinetics600_val=["a,three,0,10,val"])
    put(tmp_path, "three.mp4")
    assert facts(find(tmp_path))["three.mp4"] == ("a", "val")
    assert find(tmp_path).notes == ()
    (tmp_path / "kinetics600_val.csv").unlink()
    (tmp_path / "three.mp4").unlink()
    assert facts(find(tmp_path / "kinetics600_train.csv")) == {"one.mp4": ("a", "train"), "two.mp4": (None, None)}


def test_kinetics_plain_name_that_two_clips_answer_to(tmp_path: Path) -> None:
    kinetics(tmp_path, train=["a,twice,0,10,train", "b,twice,20,30,train"])
    put(tmp_path, "twice_000000_000010.mp4", "twice_000020_000030.mp4")
    assert [entry.label for entry in find(tmp_path).entries] == ["a", "b"]
    put(tmp_path, "twice.mp4")
    with pytest.raises(DataError, match=r"train\.csv line 3: lists twice\.mp4 with label b.*line 2 with label a"):
        find(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,id,0,10,eval", r"train\.csv line 2: split 'eval' is none of train, training, val, valid, "),
        ("a,id,zero,10,train", r"train\.csv line 2: 'zero' to '10' are not seconds"),
        ("a,id,0,10", r"train\.csv line 2: has 4 cells under 5 columns"),
    ],
)
def test_kinetics_damaged_list(tmp_path: Path, row: str, message: str) -> None:
    kinetics(tmp_path, train=[row])
    with pytest.raises(DataError, match=message):
        find(tmp_path)
