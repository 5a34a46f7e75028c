"""`cacl data prepare` from end to end: what it prints, how it ends, and that the other commands take what it makes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cacl.loaders.catalog.prepared_files import CONVERSION_LOG_NAME, INDEX_NAME
from tests.commands.finished import Run, result


@pytest.fixture
def source(videos: Path, tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    """The eight small videos, which are copied, one that is scaled down, and one that is none."""
    root = tmp_path / "source"
    root.mkdir()
    for folder in ("run", "walk"):
        (root / folder).symlink_to(videos / folder)
    make_video(root / "more/large.avi", frames=20, size=(96, 80), codec="mpeg4")
    (root / "more/empty.mp4").touch()
    return root


def test_counts_and_reasons_are_printed(cacl: Run, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    arguments = ["data", "prepare", source, target, "--short-side", "64", "--verify", "9"]
    finished = cacl(*arguments)
    assert finished.returncode == 0, finished.stderr
    what, how, size, rejected, share, verified = finished.stdout.splitlines()
    assert what == f"{target}: 9 videos of {source} (layout classes)"
    assert how == "8 copied, 1 encoded; 0 of them by an earlier run"
    assert size.endswith(" MB became 0.0 MB")
    assert (rejected, share) == ("rejected  more/empty.mp4: is empty (0 bytes)", "1 of 10 files rejected")
    assert verified.startswith("9 clips verified: PSNR at least ")

    told = result(cacl(*arguments, "--json"))
    assert (told["videos"], told["copied"], told["encoded"], told["kept"]) == (9, 8, 1, 9)
    assert told["rejected"] == [{"path": "more/empty.mp4", "reason": "is empty (0 bytes)"}]
    assert told["verified"]["clips"] == 9
    assert 25 < told["verified"]["lowest_psnr_db"] <= told["verified"]["median_psnr_db"] < 100
    assert told["settings"] == {"short_side": 64, "gop": 16, "crf": 23, "codec": "h264"}
    assert result(cacl(*arguments[:-2], "--json"))["verified"] is None


def test_other_commands_take_the_set(cacl: Run, videos: Path, config_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    assert cacl("data", "prepare", videos, target, "--crf", "18", "--gop", "4", "--workers", "1").returncode == 0
    source, prepared = (
        result(cacl("data", "scan", root, "-s", "clip.frames=8", "--json")) for root in (videos, target)
    )
    described = ("frames", "width", "height", "label", "split", "attributes")
    assert [[v[key] for key in described] for v in prepared["videos"]] == [
        [v[key] for key in described] for v in source["videos"]
    ]
    run = ["train", "-c", config_file, "-s", f"data.root={target}", "-s", f"run={tmp_path / 'run'}", "--json"]
    assert result(cacl(*run))["steps_taken"] == 3


def test_too_many_rejected(cacl: Run, source: Path, tmp_path: Path) -> None:
    finished = cacl("data", "prepare", source, tmp_path / "target", "--set", "data.max_rejected_share=0.05")
    assert finished.returncode == 1
    assert "rejected  more/empty.mp4: is empty (0 bytes)" in finished.stdout
    assert finished.stderr.startswith(f"cacl: data.root = {source}: 1 of 10 videos cannot be used, more than data.max_")
    assert (tmp_path / "target" / INDEX_NAME).exists()


def test_a_failed_verification(cacl: Run, videos: Path, tmp_path: Path) -> None:
    arguments = ["data", "prepare", videos, tmp_path / "target", "--verify", "3"]
    assert cacl(*arguments).returncode == 0
    for file in (tmp_path / "target/videos").rglob("*.mp4"):
        content = bytearray(file.read_bytes())
        content[-10] ^= 1
        file.write_bytes(content)
    finished = cacl(*arguments)
    assert (finished.returncode, finished.stdout) == (3, "")
    assert finished.stderr.startswith(f"cacl: {tmp_path}/target/videos/")
    assert finished.stderr.count("\n") == 1
    assert "is damaged at byte" in finished.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["{source}", "{source}"], 2, "lies within"),
        (["{source}", "{source}/target"], 2, "lies within"),
        (["{source}", "{full}"], 2, "is not empty, and no prepared set"),
        (["{source}", "{target}", "--short-side", "15"], 2, "short side 15: give an even number from 16"),
        (["{source}", "{target}", "--set", "data.test_share=0.2"], 2, "data.test_share"),
        (["{source}", "{target}", "--set", "data.layouts=csv"], 2, "did you mean data.layout?"),
        (["{source}", "{target}", "--shard", "5/4"], 2, "--shard 5/4: give I/N with I from 1 to N"),
        (["{source}", "{target}", "--shard", "0/4"], 2, "--shard 0/4: give I/N with I from 1 to N"),
        (["{source}", "{target}", "--shard", "x"], 2, "--shard x: give I/N with I from 1 to N"),
        (["{source}", "{target}", "--shard", ""], 2, "--shard : give I/N with I from 1 to N"),
        (["{source}", "{full}/file/target"], 1, "cannot be written (Not a directory)"),
        (["{full}/nothing", "{target}"], 1, "does not exist"),
    ],
)
def test_what_cannot_be(cacl: Run, source: Path, tmp_path: Path, arguments: list[str], code: int, named: str) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").touch()
    names = {"source": source, "target": tmp_path / "target", "full": full}
    finished = cacl("data", "prepare", *(argument.format(**names) for argument in arguments))
    assert (finished.returncode, finished.stdout) == (code, "")
    assert finished.stderr.startswith("cacl: ")
    assert finished.stderr.count("\n") == 1
    assert named in finished.stderr


def test_shards_are_joined(cacl: Run, source: Path, tmp_path: Path) -> None:
    """How many rejected sources are too many is said when all are known."""
    target = tmp_path / "target"
    few = ["--set", "data.max_rejected_share=0.05"]
    told = []
    for shard in ("1/2", "2/2"):
        told.append(result(cacl("data", "prepare", source, target, "--shard", shard, "--verify", "3", "--json", *few)))
        assert (told[-1]["shard"], told[-1]["verified"]["clips"]) == (shard, 3)
    assert sum(shard["videos"] for shard in told) == 9
    assert [r["path"] for shard in told for r in shard["rejected"]] == ["more/empty.mp4"]
    again = cacl("data", "prepare", source, target, "--shard", "1/2").stdout.splitlines()
    assert again[0] == f"shard 1/2 is finished; after all 2, `cacl data join {target}` writes the index"
    assert again[1] == f"{target}: {told[0]['videos']} videos of {source} (layout classes)"

    wrong = cacl("data", "join", target, "--set", "data.layout=csv")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == (
        "cacl: of data.*, only data.max_rejected_share is set for a join: the shards tell the rest\n"
    )
    refused = cacl("data", "scan", target)
    assert refused.returncode == 1
    assert refused.stderr.endswith(f"whose shards are not joined; `cacl data join {target}` does it\n")

    joined = cacl("data", "join", target, *few)
    assert joined.returncode == 1
    assert joined.stdout.startswith(
        f"{target}: 9 videos of {source} (layout classes)\n8 copied, 1 encoded; 9 of them by"
    )
    assert joined.stderr.startswith(f"cacl: data.root = {source}: 1 of 10 videos cannot be used, more than data.max_")
    assert (target / INDEX_NAME).exists()


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_stopped_by_a_signal(
    make_video: Callable[..., Path], environment: dict[str, str], tmp_path: Path, cacl: Run, number: signal.Signals
) -> None:
    """The signal goes to all processes, as from a terminal. They are halted before, to see that they are at work."""
    make_video(tmp_path / "source/a.avi", frames=4, codec="mpeg4")
    long = make_video(tmp_path / "source/b.avi", frames=300, codec="mpeg4", size=(320, 240))
    for name in "cde":
        shutil.copy(long, long.with_stem(name))
    arguments = ["data", "prepare", str(tmp_path / "source"), str(tmp_path / "target"), "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "cacl.cli", *arguments],
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    log = tmp_path / "target" / CONVERSION_LOG_NAME
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    _header, *done = log.read_bytes().splitlines()
    assert 1 <= len(done) < 5
    os.killpg(process.pid, number)
    os.killpg(process.pid, signal.SIGCONT)
    out, err = process.communicate(timeout=240)
    assert (process.returncode, out, err) == (130, "", "cacl: interrupted\n")
    assert not (tmp_path / "target" / INDEX_NAME).exists()
    assert result(cacl(*arguments, "--json"))["kept"] == len(done)
