"""Lists of paths: which of them are taken, and what they tell."""

from pathlib import Path

import pytest

from cacl.errors import DataError
from cacl.loaders.catalog.layouts.listing import VideoEntry
from tests.loaders.catalog.layouts.data_sets import THREE, facts, find, put, write


def test_csv(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "absolute.mp4"
    root = tmp_path / "root"
    put(root, "a/x.avi", "a/y.avi", "a/unlisted.avi", "z.bin")
    put(elsewhere.parent, elsewhere.name)
    write(
        root / "list.csv",
        "\ufeffSplit, Actor ,PATH,Label",
        "train,Ann,a/x.avi,run",
        f"VAL,Bob,{root}/./a/y.avi,walk",
        "",
        "validation,,z.bin,",
        f"test,Eve,{elsewhere},walk",
        ",Eve,../elsewhere/gone.mp4,walk",
        end="\r\n",
    )
    listing = find(root)
    assert listing.layout == "csv"
    assert listing.entries == (
        VideoEntry(str(elsewhere), "walk", "test", {"Actor": "Eve"}),
        VideoEntry("a/unlisted.avi"),
        VideoEntry("a/x.avi", "run", "train", {"Actor": "Ann"}),
        VideoEntry("a/y.avi", "walk", "val", {"Actor": "Bob"}),
        VideoEntry("z.bin", None, "val", {"Actor": ""}),
    )
    assert listing.missing == ("../elsewhere/gone.mp4",)


def test_csv_as_root_stands_for_what_it_names(tmp_path: Path) -> None:
    put(tmp_path, "a.avi", "b.avi")
    write(tmp_path / "some.CSV", "path", "b.avi")
    listing = find(tmp_path / "some.CSV")
    assert (listing.root, listing.layout, listing.entries) == (tmp_path, "csv", (VideoEntry("b.avi"),))


def test_csv_listed_twice_alike_is_no_trouble(tmp_path: Path) -> None:
    put(tmp_path, "a.avi")
    write(tmp_path / "list.csv", "path,label", "a.avi,x", "./a.avi,x")
    assert find(tmp_path).entries == (VideoEntry("a.avi", "x"),)


def test_two_csv_lists(tmp_path: Path) -> None:
    put(tmp_path, "a.avi")
    write(tmp_path / "one.csv", "path", "a.avi")
    write(tmp_path / "two.csv", "path", "a.avi")
    with pytest.raises(DataError, match=r"there are 2 \(one\.csv, two\.csv\); name one as data\.root"):
        find(tmp_path)
    assert find(tmp_path, layout="folder").layout == "folder"


@pytest.mark.parametrize("folder", ["", "annotations"])
def test_lists_whose_names_are_splits(tmp_path: Path, folder: str) -> None:
    put(tmp_path, *THREE, "a/unlisted.mp4")
    for name, path, label in zip(("train", "val", "test"), THREE, "001", strict=True):
        write(tmp_path / folder / f"{name}.csv", f"{path} {label}")
    assert facts(find(tmp_path)) == {
        "a/unlisted.mp4": (None, None),
        "a/x.mp4": ("0", "train"),
        "a/y.mp4": ("0", "val"),
        "b/z.mp4": ("1", "test"),
    }


def test_paths_are_relative_to_the_root_or_to_their_list(tmp_path: Path) -> None:
    put(tmp_path, "a/x.mp4", "b/x.mp4", "a/b/x.mp4")
    write(tmp_path / "a/train.txt", "x.mp4 here")
    write(tmp_path / "b/test.txt", "b/x.mp4 root")
    assert facts(find(tmp_path)) == {
        "a/b/x.mp4": (None, None),
        "a/x.mp4": ("here", "train"),
        "b/x.mp4": ("root", "test"),
    }
    write(tmp_path / "a/train.txt", "b/x.mp4 root")  # where both are, the root goes before
    assert facts(find(tmp_path / "a"))["b/x.mp4"] == ("root", "train")
    (tmp_path / "b/test.txt").unlink()
    assert {path for path, (label, _) in facts(find(tmp_path)).items() if label} == {"b/x.mp4"}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("test.lst", "test"),
        ("kinetics400_train_list_videos.txt", "train"),
        ("ucf101_val_split_1_videos.txt", "val"),
        ("validation.csv", "val"),
        ("TestList.txt", "test"),
        ("dev.csv", "val"),
        ("train/list.txt", "train"),
        ("labels.csv", None),
        ("train_val.txt", None),
        ("eval.csv", None),
        ("contest.csv", None),
    ],
)
def test_split_by_the_name_of_a_list(tmp_path: Path, name: str, split: str | None) -> None:
    put(tmp_path, *THREE)
    write(tmp_path / name, *(f"{path} 0" for path in THREE))
    assert {part for _, part in facts(find(tmp_path)).values()} == {split}


