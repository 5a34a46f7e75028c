"""What a scan remembers, and when it looks again."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest

from cacl.clips import SeekPoint, VideoRecord
from cacl.config import DataConfig
from cacl.errors import DataError
from cacl.loaders.catalog import scan as scanning
from cacl.loaders.catalog.scan import scan
from tests.loaders.catalog.scans import forbid_decoding, scan_folder

MakeVideo = Callable[..., Path]


def test_a_second_scan_decodes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = scan_folder(root)
    forbid_decoding(monkeypatch)
    assert scan_folder(root) == first


def test_the_cache_keeps_all_that_a_probe_finds(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever field is not what it mostly is."""
    plain = VideoRecord(path="", frames=30, declared_frames=0, rate=1.0, width=2, height=2, codec="")
    found = replace(
        plain,
        declared_frames=31,
        rate=30000 / 1001,
        width=63,
        height=47,
        codec="vp9",
        content_hash="ab" * 16,
        mirrored=True,
        rotation=270,
        undecodable_frames=3,
        incomplete_packets=4,
        video_streams=2,
        pixel_aspect=8 / 9,
        seek_points=(SeekPoint(12, -3, -5), SeekPoint(24, 2**40, 2**40)),
    )
    of_lists = {"path", "label", "split", "attributes", "fragments", "frames"}
    for field in fields(VideoRecord):
        assert (getattr(found, field.name) == getattr(plain, field.name)) == (field.name in of_lists), field.name
    with monkeypatch.context() as patch:
        patch.setattr(scanning, "probe", lambda file: found)
        first = scan_folder(good)
    forbid_decoding(monkeypatch)
    for videos in (first.videos, scan_folder(good).videos):
        assert [replace(video, path="", label=None) for video in videos] == [found] * 4


def test_a_root_and_a_link_to_it_share_a_cache(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scan_folder(good)
    (good.parent / "link").symlink_to(good)
    forbid_decoding(monkeypatch)
    assert scan_folder(good.parent / "link").fingerprint == found.fingerprint


def test_what_is_found_is_saved_on_the_way(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long scan may be killed."""
    monkeypatch.setattr(scanning, "SAVE_EVERY_SECONDS", 0)
    cache, sizes = good.parent / "cache", list[int]()

    def look_there(done: int, total: int, path: str) -> None:
        sizes.append(sum(file.stat().st_size for file in cache.glob("*")))

    scan(DataConfig(root=str(good), cache=str(cache)), threads=1, progress=look_there)
    assert 0 < sizes[0] < sizes[1] < sizes[2] < sizes[3]


def test_the_cache_goes_by_size_and_time(good: Path, make_video: MakeVideo) -> None:
    before = scan_folder(good)
    file = good / "run/a.mp4"
    status = file.stat()
    file.write_bytes(bytes(status.st_size))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert scan_folder(good) == before
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert [path for path, _ in scan_folder(good).rejected] == ["run/a.mp4"]
    make_video(file, frames=12)
    assert scan_folder(good).videos[0].frames == 12


def test_the_cache_serves_new_files_and_lists(
    good: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan_folder(good)
    make_video(good / "run/new.mp4", frames=7)
    probed: list[Path] = []
    original = scanning.probe
    monkeypatch.setattr(scanning, "probe", lambda file: probed.append(file) or original(file))
    (good / "list.csv").write_text("path,label\nrun/new.mp4,new\nrun/a.mp4,other\n")
    found = scan(DataConfig(root=str(good / "list.csv"), cache=str(good.parent / "cache")))
    assert {v.label for v in found.videos} == {"new", "other"}
    assert probed == [good / "run/new.mp4"]
    assert len(scan_folder(good).videos) == 5  # the scan of the list has not thrown the other files out
    assert probed == [good / "run/new.mp4"]


def test_roots_do_not_share_a_cache(good: Path) -> None:
    scan_folder(good)
    other = shutil.copytree(good, good.parent / "other")
    (other / "run/a.mp4").unlink()
    assert len(scan_folder(other).videos) == 3
    assert len(list((good.parent / "cache").iterdir())) == 2  # and nothing temporary is left


@pytest.mark.parametrize("damage", [b"", b"garbage", b"[]", b"\xff\x00" * 100, None])
def test_damaged_cache(good: Path, damage: bytes | None) -> None:
    before = scan_folder(good)
    (cache,) = (good.parent / "cache").iterdir()
    whole = cache.read_bytes()
    cache.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert scan_folder(good) == before
    assert cache.read_bytes() == whole


def test_cache_with_one_digit_changed(good: Path) -> None:
    before = scan_folder(good)
    (cache,) = (good.parent / "cache").iterdir()
    cache.write_bytes(cache.read_bytes().replace(b'"frames":30', b'"frames":90'))
    assert scan_folder(good) == before


SCAN_AGAIN = """
import sys, av
major, minor, micro = av.library_versions["libavcodec"]
av.library_versions["libavcodec"] = (major, minor, micro + (sys.argv[3] == "another"))
from cacl.config import DataConfig
from cacl.loaders.catalog.scan import scan
print([path for path, _ in scan(DataConfig(root=sys.argv[1], cache=sys.argv[2])).rejected])
"""


def test_another_decoder_looks_again(good: Path) -> None:
    """A file is overwritten in a way that a cache does not see: only who decodes it again finds out."""
    scan_folder(good)
    file, cache = good / "run/a.mp4", good.parent / "cache"
    status = file.stat()
    file.write_bytes(bytes(status.st_size))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    for version, rejected in (("the same", []), ("another", ["run/a.mp4"])):
        command = [sys.executable, "-c", SCAN_AGAIN, str(good), str(cache), version]
        finished = subprocess.run(command, capture_output=True, text=True, check=True)
        assert finished.stdout.strip() == str(rejected), version


def test_cache_that_cannot_be_written(good: Path) -> None:
    (good.parent / "cache").write_text("a file where the folder should be")
    assert len(scan_folder(good).videos) == 4


def test_cache_that_is_a_folder(good: Path) -> None:
    scan_folder(good)
    (cache,) = (good.parent / "cache").iterdir()
    cache.unlink()
    cache.mkdir()
    assert len(scan_folder(good).videos) == 4
    assert [path.name for path in (good.parent / "cache").iterdir()] == [cache.name]


def test_cache_of_the_user(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    scan(DataConfig(root=str(good)))
    assert len(list((tmp_path / "xdg/cacl").iterdir())) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    scan(DataConfig(root=str(good)))
    assert len(list((tmp_path / "home/.cache/cacl").iterdir())) == 1


def test_passing_trouble_is_not_cached(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_permission(file: Path) -> None:
        try:
            raise PermissionError(13, "Permission denied")
        except PermissionError:
            raise DataError("cannot be opened as a video (Permission denied)") from None

    with monkeypatch.context() as patch:
        patch.setattr(scanning, "probe", no_permission)
        assert len(scan_folder(good).rejected) == 4
    assert len(scan_folder(good).videos) == 4


def test_an_interrupted_scan_goes_on_where_it_was(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(done: int, total: int, path: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    config = DataConfig(root=str(good), cache=str(good.parent / "cache"))
    with pytest.raises(KeyboardInterrupt):
        scan(config, threads=1, progress=interrupt)
    probed: list[str] = []
    original = scanning.probe
    monkeypatch.setattr(scanning, "probe", lambda file: probed.append(file.name) or original(file))
    assert len(scan(config).videos) == 4
    assert sorted(probed) == ["c.webm", "short.mp4"]
