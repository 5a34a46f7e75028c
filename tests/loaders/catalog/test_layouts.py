"""Every layout, with files that have the official names and lists in the official formats; no file is ever opened."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from cacl.config import DataConfig
from cacl.errors import DataError
from cacl.loaders.catalog.layouts import discover
from cacl.loaders.catalog.layouts.discover import Entry, Listing


def put(root: Path, *names: str) -> None:
    """Makes empty files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def write(file: Path, *lines: str, end: str = "\n") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes("".join(line + end for line in lines).encode())


def find(root: Path, **data: Any) -> Listing:
    return discover.find(DataConfig(root=str(root), **data))


def facts(listing: Listing) -> dict[str, tuple[str | None, str | None]]:
    return {entry.path: (entry.label, entry.split) for entry in listing.entries}


# --- UCF101


@pytest.fixture
def ucf101(tmp_path: Path) -> Path:
    put(tmp_path / "UCF-101/ApplyEyeMakeup", *(f"v_ApplyEyeMakeup_g{g:02d}_c01.avi" for g in (1, 2, 8, 9)))
    put(tmp_path / "UCF-101/HandstandPushups", "v_HandStandPushups_g01_c01.avi", "v_HandStandPushups_g08_c01.avi")
    lists = tmp_path / "ucfTrainTestlist"
    write(lists / "classInd.txt", "1 ApplyEyeMakeup", "37 HandstandPushups", end="\r\n")
    write(
        lists / "trainlist01.txt",
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1",
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g09_c01.avi 1",
        "HandstandPushups/v_HandStandPushups_g08_c01.avi 37",
        end="\r\n",
    )
    write(
        lists / "testlist01.txt",
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g03_c01.avi",
        "HandstandPushups/v_HandStandPushups_g01_c01.avi",
        end="\r\n",
    )
    write(lists / "trainlist02.txt", "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi 1")
    write(lists / "testlist02.txt", "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi")
    return tmp_path


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
    parts = {path: split for path, (_, split) in facts(find(ucf101, split=2)).items() if split}
    assert parts == {
        "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi": "train",
        "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi": "test",
    }


def test_ucf101_split_that_is_not_there(ucf101: Path) -> None:
    with pytest.raises(DataError, match=r"data\.fold = 3: no list named trainlist03\.txt .* of split 01, 02$"):
        find(ucf101, split=3)
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


# --- HMDB51

ODD = "Let's_Go_[Part;2]_&_#1_wave_f_nm_np1_fr_med_0.avi"


@pytest.mark.parametrize("folder", ["", "testTrainMulti_7030_splits"])
def test_hmdb51(tmp_path: Path, folder: str) -> None:
    put(
        tmp_path / "hmdb51",
        f"wave/{ODD}",
        "wave/same.avi",
        "wave/unused.avi",
        "shoot_bow/same.avi",
        "shoot_bow/new.avi",
    )
    write(tmp_path / folder / "wave_test_split1.txt", f"{ODD} 1 ", "same.avi 2 ", "unused.avi 0 ")
    write(tmp_path / folder / "shoot_bow_test_split1.txt", "same.avi 1 ", "#gone.avi 2 ")
    write(tmp_path / folder / "wave_test_split2.txt", f"{ODD} 2 ", "same.avi 1 ", "unused.avi 1 ")
    listing = find(tmp_path)
    assert listing.layout == "hmdb51"
    assert facts(listing) == {
        "hmdb51/shoot_bow/new.avi": ("shoot_bow", None),
        "hmdb51/shoot_bow/same.avi": ("shoot_bow", "train"),
        f"hmdb51/wave/{ODD}": ("wave", "train"),
        "hmdb51/wave/same.avi": ("wave", "test"),
        "hmdb51/wave/unused.avi": ("wave", None),
    }
    assert listing.missing == ("shoot_bow/#gone.avi",)
    assert facts(find(tmp_path, split=2))[f"hmdb51/wave/{ODD}"] == ("wave", "test")
    with pytest.raises(DataError, match=r"_test_split3\.txt .* split 1, 2$"):
        find(tmp_path, split=3)


