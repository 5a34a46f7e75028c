"""Scanning folders of real, small videos: what is accepted, what is rejected and why, and what the cache remembers."""

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest

from cacl.clips import SeekPoint, VideoRecord
from cacl.config import DataConfig
from cacl.errors import DataError
from cacl.loaders.catalog import scan as catalog
from cacl.loaders.catalog.catalog import Catalog, Rejected
from cacl.loaders.catalog.layouts.discover import discover_videos
from cacl.loaders.catalog.scan import scan

MakeVideo = Callable[..., Path]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory, make_video: MakeVideo) -> Path:
    """Two classes, three containers, and one file of each kind that cannot be used."""
    root = tmp_path_factory.mktemp("originals")
    make_video(root / "run/a.mp4", frames=30, size=(64, 48), bframes=2)
    make_video(root / "run/b.avi", frames=20, size=(80, 48), codec="mpeg4", rate=10)
    make_video(root / "walk/c.webm", frames=25, codec="libvpx-vp9")
    make_video(root / "walk/short.mp4", frames=4)
    (root / "walk/empty.mp4").touch()
    (root / "walk/text.mp4").write_text("not a video at all\n" * 20)
    cut(make_video(root / "run/cut.mp4", frames=40))
    cut(make_video(root / "run/cut_behind_its_index.mp4", frames=40, muxer={"movflags": "faststart"}))
    return root


BAD = ["run/cut.mp4", "run/cut_behind_its_index.mp4", "walk/empty.mp4", "walk/text.mp4"]


def cut(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])


@pytest.fixture
def root(originals: Path, tmp_path: Path) -> Path:
    return shutil.copytree(originals, tmp_path / "root")


@pytest.fixture
def good(root: Path) -> Path:
    for path in BAD:
        (root / path).unlink()
    return root


def look(root: Path) -> Catalog:
    """Scans with a cache beside the root."""
    return scan(DataConfig(root=str(root), cache=str(root.parent / "cache")))


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "probe", lambda file: pytest.fail(f"{file} was decoded"))


# --- What a catalog holds


def test_every_file_is_accepted_or_rejected_with_a_reason(root: Path) -> None:
    found = look(root)
    assert {v.path: (v.frames, v.width, v.height, v.rate, v.codec, v.label) for v in found.videos} == {
        "run/a.mp4": (30, 64, 48, 25.0, "h264", "run"),
        "run/b.avi": (20, 80, 48, 10.0, "mpeg4", "run"),
        "walk/c.webm": (25, 64, 48, 25.0, "vp9", "walk"),
        "walk/short.mp4": (4, 64, 48, 25.0, "h264", "walk"),
    }
    reasons = dict(found.rejected)
    assert list(reasons) == BAD
    assert reasons["walk/empty.mp4"] == "is empty (0 bytes)"
    assert reasons["walk/text.mp4"].startswith("cannot be opened as a video (")
    assert reasons["run/cut.mp4"].startswith("cannot be opened as a video (")  # its index is at its end
    assert "of 40 frames" in reasons["run/cut_behind_its_index.mp4"]
    assert found.layout == "classes"
    assert found.file(0) == root / "run/a.mp4"
    chosen = replace(found, missing=("x.avi",)).only("train")
    assert (chosen.rejected, chosen.missing) == ((), ())  # a choice of videos is not the place to tell of them


def test_json_has_every_file(root: Path) -> None:
    content = json.loads(json.dumps(look(root).to_json()))
    on_disk = sorted(str(path.relative_to(root)) for path in root.rglob("*.*"))
    assert sorted(file["path"] for file in content["videos"] + content["rejected"]) == on_disk
    assert {key: content[key] for key in ("root", "layout", "missing")} == {
        "root": str(root),
        "layout": "classes",
        "missing": [],
    }
    assert content["videos"][0] == {
        "path": "run/a.mp4",
        "frames": 30,
        "declared_frames": 30,
        "rate": 25.0,
        "width": 64,
        "height": 48,
        "codec": "h264",
        "mirrored": False,
        "rotation": 0,
        "undecodable": 0,
        "gaps": 0,
        "video_streams": 1,
        "pixel_aspect": 1.0,
        "content": hashlib.blake2b((root / "run/a.mp4").read_bytes(), digest_size=16).hexdigest(),
        "label": "run",
        "split": None,
        "attributes": {},
    }
    assert content["rejected"][2] == {"path": "walk/empty.mp4", "reason": "is empty (0 bytes)"}


