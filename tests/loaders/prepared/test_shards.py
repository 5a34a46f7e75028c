"""Sets that are made in shards: what is joined is what one run writes, and nothing else is joined."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cacl.config import DataConfig
from cacl.errors import DataError, UsageError
from cacl.loaders.catalog.prepared_files import CONVERSION_LOG_NAME, INDEX_NAME
from cacl.loaders.prepared.join import join
from cacl.loaders.prepared.prepare import prepare
from cacl.loaders.prepared.shard import Shard, find_shards
from cacl.loaders.prepared.summary import PrepareSummary
from cacl.loaders.prepared.target import prepared_path
from cacl.loaders.prepared.transcode import TranscodeSettings
from cacl.loaders.prepared.verify import VerificationError, verify
from tests import forked
from tests.loaders.prepared.prepared_sets import BAD, GOOD, SETTINGS, files, make_long, opened, run, wait_for

MakeVideo = Callable[..., Path]
NEW = next(f"walk/new{n}.mp4" for n in range(99) if Shard(2, 2).takes(f"walk/new{n}.mp4"))
"""A further source, in another one of two shards than `run/a.mp4`."""


def run_shard(
    location: Path, shard: str, target: str = "sharded", settings: TranscodeSettings = SETTINGS
) -> PrepareSummary:
    config = DataConfig(root=str(location / "source"))
    part = Shard.parse(shard)
    return prepare(config, location / target, settings, workers=1, progress=lambda *_: None, shard=part)


def run_shards(location: Path, count: int) -> None:
    for number in range(1, count + 1):
        run_shard(location, f"{number}/{count}")


def contents(target: Path) -> dict[str, bytes]:
    """Returns all files of a set. Outcomes are logged in the order in which they come, so the lines are sorted."""
    found = {str(file.relative_to(target)): file.read_bytes() for file in target.rglob("*") if file.is_file()}
    found[CONVERSION_LOG_NAME] = b"".join(sorted(found[CONVERSION_LOG_NAME].splitlines(keepends=True)))
    return found


def assert_one_set(location: Path, settings: TranscodeSettings = SETTINGS) -> None:
    """The joined set is what one run makes of the sources now."""
    shutil.rmtree(location / "target")
    run(location / "source", location / "target", settings)
    assert contents(location / "sharded") == contents(location / "target")


def refused(location: Path, pattern: str) -> list[str]:
    """Joins what is to be refused in one line, and returns the command that the line names, as its arguments."""
    with pytest.raises(DataError, match=rf"^{location}/sharded: {pattern}; .*run `.*`$") as raised:
        join(location / "sharded")
    assert "\n" not in str(raised.value)
    assert not (location / "sharded" / INDEX_NAME).exists()
    assert not (location / "sharded" / CONVERSION_LOG_NAME).exists()
    found = re.search("run `cacl (.*)`", str(raised.value))
    assert found
    return shlex.split(found[1])


def done(arguments: list[str]) -> bool:
    """Runs a command in a process of its own, and returns whether it went well."""
    return forked.run(forked.cacl, *arguments, environment=os.environ).returncode == 0


# --- The same set


def test_four_at_once_are_one(location: Path) -> None:
    """They are processes of their own, into one folder that none of them finds."""
    (location / "source/list.csv").write_text("path,label,split,who\nrun/a.mp4,sit,train,Ann\nx.mp4,sit,test,Bob\n")
    (location / "source/run/dangling.mp4").symlink_to("nowhere")  # Its reason may pass, so it is never settled.
    command = ["data", "prepare", str(location / "source"), str(location / "sharded")]
    options = ["--short-side", "48", "--workers", "1", "--shard"]
    processes = [
        forked.start(forked.cacl, *command, *options, f"{number}/4", environment=os.environ) for number in (3, 1, 4, 2)
    ]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    summary = join(location / "sharded")
    assert [source.path for source in summary.converted] == GOOD
    assert [path for path, _ in summary.catalog.rejected] == ["run/dangling.mp4", *BAD]
    assert_one_set(location)
    assert run(location / "source", location / "sharded").kept == len(GOOD)


def test_folders_that_are_copied_together(location: Path) -> None:
    for number in (2, 3, 1):
        run_shard(location, f"{number}/3", f"machine {number}")
    for number in (3, 1, 2):
        shutil.copytree(location / f"machine {number}", location / "sharded", dirs_exist_ok=True)
    join(location / "sharded")
    assert_one_set(location)


def test_more_shards_than_sources(location: Path) -> None:
    run_shards(location, 11)
    (empty, *_) = (n for n in range(1, 12) if not any(Shard(n, 11).takes(path) for path in GOOD))
    assert verify(run_shard(location, f"{empty}/11"), 3, progress=lambda *_: None).clips == 0
    join(location / "sharded")
    assert_one_set(location)


def test_official_splits(location: Path, make_video: MakeVideo) -> None:
    shutil.rmtree(location / "source")
    names = ["Run/a.avi", "Run/b.avi", "Walk/c.avi", "Walk/d.avi"]
    for name in names:
        make_video(location / "source" / name, frames=4, codec="mpeg4")
    for split in (1, 3):
        (location / f"source/testlist0{split}.txt").write_text("\n".join(names[:split]))
        (location / f"source/trainlist0{split}.txt").write_text("\n".join(f"{name} 1" for name in names[split:]))
    run_shards(location, 2)
    join(location / "sharded")
    assert [video.split for video in opened(location / "sharded", split=3).videos] == ["test"] * 3 + ["train"]
    assert_one_set(location)


def test_each_source_is_in_one_shard() -> None:
    """The shares are alike, and one more source leaves the others where they are."""
    paths = [f"class {number % 7}/video {number}.avi" for number in range(4000)]
    shares = [[path for path in paths if Shard(number, 4).takes(path)] for number in range(1, 5)]
    assert sorted(path for share in shares for path in share) == sorted(paths)
    assert all(900 < len(share) < 1100 for share in shares)


# --- Going on


def test_killed_and_gone_on_from(location: Path) -> None:
    long = next(f"run/long{n}.mp4" for n in range(99) if Shard(1, 2).takes(f"run/long{n}.mp4"))
    make_long(location / "source" / long, location / "source/run/a.mp4")
    run_shard(location, "2/2")
    command = ["data", "prepare", str(location / "source"), str(location / "sharded")]
    options = ["--short-side", "48", "--workers", "2", "--shard", "1/2"]
    process = forked.start(forked.cacl, *command, *options, environment=os.environ)
    log = location / "sharded" / Shard(1, 2).log_name
    wait_for(lambda: log.exists() and log.read_bytes().count(b"\n") >= 1)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    wait_for(lambda: not any(Path(f"/proc/{worker}/exe").exists() for worker in workers))
    go_on = refused(location, r"shard 1/2 is not finished: run/.* is not done yet")
    before = files(location / "sharded")
    assert done(go_on)
    after = files(location / "sharded")
    others = [path for path in GOOD if Shard(2, 2).takes(path)]
    assert others
    assert all(before[prepared_path(path)] == after[prepared_path(path)] for path in others)
    join(location / "sharded")
    assert_one_set(location)


@pytest.mark.parametrize("left", [1, 3])
@pytest.mark.parametrize("indexed", [False, True])
def test_a_join_that_was_killed(location: Path, left: int, indexed: bool) -> None:
    """It leaves the merged log and some of the others, and is gone on with by itself or by an unsharded run."""
    run_shards(location, 3)
    logs = {
        shard.log_name: (location / "sharded" / shard.log_name).read_bytes()
        for shard in find_shards(location / "sharded")
    }
    for go_on in (lambda: join(location / "sharded"), lambda: run(location / "source", location / "sharded")):
        if not (location / "sharded" / CONVERSION_LOG_NAME).exists():
            join(location / "sharded")
        for name in list(logs)[-left:]:
            (location / "sharded" / name).write_bytes(logs[name])
        if not indexed:
            (location / "sharded" / INDEX_NAME).unlink()
        go_on()
        assert_one_set(location)


def test_sources_that_changed_came_and_went(location: Path, make_video: MakeVideo) -> None:
    run_shards(location, 2)
    make_video(location / "source/run/a.mp4", frames=12, size=(80, 64))
    (location / "source/run/b.avi").unlink()
    make_video(location / "source" / NEW, frames=9)
    faults = {"run/a.mp4": "has changed since it was converted", NEW: "is not done yet"}
    for path, fault in faults.items():
        (shard,) = (shard for shard in find_shards(location / "sharded") if shard.takes(path))
        go_on = refused(location, rf"shard {shard} is not finished: {path} {fault}")
        assert go_on[-1] == str(shard)
        assert done(go_on)
    join(location / "sharded")
    # As after an unsharded run, the log still tells of the source that is gone.
    log = location / "sharded" / CONVERSION_LOG_NAME
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(line for line in lines if b"run/b.avi" not in line))
    assert len(log.read_bytes().splitlines()) == len(lines) - 1
    assert_one_set(location)


def test_a_prepared_video_that_was_not_copied(location: Path) -> None:
    run_shards(location, 2)
    (location / "sharded" / prepared_path("walk/a.mp4")).unlink()
    go_on = refused(location, r"shard ./2 is not finished: walk/a\.mp4 has a prepared video that is gone or not whole")
    assert done(go_on)
    join(location / "sharded")
    assert_one_set(location)


# --- What is not joined


def test_a_missing_shard(location: Path) -> None:
    for number in (4, 1, 3):
        run_shard(location, f"{number}/4")
    assert done(refused(location, "shard 2/4 is missing"))
    join(location / "sharded")
    assert_one_set(location)


@pytest.mark.parametrize(
    ("settings", "named"),
    [(replace(SETTINGS, crf=30), "crf = 23, not 30"), (replace(SETTINGS, codec="hevc"), "codec = h264, not hevc")],
)
def test_a_shard_with_other_settings(location: Path, settings: TranscodeSettings, named: str) -> None:
    for number in (1, 2, 3):
        run_shard(location, f"{number}/3", settings=SETTINGS if number == 1 else settings)
    go_on = refused(location, f"shard 1/3 was made with {named}")
    (location / "sharded" / Shard(1, 3).log_name).unlink()
    assert done(go_on)
    join(location / "sharded")
    assert_one_set(location, settings)


def test_a_shard_of_another_source(location: Path) -> None:
    run_shard(location, "1/3")
    run_shard(location, "3/3")
    shutil.copytree(location / "source", location / "other/source")
    run_shard(location / "other", "2/3")
    shutil.copytree(location / "other/sharded", location / "sharded", dirs_exist_ok=True)
    refused(location, f"shard 2/3 was made with .* = {location}/other/source, not {location}/source")
    (location / "sharded" / Shard(1, 3).log_name).replace(location / "sharded" / Shard(2, 3).log_name)
    run_shard(location, "1/3")
    refused(location, "shard 2/3 was made with shard = 1/3, not 2/3")


def test_shards_of_another_number(location: Path) -> None:
    run_shard(location, "1/2")
    run_shard(location, "2/2")
    run_shard(location, "2/3", "other")
    shutil.copytree(location / "other", location / "sharded", dirs_exist_ok=True)
    with pytest.raises(
        DataError, match=rf"sharded: holds shard 2/3 beside those of 2; remove {Shard(2, 3).log_name}, "
    ):
        join(location / "sharded")


def test_what_does_not_go_together(location: Path) -> None:
    sharded = location / "sharded"
    run_shard(location, "1/2")
    with pytest.raises(
        DataError, match=rf"^data\.root = {sharded}: is .* not joined; `cacl data join {sharded}` does it$"
    ):
        opened(sharded)
    with pytest.raises(
        UsageError, match=rf"^{sharded}: is made in 2 shards; give --shard I/2, or name another folder$"
    ):
        run(location / "source", sharded)
    with pytest.raises(UsageError, match=rf"^--shard 1/3: {sharded} is made in 2 shards; give --shard I/2, or"):
        run_shard(location, "1/3")
    with pytest.raises(DataError, match=rf"^{sharded}: was begun with gop = 16, not 8; give the same again, or"):
        run_shard(location, "1/2", settings=replace(SETTINGS, gop=8))
    run_shard(location, "2/2")
    join(sharded)
    with pytest.raises(UsageError, match=rf"^--shard 1/2: {sharded} is one set already; leave --shard out to go on"):
        run_shard(location, "1/2")
    with pytest.raises(UsageError, match=rf"^{sharded}: has no shards to join; `cacl data prepare` goes on with it$"):
        join(sharded)
    with pytest.raises(UsageError, match=rf"^{location}/new: has no shards to join; `.* 1/N` makes the first$"):
        join(location / "new")


def test_a_shard_at_work(location: Path) -> None:
    """Nobody else works on the shard, and it is not joined meanwhile. Others are worked on, and leave its files."""
    run_shard(location, "2/2")
    written = location / "sharded/videos/.what is being written.mp4.writing"
    written.touch()
    told: list[str] = []

    def again(done: int, total: int, path: str) -> None:
        told.append(path)
        for call in (lambda: run_shard(location, "1/2"), lambda: join(location / "sharded")):
            with pytest.raises(DataError, match=r"sharded: another `cacl data prepare --shard 1/2` is at work there$"):
                call()
        assert run_shard(location, "2/2").converted
        assert written.exists()

    config = DataConfig(root=str(location / "source"))
    prepare(config, location / "sharded", SETTINGS, workers=1, progress=again, shard=Shard(1, 2))
    assert told
    join(location / "sharded")
    assert_one_set(location)


def test_nothing_usable(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/a.mp4").touch()
    run_shards(tmp_path, 2)
    with pytest.raises(DataError, match=r"no video can be used, of 1 found: a\.mp4 is empty \(0 bytes\)$"):
        join(tmp_path / "sharded")


# --- Verification


def test_each_verifies_its_own(location: Path) -> None:
    summaries = [run_shard(location, f"{number}/2") for number in (1, 2)]
    shares = [[path for path in GOOD if Shard(number, 2).takes(path)] for number in (1, 2)]
    assert all(shares)
    for summary, share in zip(summaries, shares, strict=True):
        seen: set[str] = set()
        assert verify(summary, 8, progress=lambda done, total, path, seen=seen: seen.add(path)).clips == 8
        assert seen == set(share)
    file = location / "sharded" / prepared_path(shares[1][0])
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    verify(summaries[0], 8, progress=lambda *_: None)
    with pytest.raises(VerificationError, match=rf"^{file}: is damaged at byte"):
        verify(summaries[1], 8, progress=lambda *_: None)