def test_hmdb51_value_out_of_range(tmp_path: Path) -> None:
    put(tmp_path, "wave/a.avi")
    write(tmp_path / "wave_test_split1.txt", "a.avi 3")
    with pytest.raises(DataError, match=r"wave_test_split1\.txt line 1: 'a\.avi 3' does not end in 0"):
        find(tmp_path)


# --- Kinetics


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


# --- CSV


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
        Entry(str(elsewhere), "walk", "test", {"Actor": "Eve"}),
        Entry("a/unlisted.avi"),
        Entry("a/x.avi", "run", "train", {"Actor": "Ann"}),
        Entry("a/y.avi", "walk", "val", {"Actor": "Bob"}),
        Entry("z.bin", None, "val", {"Actor": ""}),
    )
    assert listing.missing == ("../elsewhere/gone.mp4",)


def test_csv_as_root_stands_for_what_it_names(tmp_path: Path) -> None:
    put(tmp_path, "a.avi", "b.avi")
    write(tmp_path / "some.CSV", "path", "b.avi")
    listing = find(tmp_path / "some.CSV")
    assert (listing.root, listing.layout, listing.entries) == (tmp_path, "csv", (Entry("b.avi"),))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["path,split", "a.avi,eval"], r"list\.csv line 2: split 'eval' is none of train, training, val, valid, "),
        (["path,label", "a.avi,x", "a.avi,y"], r"list\.csv line 3: lists a\.avi with label y.*line 2 with label x"),
        (["path,label", "a.avi"], r"list\.csv line 2: has 1 cells under 2 columns"),
        (["path,label", ",x"], r"list\.csv line 2: the path is empty"),
        (["path,Label,label", "a.avi,x,y"], r"list\.csv: has two columns of one name"),
        (["file,label", "a.bin,x"], r"list\.csv: is no list of videos; it needs a column `path`, or a video on each"),
        (
            ["3", "a.avi x", "b.avi y"],
            r"list\.csv line 1: is no header of the columns below: remove it or put # before",
        ),
        (["path,label", 'a.avi,"x', "b.avi,y"], r"list\.csv line 3: is not valid CSV \(unexpected end of data\)"),
        (["path", "b.avi", "c.avi"], r"holds no video .*; none of the 2 listed ones is there, such as b\.avi"),
    ],
)
def test_csv_that_cannot_be_right(tmp_path: Path, lines: list[str], message: str) -> None:
    put(tmp_path, "a.avi")
    write(tmp_path / "list.csv", *lines)
    with pytest.raises(DataError, match=message):
        find(tmp_path / "list.csv")


