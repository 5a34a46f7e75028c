"""Every layout, with files that have the official names and lists in the official formats; no file is ever opened."""

from pathlib import Path
from typing import Any

import pytest

from cacl.config import DataConfig
from cacl.errors import DataError
from cacl.loaders import layouts
from cacl.loaders.layouts import Entry, Listing


def put(root: Path, *names: str) -> None:
    """Makes empty files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def write(file: Path, *lines: str, end: str = "\n") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes("".join(line + end for line in lines).encode())


def find(root: Path, **data: Any) -> Listing:
    return layouts.find(DataConfig(root=str(root), **data))


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
    with pytest.raises(DataError, match=r"data\.split = 3: no list named trainlist03\.txt .* of split 01, 02$"):
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
        "test/test4567890_000001_000011.mp4": (None, None),
        "train/-_aB3_01234_000007_000017.mp4": ('playing "the" harp', "train"),
        "train/abseiling/plainplain1.mkv": ("abseiling", "train"),
        "val/val4567890_000010_000020.mp4": ("abseiling", "test"),
    }
    assert listing.missing == ("gone_000003_000013.mp4",)


def test_kinetics_test_list_counts_where_there_is_no_validation(tmp_path: Path) -> None:
    kinetics(tmp_path, kinetics600_train=["a,one,0,10,train"], kinetics600_test=["a,two,0,10,test"])
    put(tmp_path, "one.mp4", "two.mp4")
    assert facts(find(tmp_path)) == {"one.mp4": ("a", "train"), "two.mp4": ("a", "test")}
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
        ("a,id,0,10,dev", r"train\.csv line 2: split 'dev' is none of train, test, val"),
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
        Entry("a/y.avi", "walk", "test", {"Actor": "Bob"}),
        Entry("z.bin", None, "test", {"Actor": ""}),
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
        (["path,split", "a.avi,dev"], r"list\.csv line 2: split 'dev' is none of train, test, val"),
        (["path,label", "a.avi,x", "a.avi,y"], r"list\.csv line 3: lists a\.avi with label y.*line 2 with label x"),
        (["path,label", "a.avi"], r"list\.csv line 2: has 1 cells under 2 columns"),
        (["path,label", ",x"], r"list\.csv line 2: the path is empty"),
        (["path,Label,label", "a.avi,x,y"], r"list\.csv: has two columns of one name"),
        (["file,label", "a.avi,x"], r"list\.csv: has no column `path`; its columns are file, label"),
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
    with pytest.raises(DataError, match=r"list\.csv: cannot be read as UTF-8 text"):
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
        "val/run/c.mp4": ("run", "test"),
    }


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    put(tmp_path, "test/a.mp4", "crash/b.mp4")
    assert facts(find(tmp_path)) == {"crash/b.mp4": ("crash", None), "test/a.mp4": ("test", None)}


@pytest.mark.parametrize(
    "videos",
    [["a.mp4", "run/b.mp4", "walk/c.mp4"], ["only/a.mp4", "only/b.mp4"], ["a.mp4"], ["train/a.mp4", "test/b.mp4"]],
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
    put(tmp_path, *(f"{suffix}.{suffix.upper()}" for suffix in layouts.SUFFIXES), *(f"b.{s}" for s in layouts.SUFFIXES))
    put(tmp_path, ".hidden.mp4", ".hidden/a.mp4", "._a.mp4", "mp4", "a.mp4.part", "a.txt", "lost+found/a.mp4")
    assert len(find(tmp_path).entries) == 2 * len(layouts.SUFFIXES)
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


# --- The root


def test_no_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root is not set"):
        layouts.find(DataConfig())
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
    held = layouts.hold_out(classes(*[20] * 100), 0.2)
    assert {entry.split for entry in held} == {"train", "test"}
    assert 0.18 < sum(entry.split == "test" for entry in held) / len(held) < 0.22


@pytest.mark.parametrize("share", [0.001, 0.2, 0.5, 0.999])
def test_hold_out_leaves_two_sides_to_a_class_of_two(share: float) -> None:
    for entries in (classes(2), classes(3), classes(1)):
        held = [entry.split for entry in layouts.hold_out(entries, share)]
        assert "train" in held
        assert ("test" in held) == (len(entries) > 1)


def test_hold_out_stays_when_other_files_come_and_go() -> None:
    few = {e.path: e.split for e in layouts.hold_out(classes(*[30] * 20), 0.3)}
    more = {e.path: e.split for e in layouts.hold_out(classes(*[60] * 40), 0.3)}
    assert few.items() <= more.items()
    larger = {e.path for e in layouts.hold_out(classes(*[30] * 20), 0.4) if e.split == "test"}
    assert {path for path, split in few.items() if split == "test"} <= larger


def test_hold_out_is_the_same_everywhere() -> None:
    held = layouts.hold_out(classes(8), 0.5)
    assert " ".join(str(entry.split) for entry in held) == "train train test test test test test test"


def test_hold_out_leaves_unlabelled_videos_alone_and_can_take_all() -> None:
    held = layouts.hold_out([*classes(1, 3), Entry("x.mp4")], 1)
    assert [entry.split for entry in held] == ["test"] * 4 + [None]


def test_test_share_in_the_configuration(tmp_path: Path) -> None:
    put(tmp_path, *(entry.path for entry in classes(5, 5)))
    splits = facts(find(tmp_path, test_share=0.2))
    assert {split for _, split in splits.values()} == {"train", "test"}
    with pytest.raises(DataError, match=r"data\.test_share = 0\.2 .* layout folder tells no classes"):
        find(tmp_path, test_share=0.2, layout="folder")
