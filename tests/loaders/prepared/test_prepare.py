"""Preparing whole folders: everything is in the index or rejected by name, and any interruption can be gone on from."""

import hashlib
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import av
import pytest

from cacl.clips import VideoRecord
from cacl.config import DataConfig
from cacl.errors import DataError, UsageError
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.index_reader import PreparedIndex
from cacl.loaders.catalog.prepared_files import CONVERSION_LOG_NAME, INDEX_NAME
from cacl.loaders.catalog.scan import scan
from cacl.loaders.decode.raw import decode_frames
from cacl.loaders.decode.yuv import frame_checksum
from cacl.loaders.prepared.prepare import prepare
from cacl.loaders.prepared.summary import PrepareSummary
from cacl.loaders.prepared.target import prepared_path
from cacl.loaders.prepared.transcode import TranscodeSettings
from cacl.loaders.prepared.verify import VerificationError, verify

MakeVideo = Callable[..., Path]
SETTINGS = TranscodeSettings(short_side=48)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory, make_video: MakeVideo) -> Path:
    """Two classes: three files to encode, one to copy, two that cannot be used."""
    root = tmp_path_factory.mktemp("originals")
    make_video(root / "run/a.mp4", frames=30, size=(80, 64), bframes=2)
    make_video(root / "run/b.avi", frames=20, size=(96, 80), codec="mpeg4", rate=10)
    make_video(root / "walk/a.mp4", frames=18, size=(64, 48))
    make_video(root / "walk/c.webm", frames=25, size=(80, 96), codec="libvpx-vp9")
    (root / "walk/empty.mp4").touch()
    (root / "walk/text.mp4").write_text("not a video at all\n" * 20)
    return root


GOOD = ["run/a.mp4", "run/b.avi", "walk/a.mp4", "walk/c.webm"]
BAD = ["walk/empty.mp4", "walk/text.mp4"]