def test_csv_in_another_encoding(tmp_path: Path) -> None:
    put(tmp_path, "a.avi")
    (tmp_path / "list.csv").write_bytes("path,label\na.avi,caf\xe9\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"list\.csv: cannot be read as UTF-8 or UTF-16 text"):
        find(tmp_path)


def test_csv_listed_twice_alike_is_no_trouble(tmp_path: Path) -> None:
    put(tmp_path, "a.avi")
    write(tmp_path / "list.csv", "path,label", "a.avi,x", "./a.avi,x")
    assert find(tmp_path).entries == (Entry("a.avi", "x"),)


def test_two_csv_lists(tmp_path: Path) -> None:
    put(tmp_path, "a.avi")
    write(tmp_path / "one.csv", "path", "a.avi")
    write(tmp_path / "two.csv", "path", "a.avi")
    with pytest.raises(DataError, match=r"there are 2 \(one\.csv, two\.csv\); name one as data\.root"):
        find(tmp_path)
    assert find(tmp_path, layout="folder").layout == "folder"


# --- Lists in any form

THREE = ("a/x.mp4", "a/y.mp4", "b/z.mp4")
PLAIN = {"a/x.mp4": ("run fast", "val"), "a/y.mp4": ("run", "val"), "b/z.mp4": ("sit down", "val")}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(("header", "suffix"), [(False, "csv"), (True, "txt")])
@pytest.mark.parametrize("delimiter", [",", ", ", ";", "\t", "|"])
def test_a_list_in_any_form(tmp_path: Path, encoding: str, end: str, header: bool, suffix: str, delimiter: str) -> None:
    put(tmp_path, *THREE)
    rows = [delimiter.join(("path", "label"))] if header else []
    rows += [delimiter.join((path, label)) for path, (label, _) in PLAIN.items()]
    rows.insert(1, "# a comment, with a comma; and more")
    (tmp_path / f"val.{suffix}").write_bytes("".join(row + end for row in rows).encode(encoding))
    listing = find(tmp_path)
    assert (listing.layout, facts(listing), listing.missing) == ("csv", PLAIN, ())
    header_note = () if header else (f"val.{suffix}: without a header, taken for a list of path, label",)
    assert listing.notes == (*header_note, f"splits told by the names of lists: val by val.{suffix}")


PUBLISHED = {
    "VideoMAE": (["{0} 0", "{1} 0", "{2} 1"], "path, label"),
    "tabs": (["{0}\t0", "{1}\t0", "{2}\t1"], "path, label"),
    "quoted": (['"{0}" 0', '"{1}" 0', '"{2}" 1'], "path, label"),
    "frames": (["{0} 163 0", "{1} 122 0", "{2} 258 1"], "path, frames, label"),
    "frames and commas": (["{0},163,0", "{1},122,0", "{2},258,1"], "path, frames, label"),
    "split": (["{0},0,train", "{1},0,train", "{2},1,train"], "path, label, split"),
}


@pytest.mark.parametrize("form", PUBLISHED)
@pytest.mark.parametrize("paths", [THREE, ("my dir/x y.mp4", "my, dir/y.avi", "b/#z.MP4")], ids=["plain", "odd"])
@pytest.mark.parametrize("as_root", [False, True])
def test_lists_without_a_header(tmp_path: Path, form: str, paths: tuple[str, ...], as_root: bool) -> None:
    rows, told = PUBLISHED[form]
    if "," in rows[0] and "," in paths[1]:
        paths = ("my dir/x y.mp4", "my dir/y.avi", "b/#z.MP4")
    put(tmp_path, *paths)
    write(tmp_path / "train.csv", *(row.format(*paths) for row in rows))
    listing = find(tmp_path / "train.csv" if as_root else tmp_path)
    assert listing.layout == "csv"
    assert facts(listing) == dict(zip(paths, [("0", "train"), ("0", "train"), ("1", "train")], strict=True))
    assert listing.notes[0] == f"train.csv: without a header, taken for a list of {told}"


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


@pytest.mark.parametrize("column", ["filename", "Video", "video_path", "file", "clip", "anything"])
def test_other_names_of_columns(tmp_path: Path, column: str) -> None:
    put(tmp_path, *THREE)
    write(tmp_path / "l.csv", f"{column},fold,class,subset", "a/x.mp4,1,run,training", "b/z.mp4,2,sit,validation")
    listing = find(tmp_path)
    assert listing.entries == (
        Entry("a/x.mp4", "run", "train", {"fold": "1"}),
        Entry("a/y.mp4"),
        Entry("b/z.mp4", "sit", "val", {"fold": "2"}),
    )
    assert listing.notes == (
        f"l.csv: its column {column} is taken for the path; its column class is taken for the label; its column subset "
        "is taken for the split",
    )


def test_names_without_suffix_need_a_column_that_is_called_so(tmp_path: Path) -> None:
    put(tmp_path, *THREE)
    write(tmp_path / "l.csv", "video_id,label", "x,run", "z,sit")
    assert facts(find(tmp_path)) == {"a/x.mp4": ("run", None), "a/y.mp4": (None, None), "b/z.mp4": ("sit", None)}
    write(tmp_path / "l.csv", "whatever,label", "x,run", "z,sit")
    assert find(tmp_path).layout == "classes"


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
        Entry("a/x.mp4", "run", "train", {"who": "Ann"}),
        Entry("a/y.mp4", "run", "test", {"who": "Bob"}),
        Entry("b/z.mp4", "sit", "train", {"who": "Eve"}),
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


@pytest.mark.parametrize(
    ("name", "lines", "reason"),
    [
        ("train.json", ['{"a/x.mp4": 0,', ' "b/z.mp4": 1}'], "not in a form that is read"),
        ("concat.txt", ["file 'a/x.mp4'", "file 'b/z.mp4'"], "not in a form that is read"),
        ("train.csv", ["a/x.mp4::0", "b/z.mp4::1"], "not in a form that is read"),
        ("train.csv", ["0 a/x.mp4", "1 b/z.mp4"], "names no video that is there, but for example 0 a/x.mp4"),
        ("train.csv", ["0,a/x.mp4", "1,b/z.mp4"], "names videos behind something else, and has no header"),
        ("train.csv", ["a/x.mp4 0 3 5", "a/y.mp4 1", "b/z.mp4 1 2"], "its lines have 2 to 4 columns"),
        ("train.csv", ["a/x.mp4,a man runs,20", "b/z.mp4,a man sits,30"], "has 3 columns and no header that says"),
        ("train.csv", ["other/p.mp4 0", "other/q.mp4 1"], "names no video that is there, but for example other/p.mp4"),
        ("labels.xlsx", ["PK"], "may list videos, but is no text"),
        ("train.yml", ["run:", "- a/x.mp4", "sit:", "- b/z.mp4"], "not in a form that is read"),
    ],
)
def test_a_list_that_is_not_understood_is_named(tmp_path: Path, name: str, lines: list[str], reason: str) -> None:
    put(tmp_path, *THREE)
    write(tmp_path / name, *lines)
    listing = find(tmp_path)
    assert listing.layout == "classes"
    (note,) = listing.notes
    assert note.startswith(f"{tmp_path / name}: ")
    assert reason in note
    assert note.endswith("; it is not used (layout classes)")
    with pytest.raises(DataError, match=rf"^data\.root = {tmp_path / name}: "):
        find(tmp_path / name)


def test_texts_that_are_no_lists_are_not_mentioned(tmp_path: Path) -> None:
    put(tmp_path, *THREE, "a/w.mp4", "LICENSE")
    write(tmp_path / "README.txt", "a/x.mp4 shows a man.")
    write(tmp_path / "about.txt", "This is a path to nowhere,", "of a file that", "is called a/x.mp4", "by some.")
    write(tmp_path / "classInd.txt", "1 a", "2 b")
    write(tmp_path / "labels.csv", "id,name", "0,a", "1,b")
    write(tmp_path / "a/w.txt", "The man in a/w.mp4 runs.")  # a caption
    write(tmp_path / "empty.csv")
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)) * 300)
    listing = find(tmp_path)
    assert (listing.layout, listing.notes) == ("classes", ())