def test_lists_reach_the_records(good: Path) -> None:
    (good / "list.csv").write_text(
        "path,label,split,who\nrun/a.mp4,run,train,Ann\nrun/b.avi,run,test,Bob\nx.avi,run,,\n"
    )
    found = look(good)
    assert [(v.path, v.label, v.split, v.attributes) for v in found.videos] == [
        ("run/a.mp4", "run", "train", {"who": "Ann"}),
        ("run/b.avi", "run", "test", {"who": "Bob"}),
        ("walk/c.webm", None, None, {}),
        ("walk/short.mp4", None, None, {}),
    ]
    assert found.missing == ("x.avi",)
    assert [v.path for v in found.only("test").videos] == ["run/b.avi"]
    assert found.notes == found.only("test").notes == ()
    assert found.only("test").file(0) == good / "run/b.avi"
    assert found.only("else").videos == ()


def test_one_split_is_without_what_is_not_of_it(root: Path) -> None:
    """Else its share of rejected files would be taken of too few."""
    (root / "list.csv").write_text("name,label,split\nrun/a.mp4,run,test\nRUN/b.avi,run,val\nx.avi,run,test\n")
    found = look(root)
    assert (len(found.rejected), found.missing, len(found.notes)) == (4, ("x.avi",), 2)
    assert found.to_json()["notes"] == list(found.notes)
    assert found.notes[0] == "list.csv: its column name is taken for the path"
    assert "such as RUN/b.avi for run/b.avi" in found.notes[1]
    for split, path in (("test", "run/a.mp4"), ("val", "run/b.avi")):
        chosen = found.only(split)
        assert [video.path for video in chosen.videos] == [path]
        assert (chosen.rejected, chosen.missing, chosen.notes) == ((), (), ())


def test_files_that_are_no_files(good: Path) -> None:
    (good / "run/dangling.mp4").symlink_to("nowhere")
    os.mkfifo(good / "run/pipe.mp4")
    assert look(good).rejected == (
        Rejected("run/dangling.mp4", "cannot be read (No such file or directory)"),
        Rejected("run/pipe.mp4", "is not a regular file"),
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 8), (8, 1)])
def test_videos_without_room_for_a_crop(tmp_path: Path, make_video: MakeVideo, size: tuple[int, int]) -> None:
    make_video(tmp_path / "root/line.webm", frames=3, size=size, codec="libvpx-vp9")
    make_video(tmp_path / "root/small.webm", frames=3, size=(2, 3), codec="libvpx-vp9")
    found = look(tmp_path / "root")
    assert found.rejected == (Rejected("line.webm", f"is {size[0]} x {size[1]} pixels; a crop needs 2 on each side"),)
    assert [(video.width, video.height) for video in found.videos] == [(2, 3)]


def test_file_name_that_is_not_text(good: Path, make_video: MakeVideo) -> None:
    odd = make_video(good / "run/odd.mp4").rename(os.fsdecode(os.fsencode(good / "run/caf") + b"\xe9.mp4"))
    for _ in range(2):  # from the file, then from the cache
        found = look(good)
        assert odd in [found.file(video) for video in range(len(found.videos))]
        assert found.fingerprint


def test_fingerprint(good: Path, tmp_path: Path) -> None:
    found = look(good)
    first, *others = found.videos
    assert look(shutil.copytree(good, tmp_path / "moved")).fingerprint == found.fingerprint
    assert found.only("none").fingerprint != found.fingerprint
    decides = {
        "path": "run/z.mp4",
        "frames": 31,
        "width": 63,
        "height": 63,
        "content": "00" * 16,
        "mirrored": True,
        "rotation": 90,
        "label": "sit",
        "split": "train",
        "attributes": {"who": "Ann"},
        "seek_points": first.seek_points[1:],
    }
    does_not = {
        "declared_frames": 31,
        "rate": 10.0,
        "codec": "vp9",
        "undecodable": 1,
        "gaps": 1,
        "video_streams": 2,
        "pixel_aspect": 2.0,
    }
    assert {*decides, *does_not} == {field.name for field in fields(VideoRecord)} - {"fragments"}
    for name, value in (decides | does_not).items():
        changed = replace(found, videos=(replace(first, **{name: value}), *others))  # pyright: ignore[reportArgumentType]
        assert (changed.fingerprint != found.fingerprint) == (name in decides), name
    columns = {"who": "Ann", "set": "1"}
    there, back = (replace(first, attributes=dict(order)) for order in (columns.items(), reversed(columns.items())))
    assert replace(found, videos=(there,)).fingerprint == replace(found, videos=(back,)).fingerprint


