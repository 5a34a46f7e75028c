"""Where decoding starts, for raw and for prepared videos."""

from __future__ import annotations

import numpy as np

from cacl.clips import Fragments, SeekPoint, VideoRecord

POINTS = (SeekPoint(12, 1200, 1200), SeekPoint(24, 2400, 2350))
RAW = VideoRecord(
    path="a.mp4", frames=40, declared_frames=40, rate=25, width=64, height=48, codec="h264", seek_points=POINTS
)
FRAGMENTS = Fragments(
    init_segment=b"head",
    first_frames=np.array([0, 16, 32], np.int32),
    offsets=np.array([4, 10, 20, 30], np.int64),
    checksums=np.zeros(3, np.uint32),
)
PREPARED = VideoRecord(
    path="a.mp4.mp4", frames=40, declared_frames=40, rate=25, width=64, height=48, codec="h264", fragments=FRAGMENTS
)


def test_the_last_seek_point_is_at_or_before_a_frame() -> None:
    expected = [None] * 12 + [POINTS[0]] * 12 + [POINTS[1]] * 16
    assert [RAW.last_seek_point(frame) for frame in range(40)] == expected


def test_decoding_of_a_raw_video_starts_at_a_seek_point_or_at_the_first_frame() -> None:
    assert [RAW.decoding_start(frame) for frame in range(40)] == [0] * 12 + [12] * 12 + [24] * 16
    assert RAW.decoding_starts() == [0, 12, 24]


def test_decoding_of_a_prepared_video_starts_at_the_first_frame_of_a_fragment() -> None:
    assert [FRAGMENTS.position_of(frame) for frame in range(40)] == [0] * 16 + [1] * 16 + [2] * 8
    assert [PREPARED.decoding_start(frame) for frame in range(40)] == [0] * 16 + [16] * 16 + [32] * 8
    assert PREPARED.decoding_starts() == [0, 16, 32]