def test_lists_that_a_layout_does_not_use_are_named(ucf101: Path) -> None:
    names = ["UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi 0"]
    for number in range(5):
        write(ucf101 / f"list{number}.csv", *names)
    notes = find(ucf101).notes
    assert notes[:3] == tuple(
        f"{ucf101 / f'list{number}.csv'}: lists videos; it is not used (layout ucf101)" for number in range(3)
    )
    assert notes[3:] == ("2 more lists are not used, such as list4.csv",)


def test_a_damaged_list_stops_only_who_would_use_it(tmp_path: Path) -> None:
    put(tmp_path, *THREE)
    write(tmp_path / "train.csv", "path,label", 'a/x.mp4,"0', "b/z.mp4,1")
    with pytest.raises(DataError, match=r"train\.csv line 3: is not valid CSV"):
        find(tmp_path)
    assert find(tmp_path, layout="classes").notes[0].startswith(f"{tmp_path}/train.csv line 3: is not valid CSV")


# --- Names that are not quite those of files


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


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("A/X.MP4", "a/x.mp4"),
        ("a/x.avi", "a/x.mp4"),
        ("x.mp4", "a/x.mp4"),
        ("/somewhere/else/a/x.mp4", "a/x.mp4"),
        ("/a/x.mp4", "a/x.mp4"),
        (r"a\x.mp4", "a/x.mp4"),
        (r"D:\data\a\x.mp4", "a/x.mp4"),
        ("../a/x.mp4", "a/x.mp4"),
        ("caf\u00e9/x.mp4", "cafe\u0301/x.mp4"),
        ("/somewhere/x.mp4", "x.mp4"),
    ],
)
def test_names_that_can_mean_one_file_only(tmp_path: Path, name: str, path: str) -> None:
    put(tmp_path, path)
    write(tmp_path / "l.csv", "path,label", f"{name},run")
    listing = find(tmp_path)
    assert (facts(listing), listing.missing) == ({path: ("run", None)}, ())
    assert listing.notes == (
        f"listed names that are not quite those of their files: 1, such as {name} for {path}; "
        "matched without regard to case, suffix and folders in front",
    )
    assert find(tmp_path / "l.csv") == listing