def test_report_counts_every_file(root: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    for _ in range(2):
        config = DataConfig(root=str(root), cache=str(root.parent / "cache"))
        scan(config, threads=3, progress=lambda *call: calls.append(call))
    paths = sorted(str(path.relative_to(root)) for path in root.rglob("*.*"))
    assert calls == [(done, 8, path) for done, path in enumerate(paths, 1)] * 2


# --- Too short, too many


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


def test_limit_on_rejected_files(root: Path) -> None:
    found = look(root)
    found.check(0.5)
    with pytest.raises(DataError) as raised:
        found.check(0.1)
    assert str(raised.value) == (
        f"data.root = {root}: 4 of 8 videos cannot be used, more than data.max_rejected = 0.1 allows: "
        f"run/cut.mp4 {found.rejected[0].reason}; run/cut_behind_its_index.mp4 {found.rejected[1].reason}; "
        "walk/empty.mp4 is empty (0 bytes); and 1 more. Mend or remove them, or raise data.max_rejected"
    )


def test_nothing_left(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a.mp4").touch()
    with pytest.raises(DataError, match=r"none of the 1 videos can be used: a\.mp4 is empty \(0 bytes\)$"):
        look(tmp_path / "root").check(1.0)


def test_no_root_and_no_videos(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        look(tmp_path / "root")
    (tmp_path / "root").mkdir()
    with pytest.raises(DataError, match=r"holds no video \(looked for \.avi"):
        look(tmp_path / "root")


# --- The cache


def test_a_second_scan_decodes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = look(root)
    forbid_decoding(monkeypatch)
    assert look(root) == first


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
        content="ab" * 16,
        mirrored=True,
        rotation=270,
        undecodable=3,
        gaps=4,
        video_streams=2,
        pixel_aspect=8 / 9,
        seek_points=(SeekPoint(12, -3, -5), SeekPoint(24, 2**40, 2**40)),
    )
    of_lists = {"path", "label", "split", "attributes", "fragments", "frames"}
    for field in fields(VideoRecord):
        assert (getattr(found, field.name) == getattr(plain, field.name)) == (field.name in of_lists), field.name
    with monkeypatch.context() as patch:
        patch.setattr(catalog, "probe", lambda file: found)
        first = look(good)
    forbid_decoding(monkeypatch)
    for videos in (first.videos, look(good).videos):
        assert [replace(video, path="", label=None) for video in videos] == [found] * 4


def test_a_root_and_a_link_to_it_share_a_cache(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = look(good)
    (good.parent / "link").symlink_to(good)
    forbid_decoding(monkeypatch)
    assert look(good.parent / "link").fingerprint == found.fingerprint


def test_what_is_found_is_saved_on_the_way(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long scan may be killed."""
    monkeypatch.setattr(catalog, "SAVE_EVERY_SECONDS", 0)
    cache, sizes = good.parent / "cache", list[int]()

    def look_there(done: int, total: int, path: str) -> None:
        sizes.append(sum(file.stat().st_size for file in cache.glob("*")))

    scan(DataConfig(root=str(good), cache=str(cache)), threads=1, progress=look_there)
    assert 0 < sizes[0] < sizes[1] < sizes[2] < sizes[3]


@pytest.mark.parametrize("threads", [1, 3])
def test_so_many_files_are_decoded_at_once(good: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    original, lock, now, most = catalog.probe, threading.Lock(), 0, 0
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

    monkeypatch.setattr(catalog, "probe", counted)
    scan(DataConfig(root=str(good), cache=str(good.parent / "cache")), threads=threads)
    assert most == threads


def test_the_cache_goes_by_size_and_time(good: Path, make_video: MakeVideo) -> None:
    before = look(good)
    file = good / "run/a.mp4"
    status = file.stat()
    file.write_bytes(bytes(status.st_size))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert look(good) == before
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert [path for path, _ in look(good).rejected] == ["run/a.mp4"]
    make_video(file, frames=12)
    assert look(good).videos[0].frames == 12


def test_the_cache_serves_new_files_and_lists(
    good: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    look(good)
    make_video(good / "run/new.mp4", frames=7)
    probed: list[Path] = []
    original = catalog.probe
    monkeypatch.setattr(catalog, "probe", lambda file: probed.append(file) or original(file))
    (good / "list.csv").write_text("path,label\nrun/new.mp4,new\nrun/a.mp4,other\n")
    found = scan(DataConfig(root=str(good / "list.csv"), cache=str(good.parent / "cache")))
    assert {v.label for v in found.videos} == {"new", "other"}
    assert probed == [good / "run/new.mp4"]
    assert len(look(good).videos) == 5  # the scan of the list has not thrown the other files out
    assert probed == [good / "run/new.mp4"]


def test_roots_do_not_share_a_cache(good: Path) -> None:
    look(good)
    other = shutil.copytree(good, good.parent / "other")
    (other / "run/a.mp4").unlink()
    assert len(look(other).videos) == 3
    assert len(list((good.parent / "cache").iterdir())) == 2  # and nothing temporary is left


@pytest.mark.parametrize("damage", [b"", b"garbage", b"[]", b"\xff\x00" * 100, None])
def test_damaged_cache(good: Path, damage: bytes | None) -> None:
    before = look(good)
    (cache,) = (good.parent / "cache").iterdir()
    whole = cache.read_bytes()
    cache.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert look(good) == before
    assert cache.read_bytes() == whole


def test_cache_with_one_digit_changed(good: Path) -> None:
    before = look(good)
    (cache,) = (good.parent / "cache").iterdir()
    cache.write_bytes(cache.read_bytes().replace(b'"frames":30', b'"frames":90'))
    assert look(good) == before


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
    look(good)
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
    assert len(look(good).videos) == 4


def test_cache_that_is_a_folder(good: Path) -> None:
    look(good)
    (cache,) = (good.parent / "cache").iterdir()
    cache.unlink()
    cache.mkdir()
    assert len(look(good).videos) == 4
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
        patch.setattr(catalog, "probe", no_permission)
        assert len(look(good).rejected) == 4
    assert len(look(good).videos) == 4


def test_an_interrupted_scan_goes_on_where_it_was(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(done: int, total: int, path: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    config = DataConfig(root=str(good), cache=str(good.parent / "cache"))
    with pytest.raises(KeyboardInterrupt):
        scan(config, threads=1, progress=interrupt)
    probed: list[str] = []
    original = catalog.probe
    monkeypatch.setattr(catalog, "probe", lambda file: probed.append(file.name) or original(file))
    assert len(scan(config).videos) == 4
    assert sorted(probed) == ["c.webm", "short.mp4"]


def test_our_own_mistakes_name_the_file(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistake(file: Path) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(catalog, "probe", mistake)
    with pytest.raises(ZeroDivisionError) as raised:
        scan(DataConfig(root=str(good), cache=str(good.parent / "cache")), threads=1)
    assert raised.value.__notes__ == [f"while probing {good / 'run/a.mp4'}"]


# --- Real footage


def test_real_formats(footage: Path, tmp_path: Path) -> None:
    found = scan(DataConfig(root=str(footage / "formats"), cache=str(tmp_path)), min_frames=16)
    assert {video.path: video.frames for video in found.videos} == {
        "RATRACE_wave_f_nm_np1_fr_goo_37.avi": 72,
        "av1_video.mkv": 125,
        "fire2.mp4": 25,
        "hmdb51_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi": 83,
        "nasa_13013.mp4": 390,
        "no_duration.webm": 74,
        "testsrc2_odd_height_and_width_vp9.mp4": 25,
        "v_SoccerJuggling_g23_c01.avi": 240,
    }
    reasons = dict(found.rejected)
    assert "28 of 50 frames" in reasons.pop("corrupted.mp4")
    assert reasons == {
        "result.webm": "is empty (0 bytes)",
        "test_non_zero_start.mp4": "has 12 frames; a clip needs 16",
        "unordered.mov": "has 4 frames; a clip needs 16",
        "video_90.mov": "has 3 frames; a clip needs 16",
    }
    upright = {
        video.path: video for video in scan(DataConfig(root=str(footage / "formats"), cache=str(tmp_path))).videos
    }
    assert (upright["fire2.mp4"].rotation, upright["video_90.mov"].rotation) == (180, 270)


@pytest.mark.parametrize("name", ["ut_interaction", "ut_interaction/labels.csv"])
def test_ut_interaction(footage: Path, tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    cache = tmp_path_factory.getbasetemp() / "ut_interaction_cache"  # shared by both: the folder is the same
    found = scan(DataConfig(root=str(footage / name), cache=str(cache)), min_frames=16)
    with (footage / "ut_interaction/labels.csv").open() as file:
        listed = {row["path"]: int(row["frames"]) for row in csv.DictReader(file)}
    assert {video.path: video.frames for video in found.videos} == listed
    assert (len(found.videos), len(found.only("train").videos), len(found.only("test").videos)) == (120, 83, 37)
    assert (found.layout, found.rejected, found.missing) == ("csv", (), ())
    assert len({video.label for video in found.videos}) == 6
    assert found.videos[0].attributes.keys() == {"set", "sequence", "width", "height", "frames", "fps"}


def test_ut_interaction_without_its_list(footage: Path, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    for folder in (footage / "ut_interaction").iterdir():
        if folder.is_dir():
            (tmp_path / "root" / folder.name).symlink_to(folder)
    listing = discover_videos(DataConfig(root=str(tmp_path / "root"), test_share=0.3))
    assert listing.layout == "classes"
    assert {entry.label for entry in listing.entries} == {"handshake", "hug", "kick", "point", "punch", "push"}
    assert 24 <= sum(entry.split == "test" for entry in listing.entries) <= 48
