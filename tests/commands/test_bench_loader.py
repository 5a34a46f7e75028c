"""`cacl bench-loader`: what it measures, what it refuses to print, and what it says to wrong input."""

import json
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cacl.benchmarks.loader.contenders import BASELINE, OFFICIAL
from tests.benchmarks.loader.small import FRAMES, SMALL, make_videos
from tests.commands.finished import Run
from tests.launch import ROOT

SET = [part for setting in SMALL for part in ("--set", setting)]
RIVALS = ["PyAV + DataLoader", "TorchCodec + DataLoader", "decord2 + DataLoader", "PyAV + ColorJitter"]
PARTS = ["cpu, decode only"]
ON_BOTH = [BASELINE, *PARTS, "cacl dali", *RIVALS]


@pytest.fixture(scope="session")
def raw(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    make_videos(make_video, root)
    return root


@pytest.fixture(scope="session")
def prepared(raw: Path, interpreter: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("sets") / "prepared"
    done = interpreter("data", "prepare", raw, target, "--gop", 8)
    assert done.returncode == 0, done.stderr
    return target


def test_every_loader_on_raw_and_on_prepared_videos(cacl: Run, raw: Path, prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    done = cacl("bench-loader", raw, "--prepared", prepared, "--clips", 7, "--repeats", 2, "--out", out, "--json", *SET)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert json.loads((out / "bench_loader.json").read_text()) == result

    rows = {(row["contender"], row["files"]): row for row in result["rows"]}
    both = [(loader, files) for loader in ON_BOTH for files in ("raw", "prepared")]
    assert list(rows) == [*both, (OFFICIAL, "raw")]
    for (loader, _), row in rows.items():
        if loader in ("cacl dali", "TorchCodec + DataLoader", "decord2 + DataLoader") and not row["stats"]:
            assert row["reason"].startswith(("skipped: ", "refused: "))
            continue
        assert row["reason"] == ""
        assert row["difference"] is None if loader in PARTS else row["difference"] <= row["tolerance"]
        stats = row["stats"]
        each, spread = stats["each_clips_per_second"], stats["clips_per_second"]
        assert len(each) == 2
        assert 0 < min(each) == spread["min"] <= spread["median"] == pytest.approx(np.mean(each))
        assert max(each) == spread["max"]
        assert stats["returned_frames_per_second"] == pytest.approx(4 * spread["median"])
        assert stats["dropped_clips"] == 0
        assert 0 < stats["wait_ms_p50"] <= stats["wait_ms_p99"]
        assert stats["first_batch_seconds"] > 0

    cpu, file = rows[BASELINE, "prepared"], rows[OFFICIAL, "raw"]
    assert cpu["ratio"] == 1
    of_each = zip(*(row["stats"]["each_clips_per_second"] for row in (file, cpu)), strict=True)
    assert file["ratio"] == pytest.approx(np.median([speed / base for speed, base in of_each]))
    assert file["stats"]["decoded_frames_per_second"] == pytest.approx(FRAMES * _speed(file))
    # A clip spans seven frames, and begins at one of the eight of a group.
    assert 7 <= cpu["stats"]["decoded_frames_per_second"] / _speed(cpu) <= 14

    assert result["settings"] | {"batch_size": 2, "clips": 6, "repeats": 2, "threads": 2} == result["settings"]
    assert result["stages"]["raw"]["read"] is None
    # The other two are differences of timings, which for clips as small as these may come out on either side of 0.
    of_prepared = result["stages"]["prepared"]
    assert of_prepared["read"] > 0
    assert sum(of_prepared.values()) > 0
    files = result["files"]["prepared"]
    assert files["codecs"] == {"h264": 3}
    assert files["bytes"] == sum(file.stat().st_size for file in prepared.rglob("*.mp4"))
    assert files["frames_between_seek_points"] == 8
    assert {"cpu", "cores", "python", "torch", "torchvision", "av", "commit"} <= set(result["machine"])


def _speed(row: dict) -> float:
    return row["stats"]["clips_per_second"]["median"]


def test_the_report_names_no_folder_and_no_machine(cacl: Run, raw: Path, tmp_path: Path) -> None:
    done = cacl("bench-loader", raw, "--clips", 2, "--repeats", 1, "--out", tmp_path, *SET)
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "bench_loader.json").read_text()
    for text in (done.stdout, report):
        assert str(raw.parent) not in text
        assert str(ROOT) not in text
        assert platform.node() not in text
    with Image.open(tmp_path / "bench_loader.png") as image:
        image.load()
        assert image.format == "PNG"
        assert image.width == 1600
    assert {row["files"] for row in json.loads(report)["rows"]} == {"raw"}
    for loader in (*ON_BOTH, OFFICIAL):
        assert f"{loader}: " in done.stdout
    assert "0 clips dropped" in done.stdout
    assert done.stderr.splitlines() == ["warm-up", "repeat 1 of 1"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["{tmp}/none"], 1, "{tmp}/none"),
        (["{tmp}"], 1, "{tmp}"),
        (["{raw}", "--clips", "1"], 2, "--clips 1: a batch is 2"),
        (["{raw}", "--repeats", "0"], 2, "--repeats 0"),
        (["{raw}", "--prepared", "{raw}"], 2, "--prepared {raw}: does not hold the videos of {raw}"),
        (["{raw}/b", "--prepared", "{prepared}"], 2, "cacl data prepare {raw}/b {prepared}"),
        (["{raw}", "--out", "{raw}/a.mp4"], 2, "--out {raw}/a.mp4"),
        (["{raw}", "--set", "loader.thread=1"], 2, "loader.threads"),
    ],
)
def test_wrong_input_is_one_line_with_a_way_out(
    cacl: Run, raw: Path, prepared: Path, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    def filled(text: str) -> str:
        return text.format(tmp=tmp_path, raw=raw, prepared=prepared)

    done = cacl("bench-loader", *map(filled, arguments), *SET)
    assert (done.returncode, done.stdout) == (code, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("cacl: ")
    assert filled(said) in line
