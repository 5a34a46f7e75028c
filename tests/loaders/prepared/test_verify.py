"""Verification: prepared videos that are not what their sources are, are found."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cacl.loaders.prepared.target import prepared_path
from cacl.loaders.prepared.verify import VerificationError, verify
from tests.loaders.prepared.prepared_sets import GOOD, remux, run

MakeVideo = Callable[..., Path]


def test_clips_are_compared(location: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    summary = run(location / "source", location / "target")
    verified = verify(summary, 12, progress=lambda *call: calls.append(call))
    assert [call[:2] for call in calls] == [(number, 12) for number in range(1, 13)]
    assert {path for *_, path in calls} == set(GOOD)
    assert verified.clips == 12
    assert 30 < (verified.lowest_psnr_db or 0) < (verified.median_psnr_db or 0) < 60
    assert verify(summary, 12, progress=lambda *_: None) == verified


def test_damage_is_found(location: Path) -> None:
    summary = run(location / "source", location / "target")
    for path in GOOD:
        file = location / "target" / prepared_path(path)
        content = bytearray(file.read_bytes())
        content[-20] ^= 1
        file.write_bytes(content)
    with pytest.raises(VerificationError, match=rf"^{location}/target/videos/.*: is damaged at byte") as raised:
        verify(summary, 12, progress=lambda *_: None)
    assert raised.value.exit_code == 3


@pytest.mark.parametrize(
    ("path", "size", "skipped", "message"),
    [
        ("run/a.mp4", (80, 64), 1, r"run/a\.mp4\.mp4: frame \d+ is frame \d+ of run/a\.mp4$"),
        ("run/a.mp4", (80, 64), 40, r"run/a\.mp4\.mp4: frame \d+ is far from that of run/a\.mp4 \(PSNR \d+\.\d dB\)$"),
        ("walk/a.mp4", (64, 48), 1, r"walk/a\.mp4\.mp4: frame \d+ was copied from walk/a\.mp4, but is not the same$"),
        ("walk/a.mp4", None, 0, r"source/walk/a\.mp4: cannot be compared with any more \(is empty"),
    ],
)
def test_other_frames_are_found(
    location: Path, make_video: MakeVideo, path: str, size: tuple[int, int] | None, skipped: int, message: str
) -> None:
    """The set stands for one whose frames are off: its source is exchanged for one that begins later."""
    summary = run(location / "source", location / "target")
    if size:
        remux(
            make_video(location / "longer.mp4", frames=60, size=size, gop=1), location / "source" / path, skip=skipped
        )
    else:
        (location / "source" / path).write_bytes(b"")
    with pytest.raises(VerificationError, match=message):
        verify(summary, 12, progress=lambda *_: None)


def test_frames_that_are_one_too_early_are_found(location: Path, make_video: MakeVideo) -> None:
    """As above, but the other way round: what was prepared begins later than what is there now."""
    path, longer = location / "source/run/a.mp4", make_video(location / "longer.mp4", frames=60, size=(80, 64), gop=1)
    remux(longer, path, skip=1)
    summary = run(location / "source", location / "target")
    shutil.copy(longer, path)
    with pytest.raises(VerificationError, match=r"run/a\.mp4\.mp4: frame (\d+) is frame \d+ of run/a\.mp4$") as raised:
        verify(summary, 12, progress=lambda *_: None)
    (prepared, found) = map(int, re.findall(r"frame (\d+)", str(raised.value)))
    assert found == prepared + 1


def test_an_index_that_counts_wrong_is_found(tmp_path: Path, make_video: MakeVideo) -> None:
    """The GOPs of the set are in order, but from the second on each holds other frames than it says."""
    make_video(tmp_path / "source/a.avi", frames=60, codec="mpeg4")
    summary = run(tmp_path / "source", tmp_path / "target")
    (video,) = summary.catalog.videos
    assert video.fragments is not None
    verify(summary, 3, progress=lambda *_: None)
    first = video.fragments.first_frames.copy()
    first[1:] -= 1
    counted = replace(video, fragments=video.fragments._replace(first_frames=first))
    wrong = replace(summary, catalog=replace(summary.catalog, videos=(counted,)))
    with pytest.raises(VerificationError, match=r"frames \[.*\] are others when the whole file is decoded$"):
        verify(wrong, 3, progress=lambda *_: None)
