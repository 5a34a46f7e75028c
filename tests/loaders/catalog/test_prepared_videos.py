"""The videos of a prepared set: what went in comes out, a choice is a choice, and the fingerprint tells which."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cacl.errors import DataError
from cacl.loaders.catalog.index_writer import PreparedVideo
from cacl.loaders.catalog.layouts.hold_out import hold_out
from tests.loaders.catalog.prepared_sets import (
    ABOUT,
    MEMBERS,
    SPLITS,
    UNSPLIT,
    entry,
    facts,
    opened,
    prepared,
    record,
    write,
)


@pytest.mark.parametrize("split", [1, 2, 3])
def test_every_record_comes_back(tmp_path: Path, split: int) -> None:
    found = opened(write(tmp_path), split)
    wanted = [record(member, splits[split]) for member, splits in zip(MEMBERS, SPLITS, strict=True)]
    assert list(map(facts, found)) == list(map(facts, wanted))
    assert found.has_splits
    assert found.prepared_index.about == ABOUT
    assert found.prepared_index.folds == [1, 2, 3]
    with pytest.raises(DataError, match=r"^data\.fold = 4: the set was prepared with fold 1, 2, 3$"):
        opened(tmp_path, 4)


def test_sets_without_something(tmp_path: Path) -> None:
    """Without splits, without labels, of one video, and with as many tables as entries."""
    assert [video.split for video in opened(write(tmp_path, UNSPLIT))] == [None] * 7
    assert not opened(tmp_path).has_splits
    alone = [prepared(3, entry("a.mp4"))]
    assert list(map(facts, opened(write(tmp_path, alone)))) == [facts(alone[0].video)]
    many = [prepared(n, entry(f"{n}.mp4", f"class {n}", name=f"{n}")) for n in range(300)]
    assert list(map(facts, opened(write(tmp_path, many)))) == [facts(record(member, None)) for member in many]


def test_a_set_is_a_sequence(tmp_path: Path) -> None:
    found = opened(write(tmp_path))
    wanted = [record(member, splits[1]) for member, splits in zip(MEMBERS, SPLITS, strict=True)]
    assert len(found) == 7
    assert [found[n] for n in range(-7, 7)] == wanted + wanted
    for which in (7, -8, 10**9):
        with pytest.raises(IndexError):
            found[which]
    assert list(reversed(found)) == wanted[::-1]
    assert wanted[3] in found
    assert found.index(wanted[4]) == 4
    for some in (slice(2, 5), slice(None, None, -1), slice(-3, None), slice(5, 2), slice(0, 100, 3)):
        assert list(found[some]) == wanted[some]
    assert list(found[2:6][1:3]) == wanted[3:5]
    with pytest.raises(IndexError):
        found[2:4][2]


def test_choices(tmp_path: Path) -> None:
    found = opened(write(tmp_path), split=2)
    wanted = [record(member, splits[2]) for member, splits in zip(MEMBERS, SPLITS, strict=True)]
    for split in ("train", "test", "val"):
        assert list(found.of_split(split)) == [video for video in wanted if video.split == split]
    assert list(opened(write(tmp_path / "unsplit", UNSPLIT)).of_split("train")) == []
    for frames in sorted({0, 1, 10**6, *(video.frames for video in wanted)}):
        assert list(found.at_least(frames)) == [video for video in wanted if video.frames >= frames]
        assert list(found.shorter_than(frames)) == [video for video in wanted if video.frames < frames]
        together = found.at_least(frames).of_split("train")[::-1]
        assert list(together) == [v for v in wanted if v.frames >= frames and v.split == "train"][::-1]
        assert together.has_splits
    assert list(found) == wanted, "a choice leaves the whole alone"


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 1.0])
def test_held_out_as_from_the_sources(tmp_path: Path, share: float) -> None:
    members = UNSPLIT + [prepared(n, entry(f"run/{n}.mp4", "run")) for n in range(40)]
    wanted = hold_out([member.entry for member in members], share)
    found = opened(write(tmp_path, members), test_share=share)
    assert [(video.label, video.split) for video in found] == [(entry.label, entry.split) for entry in wanted]
    assert found.has_splits
    assert list(found.of_split("test")) == [video for video in found if video.split == "test"]
    # Lists that tell splits are not overruled.
    assert list(opened(write(tmp_path), test_share=share)) == list(opened(tmp_path))


def test_nothing_to_hold_out_of(tmp_path: Path) -> None:
    unlabelled = [prepared(n, entry(f"{n}.mp4")) for n in range(4)]
    with pytest.raises(DataError, match=r"^data\.test_share = 0\.2 holds out videos of each class, but the set tells"):
        opened(write(tmp_path, unlabelled), test_share=0.2)


CHANGES: list[Callable[[PreparedVideo], PreparedVideo]] = [
    lambda p: replace(p, video=replace(p.video, content_hash="00" * 16)),
    lambda p: replace(p, video=replace(p.video, frames=p.video.frames + 1)),
    lambda p: replace(p, video=replace(p.video, width=2)),
    lambda p: replace(p, video=replace(p.video, path="videos/other.mp4")),
    lambda p: replace(p, entry=p.entry._replace(label="stand")),
    lambda p: replace(p, entry=p.entry._replace(label=None)),
    lambda p: replace(p, entry=p.entry._replace(attributes={"who": "Eve"})),
    lambda p: replace(p, entry=p.entry._replace(attributes={"whom": "Ann"})),
    lambda p: replace(p, splits={1: "test", 2: None, 3: None}),
    lambda p: replace(p, splits={1: "val", 2: None, 3: None}),
    lambda p: replace(p, splits={1: None, 2: None, 3: None}),
]


def test_the_fingerprint_tells_what_decides_samples(tmp_path: Path) -> None:
    first = prepared(1, entry("b.mp4", "run", who="Ann"), {1: "train", 2: None, 3: None})
    found = opened(write(tmp_path, [first]))
    seen = {found.fingerprint}
    for number, change in enumerate(CHANGES):
        seen.add(opened(write(tmp_path, [change(first)])).fingerprint)
        assert len(seen) == number + 2, number
    assert seen.isdisjoint({opened(write(tmp_path)).fingerprint})


def test_the_fingerprint_tells_which_were_chosen(tmp_path: Path) -> None:
    found = opened(write(tmp_path))
    shares = [opened(write(tmp_path / "unsplit", UNSPLIT), test_share=share) for share in (0.0, 0.1, 0.9)]
    choices = [found, opened(tmp_path, 2), *shares, found[1:], found[::-1], found.of_split("train"), found.at_least(20)]
    assert len({choice.fingerprint for choice in choices}) == len(choices)
    assert found.at_least(1).fingerprint == found[:].fingerprint == opened(tmp_path).fingerprint


def test_the_fingerprint_tells_nothing_else(tmp_path: Path) -> None:
    """Neither where the set lies, nor what is not in it."""
    found = opened(write(tmp_path / "a"))
    other: dict[str, object] = {**ABOUT, "rejected": [], "settings": {"crf": 20}}
    assert opened(write(tmp_path / "b", about=other)).fingerprint == found.fingerprint
    assert opened(shutil.copytree(tmp_path / "a", tmp_path / "c")).fingerprint == found.fingerprint
