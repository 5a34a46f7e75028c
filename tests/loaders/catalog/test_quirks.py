"""What is unusual about usable videos is told, by scan and by prepare, once for each kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cacl.clips import SeekPoint, VideoRecord
from cacl.config import DataConfig
from cacl.loaders.catalog.quirks import SLOW_FRAMES, find_quirks, find_slow_seeking, summarize_quirks
from cacl.loaders.catalog.scan import scan
from cacl.loaders.prepared.prepare import prepare
from cacl.loaders.prepared.transcode import TranscodeSettings
from tests.loaders.decode import streams

MakeVideo = Callable[..., Path]


def record(frames: int = 10, **facts: Any) -> VideoRecord:
    size: Any = {"width": 64, "height": 48}
    return VideoRecord(path="a.mp4", frames=frames, declared_frames=frames, rate=25, codec="h264", **size, **facts)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, []),
        ({"pixel_aspect": 224 / 225}, []),
        ({"undecodable_frames": 19}, ["starts between key frames: its first 19 frames do not decode, nor count"]),
        ({"incomplete_packets": 2}, ["has gaps, says its container (at 2 packets): frames may be missing"]),
        ({"video_streams": 3}, ["holds 3 video streams: that of 64 x 48 is used"]),
        ({"pixel_aspect": 16 / 11}, ["has pixels 1.45 times as wide as high: they are taken as square"]),
    ],
)
def test_quirks(facts: dict[str, Any], expected: list[str]) -> None:
    assert list(find_quirks(record(**facts)).values()) == expected


def test_long_ways_to_a_clip_are_told() -> None:
    points = [SeekPoint(frame, frame, frame) for frame in (100, 100 + SLOW_FRAMES, 105 + SLOW_FRAMES)]
    assert not find_slow_seeking(record(SLOW_FRAMES - 1))
    assert f"has {SLOW_FRAMES} frames in a row" in find_slow_seeking(record(SLOW_FRAMES))["seeking"]
    assert find_slow_seeking(record(2 * SLOW_FRAMES, seek_points=points))
    assert not find_slow_seeking(record(SLOW_FRAMES + 50, seek_points=points[:1]))


def test_one_note_for_each_kind() -> None:
    found = [("a", {"x": "is odd"}), ("b", {}), ("c", {"x": "is odd too", "y": "is rare"}), ("d", {"x": "is odd"})]
    assert summarize_quirks(found) == ("a is odd (2 more of this kind)", "c is rare")


def test_scan_and_prepare_tell_the_same(make_video: MakeVideo, tmp_path: Path) -> None:
    whole = make_video(tmp_path / "whole.mp4", frames=60, gop=24)
    for name in ("a", "b"):
        (tmp_path / "videos").mkdir(exist_ok=True)
        streams.starting_at(whole, tmp_path / f"videos/{name}.mp4", 5)
    make_video(tmp_path / "videos/wide.mp4", options={"aspect": "2"})
    source = DataConfig(root=str(tmp_path / "videos"), cache=str(tmp_path / "cache"))
    expected = (
        "a.mp4 starts between key frames: its first 19 frames do not decode, nor count (1 more of this kind)",
        "wide.mp4 has pixels 2 times as wide as high: they are taken as square",
    )
    for _ in range(2):  # probed, and from the cache
        assert scan(source).notes == expected
    for _ in range(2):  # made, and from the log
        summary = prepare(source, tmp_path / "set", TranscodeSettings(), workers=1, progress=lambda *_: None)
        assert summary.catalog.notes == expected