@pytest.mark.parametrize(
    ("names", "paths"),
    [
        (["A/x.mp4", "a/X.mp4"], ["a/x.mp4"]),  # two names for one file
        (["A/x.mp4"], ["a/x.mp4", "a/X.mp4"]),  # two files for one name
        (["x.mp4"], ["a/x.mp4", "b/x.mp4"]),
        (["/elsewhere/b/x.mp4"], ["a/x.mp4"]),
        (["/elsewhere/b/x.mp4"], ["x.mp4", "a/y.mp4"]),  # where there are folders, one without says nothing
    ],
)
def test_names_that_can_mean_several_are_missing(tmp_path: Path, names: list[str], paths: list[str]) -> None:
    put(tmp_path, *paths)
    write(tmp_path / "l.csv", "path,label", *(f"{name},run" for name in names))
    listing = find(tmp_path)
    assert ({label for label, _ in facts(listing).values()}, listing.missing) == ({None}, tuple(sorted(names)))


def test_a_name_is_not_taken_from_the_file_that_bears_it(tmp_path: Path) -> None:
    put(tmp_path, "a/x.mp4")
    write(tmp_path / "l.csv", "path,label", "a/x.mp4,run", "A/x.mp4,sit")
    listing = find(tmp_path)
    assert (facts(listing), listing.missing) == ({"a/x.mp4": ("run", None)}, ("A/x.mp4",))


@pytest.mark.parametrize(("through", "named"), [("real", "real"), ("link", "link"), ("link", "real")])
def test_absolute_paths_below_a_linked_root(tmp_path: Path, through: str, named: str) -> None:
    put(tmp_path / "real", "a/x.mp4", "a/y.mp4")
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "real/l.csv", "path,label", f"{tmp_path / named}/a/x.mp4,run")
    listing = find(tmp_path / through)
    assert facts(listing) == {"a/x.mp4": ("run", None), "a/y.mp4": (None, None)}
    assert listing.notes == ()


# --- Classes and folders


def test_classes(tmp_path: Path) -> None:
    put(tmp_path, "run/a.mp4", "run/sub/b.MKV", "walk/a.avi", "walk/notes.txt")
    listing = find(tmp_path)
    assert listing.layout == "classes"
    assert facts(listing) == {"run/a.mp4": ("run", None), "run/sub/b.MKV": ("run", None), "walk/a.avi": ("walk", None)}


def test_classes_within_splits(tmp_path: Path) -> None:
    put(tmp_path, "train/run/a.mp4", "train/walk/b.mp4", "val/run/c.mp4", "test/walk/d.mp4")
    listing = find(tmp_path, test_share=0.5)  # which says nothing here: the splits are known
    assert listing.layout == "classes"
    assert facts(listing) == {
        "test/walk/d.mp4": ("walk", "test"),
        "train/run/a.mp4": ("run", "train"),
        "train/walk/b.mp4": ("walk", "train"),
        "val/run/c.mp4": ("run", "val"),
    }


SPELLINGS = [
    ("train", "valid", "test"),
    ("training", "validation", "testing"),
    ("TRAIN", "Val", "Test"),
    ("train", "dev", "test"),
    ("train_256", "val_256", "test_256"),
    ("k400_train", "k400_validate", "k400_test"),
    ("videos train", "videos valid", "videos test"),
    ("trainset", "valset", "testset"),
    ("train-480p", "val-480p", "test-480p"),
]


@pytest.mark.parametrize("names", SPELLINGS, ids="-".join)
@pytest.mark.parametrize(
    "location",
    ["{split}/{label}/a.mp4", "{label}/{split}/a.mp4", "set/{split}/{label}/a.mp4", "{split}/clips/{label}/a.mp4"],
)
def test_splits_by_their_usual_names(tmp_path: Path, names: tuple[str, str, str], location: str) -> None:
    wanted = {
        location.format(split=name, label=label): (label, split)
        for name, split in zip(names, ("train", "val", "test"), strict=True)
        for label in ("run", "walk")
    }
    put(tmp_path, *wanted, "__MACOSX/train/run/b.mp4", "__MACOSX/extra.mp4", f"{names[0]}/run/._a.mp4")
    assert (find(tmp_path).layout, facts(find(tmp_path)), find(tmp_path).notes) == ("classes", wanted, ())


