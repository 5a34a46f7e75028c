"""Lists of videos in any form that others write them, and those that are not understood."""

from pathlib import Path

import pytest

from cacl.errors import DataError
from cacl.loaders.catalog.layouts.listing import VideoEntry
from tests.loaders.catalog.layouts.data_sets import THREE, facts, find, put, write


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


@pytest.mark.parametrize("column", ["filename", "Video", "video_path", "file", "clip", "anything"])
def test_other_names_of_columns(tmp_path: Path, column: str) -> None:
    put(tmp_path, *THREE)
    write(tmp_path / "l.csv", f"{column},fold,class,subset", "a/x.mp4,1,run,training", "b/z.mp4,2,sit,validation")
    listing = find(tmp_path)
    assert listing.entries == (
        VideoEntry("a/x.mp4", "run", "train", {"fold": "1"}),
        VideoEntry("a/y.mp4"),
        VideoEntry("b/z.mp4", "sit", "val", {"fold": "2"}),
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