def test_labels_of_minus_one_are_none(tmp_path: Path) -> None:
    """As lists for pre-training have them; but one class of two may be called so."""
    put(tmp_path, *THREE)
    write(tmp_path / "train.csv", *(f"{path} 0 -1" for path in THREE))
    assert [entry.label for entry in find(tmp_path).entries] == ["a", "a", "b"]  # by their folders
    write(tmp_path / "train.csv", "a/x.mp4 -1", "a/y.mp4 1")
    assert [entry.label for entry in find(tmp_path).entries] == ["-1", "1", None]


def test_what_lists_do_not_tell_is_told_by_folders(tmp_path: Path) -> None:
    put(tmp_path, "train/run/a.mp4", "train/sit/b.mp4", "test/run/c.mp4")
    write(tmp_path / "labels.csv", "path,label", "train/run/a.mp4,1", "train/sit/b.mp4,2", "test/run/c.mp4,1")
    listing = find(tmp_path)
    assert [(e.label, e.split) for e in listing.entries] == [("1", "test"), ("1", "train"), ("2", "train")]
    assert listing.notes == ("lists tell no splits: the folders of the videos do",)
    write(tmp_path / "labels.csv", "path", "train/run/a.mp4", "train/sit/b.mp4", "test/run/c.mp4")
    assert [(e.label, e.split) for e in find(tmp_path).entries] == [("run", "test"), ("run", "train"), ("sit", "train")]


def test_labels_in_one_list_and_splits_in_others(tmp_path: Path) -> None:
    put(tmp_path, *THREE)
    write(tmp_path / "labels.csv", "path,label,who", "a/x.mp4,run,Ann", "a/y.mp4,run,Bob", "b/z.mp4,sit,Eve")
    write(tmp_path / "train.txt", "a/x.mp4", "b/z.mp4")
    write(tmp_path / "test.txt", "a/y.mp4")
    assert find(tmp_path).entries == (
        VideoEntry("a/x.mp4", "run", "train", {"who": "Ann"}),
        VideoEntry("a/y.mp4", "run", "test", {"who": "Bob"}),
        VideoEntry("b/z.mp4", "sit", "train", {"who": "Eve"}),
    )
    (tmp_path / "train.txt").unlink()
    assert [entry.split for entry in find(tmp_path).entries] == [None, "test", None]
    assert find(tmp_path).notes[-1] == (
        "listed videos whose split no list tells: 2, such as a/x.mp4; they belong to none"
    )


def test_lists_that_contradict_each_other(tmp_path: Path) -> None:
    put(tmp_path, *THREE)
    write(tmp_path / "train.txt", "a/x.mp4 0", "b/z.mp4 1")
    write(tmp_path / "test.txt", "a/x.mp4 0")
    with pytest.raises(
        DataError, match=r"train\.txt line 1: lists a/x\.mp4 .*split train; .*test\.txt line 1 .*split test"
    ):
        find(tmp_path)


def test_a_damaged_list_stops_only_who_would_use_it(tmp_path: Path) -> None:
    put(tmp_path, *THREE)
    write(tmp_path / "train.csv", "path,label", 'a/x.mp4,"0', "b/z.mp4,1")
    with pytest.raises(DataError, match=r"train\.csv line 3: is not valid CSV"):
        find(tmp_path)
    assert find(tmp_path, layout="classes").notes[0].startswith(f"{tmp_path}/train.csv line 3: is not valid CSV")
