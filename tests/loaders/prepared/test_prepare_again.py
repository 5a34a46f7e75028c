"""Preparing a folder again: after any interruption, and after sources that changed."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cacl.clips import VideoRecord
from cacl.config import DataConfig
from cacl.errors import DataError
from cacl.loaders.catalog.prepared_files import CONVERSION_LOG_NAME, INDEX_NAME
from cacl.loaders.prepared.prepare import prepare
from cacl.loaders.prepared.target import prepared_path
from tests.loaders.prepared.prepared_sets import (
    BAD,
    GOOD,
    SETTINGS,
    files,
    holds,
    indexed,
    make_long,
    opened,
    run,
    wait_for,
)

MakeVideo = Callable[..., Path]


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
    assert set(after) == set(map(prepared_path, [*GOOD, "run/long.mp4"]))  # Nothing hidden is left.
    assert {path: after[path] for path in finished} == {path: before[path] for path in finished}
    assert indexed(target) == expected


def test_an_error_in_between(location: Path) -> None:
    """It ends the run as Ctrl-C does: workers end at once, and what is finished stays."""
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
    """What follows a line that is not whole is dropped; a log without any line is a new one."""
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
    """A file that is damaged is not tried again. The work is done in this process, where a file can be made to fail."""
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
    """The source grows while it is decoded, as a file does that is still being copied to its place."""
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
