"""Scanning folders of real, small videos: what is accepted, and what is rejected and why."""

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cacl.clips import VideoRecord
from cacl.config import DataConfig
from cacl.errors import DataError
from cacl.loaders.catalog import scan as scanning
from cacl.loaders.catalog.catalog import Rejected
from cacl.loaders.catalog.scan import scan
from tests.loaders.catalog.scans import UNUSABLE, scan_folder

MakeVideo = Callable[..., Path]


def test_every_file_is_accepted_or_rejected_with_a_reason(root: Path) -> None:
    found = scan_folder(root)
    assert {v.path: (v.frames, v.width, v.height, v.rate, v.codec, v.label) for v in found.videos} == {
        "run/a.mp4": (30, 64, 48, 25.0, "h264", "run"),
        "run/b.avi": (20, 80, 48, 10.0, "mpeg4", "run"),
        "walk/c.webm": (25, 64, 48, 25.0, "vp9", "walk"),
        "walk/short.mp4": (4, 64, 48, 25.0, "h264", "walk"),
    }
    reasons = dict(found.rejected)
    assert list(reasons) == UNUSABLE
    assert reasons["walk/empty.mp4"] == "is empty (0 bytes)"
    assert reasons["walk/text.mp4"].startswith("cannot be opened as a video (")
    assert reasons["run/cut.mp4"].startswith("cannot be opened as a video (")  # its index is at its end
    assert "of 40 frames" in reasons["run/cut_behind_its_index.mp4"]
    assert found.layout == "classes"
    assert found.location(found.videos[0]) == root / "run/a.mp4"
    chosen = replace(found, missing=("x.avi",)).of_split("train")
    assert (chosen.rejected, chosen.missing) == ((), ())  # a choice of videos is not the place to tell of them


def test_files_that_are_no_files(good: Path) -> None:
    (good / "run/dangling.mp4").symlink_to("nowhere")
    os.mkfifo(good / "run/pipe.mp4")
    os.mkfifo(good / "run/list.txt")  # It might be a list, and whoever read it would wait for ever.
    assert scan_folder(good).rejected == (
        Rejected("run/dangling.mp4", "cannot be read (No such file or directory)"),
        Rejected("run/pipe.mp4", "is not a regular file"),
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 8), (8, 1)])
def test_videos_without_room_for_a_crop(tmp_path: Path, make_video: MakeVideo, size: tuple[int, int]) -> None:
    make_video(tmp_path / "root/line.webm", frames=3, size=size, codec="libvpx-vp9")
    make_video(tmp_path / "root/small.webm", frames=3, size=(2, 3), codec="libvpx-vp9")
    found = scan_folder(tmp_path / "root")
    assert found.rejected == (Rejected("line.webm", f"is {size[0]} x {size[1]} pixels; a crop needs 2 on each side"),)
    assert [(video.width, video.height) for video in found.videos] == [(2, 3)]


def test_file_name_that_is_not_text(good: Path, make_video: MakeVideo) -> None:
    odd = make_video(good / "run/odd.mp4").rename(os.fsdecode(os.fsencode(good / "run/caf") + b"\xe9.mp4"))
    for _ in range(2):  # from the file, then from the cache
        found = scan_folder(good)
        assert odd in [found.location(video) for video in found.videos]
        assert found.fingerprint


def test_progress_counts_every_file(root: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    for _ in range(2):
        config = DataConfig(root=str(root), cache=str(root.parent / "cache"))
        scan(config, threads=3, progress=lambda *call: calls.append(call))
    paths = sorted(str(path.relative_to(root)) for path in root.rglob("*.*"))
    assert calls == [(done, 8, path) for done, path in enumerate(paths, 1)] * 2


def test_too_short_for_a_clip(good: Path) -> None:
    config = DataConfig(root=str(good), cache=str(good.parent / "cache"))
    found = scan(config, min_frames=16)
    assert found.rejected == (Rejected("walk/short.mp4", "has 4 frames; a clip needs 16"),)
    assert len(scan(config, min_frames=4).videos) == 4  # shortness is not cached
    with pytest.raises(
        DataError,
        match=r"too short; the longest, run/a\.mp4, has 30 frames, .* 31 \(clip\.frames, clip\.min_remaining_frames\)$",
    ):
        scan(config, min_frames=31)


def test_no_root_and_no_videos(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        scan_folder(tmp_path / "root")
    (tmp_path / "root").mkdir()
    with pytest.raises(DataError, match=r"holds no video \(looked for \.avi"):
        scan_folder(tmp_path / "root")


@pytest.mark.parametrize("threads", [1, 3])
def test_so_many_files_are_decoded_at_once(good: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    original, lock, now, most = scanning.probe, threading.Lock(), 0, 0
    together = threading.Barrier(threads)

    def counted(file: Path) -> VideoRecord:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        if file.name in ("a.mp4", "b.avi", "c.webm"):
            together.wait(20)
        video = original(file)
        with lock:
            now -= 1
        return video

    monkeypatch.setattr(scanning, "probe", counted)
    scan(DataConfig(root=str(good), cache=str(good.parent / "cache")), threads=threads)
    assert most == threads


def test_our_own_mistakes_name_the_file(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistake(file: Path) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(scanning, "probe", mistake)
    with pytest.raises(ZeroDivisionError) as raised:
        scan(DataConfig(root=str(good), cache=str(good.parent / "cache")), threads=1)
    assert raised.value.__notes__ == [f"while probing {good / 'run/a.mp4'}"]