def test_splits_without_classes(tmp_path: Path) -> None:
    put(tmp_path, "train/a.mp4", "test/b.mp4", "valid/c.mp4")
    wanted = {"test/b.mp4": (None, "test"), "train/a.mp4": (None, "train"), "valid/c.mp4": (None, "val")}
    assert (find(tmp_path).layout, facts(find(tmp_path))) == ("folder", wanted)
    put(tmp_path, "train/run/d.mp4")  # and the classes of some
    assert (find(tmp_path).layout, facts(find(tmp_path))) == ("classes", wanted | {"train/run/d.mp4": ("run", "train")})
    assert facts(find(tmp_path, layout="folder")) == wanted | {"train/run/d.mp4": (None, "train")}


@pytest.mark.parametrize("extra", ["extras/e.mp4", "eval/run/e.mp4", "e.mp4", "train_val/run/e.mp4"])
def test_what_lies_beside_several_splits_belongs_to_none(tmp_path: Path, extra: str) -> None:
    inside = ["train/run/a.mp4", "train/walk/b.mp4", "test/run/c.mp4"]
    put(tmp_path, *inside, extra)
    listing = find(tmp_path)
    assert facts(listing)[extra] == (None, None)
    assert {path: split for path, (_, split) in facts(listing).items() if split} == {
        path: path.partition("/")[0] for path in inside
    }
    (note,) = listing.notes
    assert note.startswith(f"videos beside the folders of splits (test, train): 1, such as {extra}; ")


@pytest.mark.parametrize("other", ["extras/e.mp4", "eval/run/e.mp4", "trainval/run/e.mp4", "bus/e.mp4"])
@pytest.mark.parametrize("wrapper", ["", "set/"])
def test_one_split_beside_other_folders_is_asked_about(tmp_path: Path, other: str, wrapper: str) -> None:
    """`train` may be a split or a kind of vehicle: neither is taken in silence."""
    put(tmp_path, f"{wrapper}test/run/a.mp4", f"{wrapper}test/walk/b.mp4", f"{wrapper}{other}")
    name = other.partition("/")[0]
    with pytest.raises(DataError, match=rf"folder test has the name of a split, and {name} beside it not.*= classes$"):
        find(tmp_path)
    listing = find(tmp_path, layout="classes")
    assert {label for label, _ in facts(listing).values()} == {"test", name}
    assert {split for _, split in facts(listing).values()} == {None}
    assert "all are taken for classes" in listing.notes[0]
    assert set(facts(find(tmp_path, layout="folder")).values()) == {(None, None)}
    assert "no split is taken from them" in find(tmp_path, layout="folder").notes[0]


def test_classes_that_are_called_as_splits_are(tmp_path: Path) -> None:
    put(tmp_path / "stations", "train station/a.mp4", "bus station/b.mp4", "test_drive/c.mp4")
    assert {split for _, split in facts(find(tmp_path / "stations")).values()} == {None}
    vehicles = ("bus", "train", "test")
    put(tmp_path / "vehicles", *(f"{split}/{label}/a.mp4" for split in ("train", "test") for label in vehicles))
    assert facts(find(tmp_path / "vehicles")) == {
        f"{split}/{label}/a.mp4": (label, split) for split in ("train", "test") for label in vehicles
    }
    put(tmp_path / "asked", "train/a.mp4", "test/b.mp4")
    listing = find(tmp_path / "asked", layout="classes")
    assert facts(listing) == {"test/b.mp4": ("test", None), "train/a.mp4": ("train", None)}
    assert "taken for classes" in listing.notes[0]


def test_folders_above_and_below_splits(tmp_path: Path) -> None:
    put(tmp_path, *(f"{label}/{split}/day{split}/a.mp4" for label in ("run", "walk") for split in ("train", "test")))
    listing = find(tmp_path)
    assert {label for label, _ in facts(listing).values()} == {"run", "walk"}
    assert "those above are the classes" in listing.notes[0]


def test_folders_that_all_lie_in_are_no_classes(tmp_path: Path) -> None:
    put(tmp_path, "set/clips/run/a.mp4", "set/clips/walk/b.mp4")
    assert facts(find(tmp_path)) == {"set/clips/run/a.mp4": ("run", None), "set/clips/walk/b.mp4": ("walk", None)}


