"""Which videos an evaluation takes, by splits and labels."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from cacl.clips import VideoRecord
from cacl.errors import DataError
from cacl.evaluation.videos import video_labels, videos_of_split
from cacl.loaders.catalog.catalog import Catalog


def catalog(*videos: tuple[str | None, str | None]) -> Catalog:
    """A catalog of videos with these splits and labels."""
    records = [
        VideoRecord(
            path=f"{number}.mp4",
            frames=8,
            declared_frames=8,
            rate=25.0,
            width=32,
            height=24,
            codec="h264",
            label=label,
            split=split,
            attributes={"who": "Ann"} if number % 2 else {},
        )
        for number, (split, label) in enumerate(videos)
    ]
    return Catalog(root=Path("/set"), layout="csv", videos=tuple(records), rejected=(), missing=())


def test_videos_of_a_split() -> None:
    videos = catalog(("train", "a"), ("val", "a"), (None, None), ("train", "b"), ("test", "a"))
    assert [videos_of_split(videos, split) for split in ("train", "val", "test")] == [[0, 3], [1], [4]]


@pytest.mark.parametrize(
    ("splits", "wanted", "message"),
    [
        (["train", "val", "val"], "test", "to the test split, .*; --queries val takes the 2 validation videos$"),
        (["train", "test"], "val", "to the validation split, .*; --queries test takes the 1 test videos$"),
        (["test", "val"], "train", "to the training split, .*; there are test, val: .* a list or a folder"),
        (["train"], "test", "to the test split, .*; there are train: .* a list or a folder"),
        ([None], "test", "to the test split, .*hold some videos out with --set data.test_share=0.25$"),
    ],
)
def test_a_split_that_is_not_there(splits: list[str | None], wanted: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"^/set: no usable video belongs {message}"):
        videos_of_split(catalog(*((split, "a") for split in splits)), wanted)


def test_labels_are_asked_of_queries_and_gallery_only() -> None:
    videos = catalog(("train", "a"), (None, None), ("val", "b"), ("test", None), ("train", "b"))
    assert video_labels(videos, "label", [2], [0, 4]) == ["a", "", "b", "", "b"]
    with pytest.raises(DataError, match=r"^/set: 1 of 1 test videos have no 'label', 3\.mp4 .*; --queries val takes"):
        video_labels(videos, "label", [3], [0, 4])
    with pytest.raises(DataError, match=r"^/set: 2 of 2 training videos have no 'who', 0\.mp4 among them$"):
        video_labels(videos, "who", [3], [0, 4])
    with pytest.raises(DataError, match=r"^/set: 1 of 2 videos have no 'label', 1\.mp4 among them$"):
        video_labels(videos, "label", [1, 2], [0, 4])
    with pytest.raises(DataError, match=r"^/set: its videos have no 'whom'; the columns of its lists are who$"):
        video_labels(videos, "whom", [2], [0, 4])


def test_labels_that_tell_nothing_are_noted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    videos = catalog(("train", "a"), ("train", "a"), ("test", "a"), ("test", "b"), ("train", "b"))
    video_labels(videos, "label", [2], [0, 1])
    video_labels(videos, "label", [2, 3], [0, 1, 4])
    assert caplog.messages == ["note: every video that is learnt from has the label 'a': scores by it tell nothing"]
    caplog.clear()
    other = catalog(("train", "a"), ("train", "c"), ("test", "a"), ("test", "b"))
    video_labels(other, "label", [2, 3], [0, 1])
    assert caplog.messages == [
        "note: 1 of 2 videos that are judged have a label that no training video has, and count as wrong, "
        "3.mp4 among them"
    ]
