"""Listed names that are not quite those of files."""

from pathlib import Path

import pytest

from tests.loaders.catalog.layouts.data_sets import facts, find, put, write


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