@pytest.mark.parametrize(
    "videos",
    [["a.mp4", "run/b.mp4", "walk/c.mp4"], ["only/a.mp4", "only/b.mp4"], ["a.mp4"]],
)
def test_auto_takes_all_else_as_a_folder(tmp_path: Path, videos: list[str]) -> None:
    put(tmp_path, *videos)
    listing = find(tmp_path)
    assert listing.layout == "folder"
    assert facts(listing) == dict.fromkeys(videos, (None, None))


def test_classes_asked_for(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4")
    with pytest.raises(DataError, match="layout classes, but no video lies in a folder of its class"):
        find(tmp_path, layout="classes")
    put(tmp_path, "run/b.mp4")
    assert facts(find(tmp_path, layout="classes")) == {"a.mp4": (None, None), "run/b.mp4": ("run", None)}


def test_every_suffix_in_any_case_and_nothing_hidden(tmp_path: Path) -> None:
    put(
        tmp_path,
        *(f"{suffix}.{suffix.upper()}" for suffix in discover.SUFFIXES),
        *(f"b.{s}" for s in discover.SUFFIXES),
    )
    put(tmp_path, ".hidden.mp4", ".hidden/a.mp4", "._a.mp4", "mp4", "a.mp4.part", "a.txt", "lost+found/a.mp4")
    assert len(find(tmp_path).entries) == 2 * len(discover.SUFFIXES)
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


# --- The root


def test_no_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root is not set"):
        discover.find(DataConfig())
    with pytest.raises(DataError, match=r"data\.root = .*/gone: does not exist"):
        find(tmp_path / "gone")


def test_root_that_is_a_file(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4")
    write(tmp_path / "list.csv", "path", "a.mp4")
    with pytest.raises(DataError, match=r"a\.mp4: is a file; layout auto takes a folder"):
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


# --- Holding out


def classes(*counts: int) -> list[Entry]:
    return [Entry(f"c{c}/v{v}.mp4", f"c{c}") for c, count in enumerate(counts) for v in range(count)]


def test_hold_out_takes_its_share_of_each_class_on_average() -> None:
    held = discover.hold_out(classes(*[20] * 100), 0.2)
    assert {entry.split for entry in held} == {"train", "test"}
    assert 0.18 < sum(entry.split == "test" for entry in held) / len(held) < 0.22


@pytest.mark.parametrize("share", [0.001, 0.2, 0.5, 0.999])
def test_hold_out_leaves_two_sides_to_a_class_of_two(share: float) -> None:
    for entries in (classes(2), classes(3), classes(1)):
        held = [entry.split for entry in discover.hold_out(entries, share)]
        assert "train" in held
        assert ("test" in held) == (len(entries) > 1)


def test_hold_out_stays_when_other_files_come_and_go() -> None:
    few = {e.path: e.split for e in discover.hold_out(classes(*[30] * 20), 0.3)}
    more = {e.path: e.split for e in discover.hold_out(classes(*[60] * 40), 0.3)}
    assert few.items() <= more.items()
    larger = {e.path for e in discover.hold_out(classes(*[30] * 20), 0.4) if e.split == "test"}
    assert {path for path, split in few.items() if split == "test"} <= larger


def test_hold_out_is_the_same_everywhere() -> None:
    held = discover.hold_out(classes(8), 0.5)
    assert " ".join(str(entry.split) for entry in held) == "train train test test test test test test"


def test_hold_out_leaves_unlabelled_videos_alone_and_can_take_all() -> None:
    held = discover.hold_out([*classes(1, 3), Entry("x.mp4")], 1)
    assert [entry.split for entry in held] == ["test"] * 4 + [None]


def test_test_share_in_the_configuration(tmp_path: Path) -> None:
    put(tmp_path, *(entry.path for entry in classes(5, 5)))
    splits = facts(find(tmp_path, test_share=0.2))
    assert {split for _, split in splits.values()} == {"train", "test"}
    with pytest.raises(DataError, match=r"data\.test_share = 0\.2 .* layout folder tells no classes"):
        find(tmp_path, test_share=0.2, layout="folder")
