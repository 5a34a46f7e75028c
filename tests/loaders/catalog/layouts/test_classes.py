"""Folders of classes and of splits."""

from pathlib import Path

import pytest

from cacl.errors import DataError
from tests.loaders.catalog.layouts.data_sets import facts, find, put


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


def test_classes_asked_for(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4")
    with pytest.raises(DataError, match="layout classes, but no video lies in a folder of its class"):
        find(tmp_path, layout="classes")
    put(tmp_path, "run/b.mp4")
    assert facts(find(tmp_path, layout="classes")) == {"a.mp4": (None, None), "run/b.mp4": ("run", None)}