@pytest.fixture(scope="module")
def whole(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The originals and what an undisturbed run makes of them; to be looked at, or to be copied."""
    location = tmp_path_factory.mktemp("whole")
    shutil.copytree(originals, location / "source")
    run(location / "source", location / "target")
    return location


@pytest.fixture
def location(whole: Path, tmp_path: Path) -> Iterator[Path]:
    """The same under the same name, since the conversion log names its source; to be changed."""
    kept = whole.with_name("kept")
    whole.rename(kept)
    shutil.copytree(kept, whole)
    yield whole
    shutil.rmtree(whole)
    kept.rename(whole)


def run(source: Path, target: Path, settings: TranscodeSettings = SETTINGS, *, workers: int = 1) -> PrepareSummary:
    return prepare(DataConfig(root=str(source)), target, settings, workers=workers, progress=lambda *_: None)


def opened(target: Path, split: int = 1) -> Catalog:
    return scan(DataConfig(root=str(target), fold=split))


def files(target: Path) -> dict[str, tuple[int, int]]:
    """Inode and modification time of every video in the target, and of whatever else is there."""
    found = [path for path in (target / "videos").rglob("*") if path.is_file()]
    return {str(path.relative_to(target)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def indexed(target: Path) -> tuple[object, ...]:
    """All that the index says."""
    opened = PreparedIndex(target / INDEX_NAME, "")
    return opened.digest, opened.tables, opened.about


# --- The whole of it


def test_every_source_is_there_or_rejected(whole: Path) -> None:
    found = opened(whole / "target")
    assert [(v.path, v.label, v.frames, v.width, v.height, v.rate) for v in found.videos] == [
        ("videos/run/a.mp4.mp4", "run", 30, 60, 48, 25.0),
        ("videos/run/b.avi.mp4", "run", 20, 58, 48, 10.0),
        ("videos/walk/a.mp4.mp4", "walk", 18, 64, 48, 25.0),
        ("videos/walk/c.webm.mp4", "walk", 25, 48, 58, 25.0),
    ]
    scanned = scan(DataConfig(root=str(whole / "source"), cache=str(whole / "cache")))
    assert found.rejected == scanned.rejected
    assert [path for path, _ in found.rejected] == BAD
    assert found.layout == "classes"
    assert set(files(whole / "target")) == {video.path for video in found.videos}
    for video in found.videos:
        file = whole / "target" / video.path
        assert video.content_hash == hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
        frames = list(decode_frames(found.location(video), video, range(video.frames)))
        assert [frame_checksum(frame) for frame in frames] == [
            frame_checksum(frame) for frame in decode_frames(file, replace(video, fragments=None), range(video.frames))
        ]


def test_what_is_told(location: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    config = DataConfig(root=str(location / "source"))
    report = lambda *call: calls.append(call)  # noqa: E731
    summary = prepare(config, location / "new", SETTINGS, workers=2, progress=report)
    assert [call[:2] for call in calls] == [(done, 6) for done in range(1, 7)]
    assert sorted(path for *_, path in calls) == sorted(GOOD + BAD)
    told = json.loads(json.dumps(summary.to_json()))
    assert told == {
        "source": str(location / "source"),
        "target": str(location / "new"),
        "layout": "classes",
        "settings": {"short_side": 48, "gop": 16, "crf": 23},
        "videos": 4,
        "copied": 1,
        "encoded": 3,
        "kept": 0,
        "source_bytes": sum((location / "source" / path).stat().st_size for path in GOOD),
        "prepared_bytes": sum((location / "new" / prepared_path(path)).stat().st_size for path in GOOD),
        "rejected": [{"path": path, "reason": dict(summary.catalog.rejected)[path]} for path in BAD],
        "missing": [],
        "notes": [],
    }
    calls.clear()
    again = prepare(config, location / "new", SETTINGS, workers=2, progress=report)
    assert calls == []
    assert again.to_json() == told | {"kept": 4}


@pytest.mark.parametrize("workers", [3, 0])
def test_the_same_bytes_with_any_number_of_workers(location: Path, workers: int) -> None:
    shutil.rmtree(location / "target")
    at_work: list[int] = []

    def count(done: int, total: int, path: str) -> None:
        at_work.append(len(multiprocessing.active_children()))

    prepare(DataConfig(root=str(location / "source")), location / "target", SETTINGS, workers=workers, progress=count)
    assert max(at_work) == min(len(GOOD + BAD), workers or len(os.sched_getaffinity(0)))
    for name in map(prepared_path, GOOD):
        assert (location / "target" / name).read_bytes() == (
            location.with_name("kept") / "target" / name
        ).read_bytes(), name
    assert indexed(location / "target") == indexed(location.with_name("kept") / "target")


def test_too_many_rejected(whole: Path) -> None:
    summary = run(whole / "source", whole / "target")
    summary.check(0.5)
    with pytest.raises(DataError, match=rf"^data\.root = {whole / 'source'}: 2 of 6 videos cannot be used, more than"):
        summary.check(0.1)


def test_nothing_usable(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/a.mp4").touch()
    with pytest.raises(DataError, match=r"none of the 1 videos can be used: a\.mp4 is empty \(0 bytes\)$"):
        run(tmp_path / "source", tmp_path / "target")
    assert not (tmp_path / "target" / INDEX_NAME).exists()


# --- Names and lists


def test_three_splits(tmp_path: Path, make_video: MakeVideo) -> None:
    root = tmp_path / "source"
    names = ["Run/a.avi", "Run/b.avi", "Walk/c.avi", "Walk/d.avi"]
    for name in names:
        make_video(root / name, frames=4, codec="mpeg4")
    for split, test in {1: names[:1], 3: names[1:3]}.items():
        (root / f"testlist0{split}.txt").write_text("\n".join(test))
        train = [name for name in names[: split + 1] if name not in test]
        (root / f"trainlist0{split}.txt").write_text("\n".join(f"{name} 1" for name in [*train, names[3]]))
    run(root, tmp_path / "target")
    for split, expected in {1: ["test", "train", None, "train"], 3: ["train", "test", "test", "train"]}.items():
        found = opened(tmp_path / "target", split=split)
        assert [video.split for video in found.videos] == expected
        assert [video.label for video in found.videos] == ["Run", "Run", "Walk", "Walk"]
        assert found.layout == "ucf101"
    with pytest.raises(DataError, match=r"^data\.fold = 2: "):
        opened(tmp_path / "target", split=2)


def test_a_list_that_is_damaged_is_not_taken_for_absent(tmp_path: Path, make_video: MakeVideo) -> None:
    make_video(tmp_path / "source/Run/a.avi", frames=4, codec="mpeg4")
    for split, line in {1: "Run/a.avi 1", 2: "what is this"}.items():
        (tmp_path / f"source/trainlist0{split}.txt").write_text(line)
        (tmp_path / f"source/testlist0{split}.txt").write_text("")
    with pytest.raises(DataError, match=r"trainlist02\.txt line 1: 'what is this' is not"):
        run(tmp_path / "source", tmp_path / "target")


def test_labels_are_read_anew(location: Path) -> None:
    before = files(location / "target")
    (location / "source/list.csv").write_text("path,label,split,who\nrun/a.mp4,sit,train,Ann\nx.mp4,sit,test,Bob\n")
    assert run(location / "source", location / "target").kept == 4
    found = opened(location / "target")
    assert files(location / "target") == before
    assert (found.videos[0].label, found.videos[0].split, found.videos[0].attributes) == (
        "sit",
        "train",
        {"who": "Ann"},
    )
    assert found.missing == ("x.mp4",)


def test_odd_names(tmp_path: Path, make_video: MakeVideo) -> None:
    root, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    for name in ("a.avi", "b.avi"):
        make_video(elsewhere / name, frames=4, codec="mpeg4")
    for name in ("a.avi", ".hidden.avi"):
        make_video(root / name, frames=5, codec="mpeg4")
    make_video(root / f"{'b' * 250}.avi", frames=6, codec="mpeg4")
    latin = root / os.fsdecode(b"caf\xe9.avi")
    make_video(root / "c.avi", frames=7, codec="mpeg4").rename(latin)
    listed = [str(elsewhere / "a.avi"), "../elsewhere/b.avi", ".hidden.avi"]
    (root / "list.csv").write_text("path\n" + "\n".join(listed))
    found = run(root, tmp_path / "target").catalog
    assert {video.frames: Path(video.path).parent.as_posix() for video in found.videos} == {
        4: "videos/_elsewhere",
        5: "videos",
        6: "videos/_elsewhere",
        7: "videos",
    }
    assert len({video.path for video in found.videos}) == 6
    for video in found.videos:
        assert found.location(video).is_file()  # pyright: ignore[reportAttributeAccessIssue]


def test_files_that_are_no_files(location: Path) -> None:
    (location / "source/run/dangling.mp4").symlink_to("nowhere")
    os.mkfifo(location / "source/run/pipe.mp4")
    assert dict(run(location / "source", location / "target").catalog.rejected[:2]) == {
        "run/dangling.mp4": "cannot be read (No such file or directory)",
        "run/pipe.mp4": "is not a regular file",
    }


# --- Going on


def test_killed_and_gone_on_from(location: Path) -> None:
    """The one long source keeps a worker busy, while the other does the rest."""
    make_long(location / "source/run/long.mp4", location / "source/run/a.mp4")
    target = location / "target"
    shutil.rmtree(target)
    run(location / "source", target)
    expected = indexed(target)
    shutil.rmtree(target)

    process = subprocess.Popen(
        [sys.executable, "-m", "cacl.cli", "data", "prepare", location / "source", target, "--short-side", "48"]
    )
    log = target / CONVERSION_LOG_NAME
    wait_for(lambda: log.exists() and log.read_bytes().count(b"\n") >= 4)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    assert process.wait() == -signal.SIGKILL
    wait_for(lambda: not any(Path(f"/proc/{worker}/exe").exists() for worker in workers))

    lines = [json.loads(line) for line in log.read_bytes().splitlines()[1:]]
    finished = [prepared_path(line["path"]) for line in lines if "rejected" not in line]
    before = files(target)
    assert 1 <= len(finished) < 5
    assert not (target / INDEX_NAME).exists()
    assert run(location / "source", target).kept == len(finished)
    after = files(target)
    assert set(after) == set(map(prepared_path, [*GOOD, "run/long.mp4"]))  # and nothing hidden
    assert {path: after[path] for path in finished} == {path: before[path] for path in finished}
    assert indexed(target) == expected


def make_long(path: Path, short: Path) -> Path:
    """The same short video again and again, quickly made."""
    return remux(short, path, times=30)


def remux(source: Path, path: Path, *, skip: int = 0, times: int = 1) -> Path:
    with av.open(str(source)) as opened, av.open(str(path), "w") as container:
        stream = opened.streams.video[0]
        copy = container.add_stream_from_template(stream)
        packets = [packet for packet in opened.demux(stream) if packet.pts is not None and packet.dts is not None]
        length = sum(packet.duration or 0 for packet in packets)
        for packet in packets:
            packet.stream = copy
        for _ in range(times):
            for packet in packets[skip:]:
                container.mux(packet)
                packet.pts, packet.dts = (packet.pts or 0) + length, (packet.dts or 0) + length
    return path


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_an_error_in_between(location: Path) -> None:
    """As Ctrl-C: workers end at once, and what is finished stays."""
    shutil.rmtree(location / "target")

    def interrupt(done: int, total: int, path: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    config = DataConfig(root=str(location / "source"))
    with pytest.raises(KeyboardInterrupt):
        prepare(config, location / "target", SETTINGS, workers=2, progress=interrupt)
    assert not multiprocessing.active_children()
    before = files(location / "target")
    kept = run(location / "source", location / "target").kept
    after = files(location / "target")
    assert sum(after.get(path) == made for path, made in before.items()) >= kept >= 1
    assert indexed(location / "target") == indexed(location.with_name("kept") / "target")


def test_interrupted_while_a_source_is_made_anew(location: Path, make_video: MakeVideo) -> None:
    """The old index would speak of a file that is another one by now."""
    make_video(location / "source/run/a.mp4", frames=12, size=(80, 64))

    def interrupt(done: int, total: int, path: str) -> None:
        raise KeyboardInterrupt

    config = DataConfig(root=str(location / "source"))
    with pytest.raises(KeyboardInterrupt):
        prepare(config, location / "target", SETTINGS, workers=1, progress=interrupt)
    assert not (location / "target" / INDEX_NAME).exists()
    with pytest.raises(
        DataError, match=rf"^data\.root = {location}/target: is a prepared set that is not finished; the `"
    ):
        opened(location / "target")
    run(location / "source", location / "target")
    assert [video.frames for video in opened(location / "target").videos] == [12, 20, 18, 25]


@pytest.mark.parametrize("damage", [b"", b'{"path": "run/a', b"\0" * 50 + b"\n", b"garbage\n", b"no newline", None])
def test_a_torn_conversion_log(location: Path, damage: bytes | None) -> None:
    """What follows a line that is not whole is not there; without any line it is a new one."""
    before, log = files(location / "target"), location / "target" / CONVERSION_LOG_NAME
    lines = log.read_bytes().splitlines(keepends=True)
    if damage == b"no newline":
        damage = lines[3].rstrip(b"\n")
    log.write_bytes(
        lines[0][:20] if damage is None else b"".join(lines[:3]) + damage + (b"" if b"\n" not in damage else lines[5])
    )
    kept = run(location / "source", location / "target").kept
    after = files(location / "target")
    assert kept == (0 if damage is None else sum(b'"rejected"' not in line for line in lines[1:3]))
    assert sum(after[path] == before[path] for path in before) == kept
    assert sorted(json.loads(line).get("path", "") for line in log.read_bytes().splitlines()) == [
        "",
        *sorted(GOOD + BAD),
    ]
    assert indexed(location / "target") == indexed(location.with_name("kept") / "target")


def test_sources_that_changed_came_and_went(location: Path, make_video: MakeVideo) -> None:
    before = files(location / "target")
    make_video(location / "source/run/a.mp4", frames=12, size=(80, 64))
    (location / "source/run/b.avi").unlink()
    make_video(location / "source/walk/new.mp4", frames=9)
    make_video(location / "source/walk/empty.mp4", frames=7)
    (location / "source/walk/c.webm").write_text("broken")
    summary = run(location / "source", location / "target")
    assert summary.kept == 1
    found = opened(location / "target")
    assert {video.path: video.frames for video in found.videos} == {
        "videos/run/a.mp4.mp4": 12,
        "videos/walk/a.mp4.mp4": 18,
        "videos/walk/empty.mp4.mp4": 7,
        "videos/walk/new.mp4.mp4": 9,
    }
    assert [path for path, _ in found.rejected] == ["walk/c.webm", "walk/text.mp4"]
    after = files(location / "target")
    assert set(after) == {video.path for video in found.videos}
    assert [path for path in after if after[path] == before.get(path)] == ["videos/walk/a.mp4.mp4"]


def test_outputs_that_are_gone_or_cut(location: Path) -> None:
    before = files(location / "target")
    (location / "target/videos/run/a.mp4.mp4").unlink()
    os.truncate(location / "target/videos/run/b.avi.mp4", 1000)
    (location / "target/videos/.a.mp4.mp4.writing").write_bytes(b"what a killed run left")
    assert run(location / "source", location / "target").kept == 2
    after = files(location / "target")
    assert set(after) == set(before)
    assert indexed(location / "target") == indexed(location.with_name("kept") / "target")


def test_an_output_whose_head_is_damaged(location: Path) -> None:
    file = location / "target/videos/run/a.mp4.mp4"
    content = file.read_bytes()
    file.write_bytes(content[:100] + b"\xff" + content[101:])
    with pytest.raises(DataError, match=rf"^{file}: is damaged; remove it, and the same command makes it again$"):
        run(location / "source", location / "target")
    file.unlink()
    assert run(location / "source", location / "target").kept == 3


def test_passing_trouble_is_tried_again(location: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a file that is damaged is not. The work is done in this process, where a file can be made to fail."""
    (location / "source/run/a.mp4").touch()
    (location / "source/run/b.avi").touch()
    probed: list[str] = []

    def failing(file: Path, *, seekable: bool) -> VideoRecord:
        probed.append(file.name)
        try:
            if file.name == "a.mp4":
                raise PermissionError(13, "Permission denied")
            raise ValueError
        except (OSError, ValueError) as error:
            raise DataError(f"cannot be opened as a video ({error})") from None

    module = "cacl.loaders.prepared.prepare"
    monkeypatch.setattr(f"{module}.map_unordered", lambda work, tasks, workers: ((task, work(task)) for task in tasks))
    with monkeypatch.context() as patch:
        patch.setattr("cacl.loaders.prepared.convert_source.probe", failing)
        rejected = dict(run(location / "source", location / "target").catalog.rejected)
    assert rejected["run/a.mp4"] == "cannot be opened as a video ([Errno 13] Permission denied)"
    assert {"run/a.mp4", "run/b.avi"} <= rejected.keys()
    assert probed == ["a.mp4", "b.avi"]
    again = run(location / "source", location / "target")
    assert "run/a.mp4" not in dict(again.catalog.rejected)
    assert "run/b.avi" in dict(again.catalog.rejected)


def test_a_source_that_changes_meanwhile(location: Path) -> None:
    """It grows while it is decoded, as a file does that is still being copied to its place."""
    source = make_long(location / "source/run/long.mp4", location / "source/run/a.mp4")

    def append() -> None:
        wait_for(lambda: any(holds(source)))
        with source.open("ab") as file:
            file.write(b"more")

    thread = threading.Thread(target=append)
    thread.start()
    summary = run(location / "source", location / "target")
    thread.join()
    assert dict(summary.catalog.rejected)["run/long.mp4"] == "changed while it was being read"
    assert not (location / "target" / prepared_path("run/long.mp4")).exists()
    assert "run/long.mp4" not in dict(run(location / "source", location / "target").catalog.rejected)


def holds(file: Path) -> Iterator[int]:
    """The workers that have this file open."""
    for worker in multiprocessing.active_children():
        try:
            links = [os.readlink(link) for link in Path(f"/proc/{worker.pid}/fd").iterdir()]
        except OSError:  # it has just ended, or closed one
            continue
        if str(file) in links and worker.pid:
            yield worker.pid


# --- Crashes


def test_a_file_that_kills_whoever_reads_it(location: Path) -> None:
    killer = make_long(location / "source/run/killer.mp4", location / "source/run/a.mp4")
    shutil.rmtree(location / "target")
    killed: list[int] = []
    stop = threading.Event()

    def kill() -> None:
        while not stop.wait(0.005):
            for worker in holds(killer):
                os.kill(worker, signal.SIGKILL)
                killed.append(worker)

    thread = threading.Thread(target=kill)
    thread.start()
    summary = run(location / "source", location / "target", workers=2)
    stop.set()
    thread.join()
    assert len(set(killed)) == 2
    assert dict(summary.catalog.rejected)["run/killer.mp4"] == "crashes the decoder"
    assert [source.path for source in summary.converted] == GOOD
    assert [source.path for source in run(location / "source", location / "target").converted] == [
        "run/a.mp4",
        "run/b.avi",
        "run/killer.mp4",
        *GOOD[2:],
    ]


# --- Where it cannot write


@pytest.mark.parametrize("kibibytes", [4, 16, 32], ids=["conversion_log", "videos", "index"])
def test_the_disk_is_full(location: Path, tmp_path: Path, kibibytes: int) -> None:
    """It holds so much, in pages of 4 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "none", disk]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems may not be mounted here")
    try:
        with pytest.raises(DataError, match=rf"^{disk}/target: cannot be written \(.*No space left .*\); mend that"):
            run(location / "source", disk / "target")
        assert not (disk / "target" / INDEX_NAME).exists()
        subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
        before = files(disk / "target")
        summary = run(location / "source", disk / "target")
        after = files(disk / "target")
        assert summary.kept == len(after.items() & before.items())
        assert set(after) == set(map(prepared_path, GOOD))
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)  # the index is still mapped


def test_files_may_not_grow(location: Path) -> None:
    """A quota by another name."""
    shutil.rmtree(location / "target")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(DataError, match=r"target: cannot be written \(File too large\); mend that"):
            run(location / "source", location / "target")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert run(location / "source", location / "target").converted


def test_a_target_that_cannot_be(location: Path) -> None:
    (location / "file").touch()
    with pytest.raises(DataError, match=rf"^{location}/file/target: cannot be written \(Not a directory\)"):
        run(location / "source", location / "file/target")
    with pytest.raises(DataError, match=rf"^{location}/file: cannot be written \(.*\)"):
        run(location / "source", location / "file")


def test_places_that_do_not_go_together(location: Path) -> None:
    source = location / "source"
    for target in (source, source / "run/target", location):
        with pytest.raises(UsageError, match=rf"^{target}: lies within {source}, or around it"):
            run(source, target)
    (location / "link").symlink_to(source)
    with pytest.raises(UsageError, match="lies within"):
        run(source, location / "link/target")
    with pytest.raises(UsageError, match=r"^.*target: is a prepared set; name the videos that it was made from$"):
        run(location / "target", location / "again")
    (location / "full").mkdir()
    (location / "full/thesis.tex").touch()
    with pytest.raises(UsageError, match=r"full: is not empty, and no prepared set"):
        run(source, location / "full")
    with pytest.raises(UsageError, match=r"^data\.test_share"):
        prepare(DataConfig(root=str(source), test_share=0.2), location / "new", SETTINGS, workers=1, progress=print)
    assert not (location / "new").exists()


def test_other_settings_and_other_sources(location: Path) -> None:
    target = location / "target"
    for settings, named in {
        TranscodeSettings(short_side=64): "short_side = 48, not 64",
        replace(SETTINGS, gop=8): "gop = 16, not 8",
        replace(SETTINGS, crf=25): "crf = 23, not 25",
    }.items():
        with pytest.raises(DataError, match=rf"^{target}: was begun with {named}; give the same again, or name"):
            run(location / "source", target, settings)
    (location / "source").rename(location / "other")
    with pytest.raises(DataError, match=rf"was begun with source = {location}/source, not {location}/other; "):
        run(location / "other", target)
    (target / CONVERSION_LOG_NAME).write_text("something else\n")
    with pytest.raises(DataError, match=r"its conversion_log.jsonl is damaged in the first line"):
        run(location / "other", target)


def test_one_at_a_time(location: Path) -> None:
    def again(done: int, total: int, path: str) -> None:
        with pytest.raises(DataError, match=rf"^{location}/target: another `cacl data prepare` is at work there$"):
            run(location / "source", location / "target")

    os.utime(location / "source/run/a.mp4")
    prepare(DataConfig(root=str(location / "source")), location / "target", SETTINGS, workers=1, progress=again)
    run(location / "source", location / "target")


# --- Verification


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
    """As above, the other way round: what was prepared begins later than what is there now."""
    path, longer = location / "source/run/a.mp4", make_video(location / "longer.mp4", frames=60, size=(80, 64), gop=1)
    remux(longer, path, skip=1)
    summary = run(location / "source", location / "target")
    shutil.copy(longer, path)
    with pytest.raises(VerificationError, match=r"run/a\.mp4\.mp4: frame (\d+) is frame \d+ of run/a\.mp4$") as raised:
        verify(summary, 12, progress=lambda *_: None)
    (prepared, found) = map(int, re.findall(r"frame (\d+)", str(raised.value)))
    assert found == prepared + 1


def test_an_index_that_counts_wrong_is_found(tmp_path: Path, make_video: MakeVideo) -> None:
    """Its groups of pictures are in order, but from the second on each holds other frames than it says."""
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


# --- Real footage


def test_real_formats(footage: Path, tmp_path: Path) -> None:
    summary = run(footage / "formats", tmp_path / "target", TranscodeSettings(), workers=2)
    scanned = scan(DataConfig(root=str(footage / "formats"), cache=str(tmp_path / "cache")))
    assert summary.catalog.rejected == scanned.rejected
    assert {Path(video.path).stem: video.frames for video in summary.catalog.videos} == {
        video.path: video.frames for video in scanned.videos
    }
    verified = verify(summary, 11, progress=lambda *_: None)
    assert (verified.lowest_psnr_db or 0) > 32
