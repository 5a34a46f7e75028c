"""Test videos that are drawn where nothing tells which they are."""

from pathlib import Path

import pytest

from cacl.errors import DataError
from cacl.loaders.catalog.layouts.hold_out import draw_validation, hold_out
from cacl.loaders.catalog.layouts.listing import VideoEntry
from tests.loaders.catalog.layouts.data_sets import facts, find, put


def classes(*counts: int) -> list[VideoEntry]:
    return [VideoEntry(f"c{c}/v{v}.mp4", f"c{c}") for c, count in enumerate(counts) for v in range(count)]


def test_hold_out_takes_its_share_of_each_class_on_average() -> None:
    held = hold_out(classes(*[20] * 100), 0.2)
    assert {entry.split for entry in held} == {"train", "test"}
    assert 0.18 < sum(entry.split == "test" for entry in held) / len(held) < 0.22


@pytest.mark.parametrize("share", [0.001, 0.2, 0.5, 0.999])
def test_hold_out_leaves_two_sides_to_a_class_of_two(share: float) -> None:
    for entries in (classes(2), classes(3), classes(1)):
        held = [entry.split for entry in hold_out(entries, share)]
        assert "train" in held
        assert ("test" in held) == (len(entries) > 1)


def test_hold_out_stays_when_other_files_come_and_go() -> None:
    few = {e.path: e.split for e in hold_out(classes(*[30] * 20), 0.3)}
    more = {e.path: e.split for e in hold_out(classes(*[60] * 40), 0.3)}
    assert few.items() <= more.items()
    larger = {e.path for e in hold_out(classes(*[30] * 20), 0.4) if e.split == "test"}
    assert {path for path, split in few.items() if split == "test"} <= larger


def test_hold_out_is_the_same_everywhere() -> None:
    held = hold_out(classes(8), 0.5)
    assert " ".join(str(entry.split) for entry in held) == "train train test test test test test test"


def test_hold_out_leaves_unlabelled_videos_alone_and_can_take_all() -> None:
    held = hold_out([*classes(1, 3), VideoEntry("x.mp4")], 1)
    assert [entry.split for entry in held] == ["test"] * 4 + [None]


def test_test_share_in_the_configuration(tmp_path: Path) -> None:
    put(tmp_path, *(entry.path for entry in classes(5, 5)))
    splits = facts(find(tmp_path, test_share=0.2))
    assert {split for _, split in splits.values()} == {"train", "test"}
    with pytest.raises(DataError, match=r"data\.test_share = 0\.2 .* layout folder tells no classes"):
        find(tmp_path, test_share=0.2, layout="folder")


def test_validation_videos_are_drawn_of_what_the_test_videos_leave() -> None:
    """The same hashes would draw nothing here: no training video has one below the share of the test videos."""
    left = {e.path: e.label or "" for e in hold_out(classes(*[40] * 20), 0.3) if e.split == "train"}
    drawn = draw_validation(left, 0.2)
    assert drawn < left.keys()
    assert abs(len(drawn) / len(left) - 0.2) < 0.04
    assert {left[path] for path in drawn} == set(left.values())
    few = {path: label for path, label in left.items() if path not in sorted(drawn)[::2]}
    assert draw_validation(few, 0.2) >= set(sorted(drawn)[1::2])
    assert draw_validation({"a.mp4": "x", "b.mp4": "x", "alone.mp4": "y"}, 0.5) < {"a.mp4", "b.mp4"}
