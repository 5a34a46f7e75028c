"""`cacl bench-step`: what it measures, what it prints and writes, and what it says to wrong input."""

import json
import platform
from pathlib import Path
from statistics import median

import pytest
import torch
from PIL import Image

from cacl.benchmarks.harness import timing
from cacl.benchmarks.step.contenders import BASELINE, OFFICIAL
from cacl.stages import STAGES
from tests.commands.finished import Run
from tests.launch import ROOT

SMALL = (
    *("clip.frames=4", "clip.size=16", "model.width=0.0625", "model.embedding_dim=8", "contrast.queue_size=16"),
    *("model.transformer.embedder=light", "model.transformer.width=16", "model.transformer.depth=1"),
    *("model.transformer.heads=2", "train.batch_size=4", "train.device=cpu"),
)
SET = [part for setting in SMALL for part in ("--set", setting)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "MEASUREMENT_SECONDS", 0.005)


def test_both_steps_side_by_side(cacl: Run, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    done = cacl("bench-step", "--repeats", 2, "--no-compile", "--out", out, "--json", *SET)
    assert done.returncode in (0, 3), done.stderr  # 3: something else had the machine in the profiled steps.
    result = json.loads(done.stdout)
    assert json.loads((out / "bench_step.json").read_text()) == result
    ours, theirs = result["rows"]
    assert [ours["contender"], theirs["contender"]] == [BASELINE, OFFICIAL]
    assert ours["ratio"] == 1
    for row in (ours, theirs):
        assert row["reason"] == ""
        assert set(row["errors"]) == {"contrast", "order", "loss", "gradient"}
        assert all(error <= row["loss_limit"] for name, error in row["errors"].items() if name != "gradient")
        stats = row["stats"]
        each, spread = stats["each_seconds"], stats["seconds"]
        assert len(each) == 2
        assert 0 < min(each) == spread["min"] <= spread["median"] == pytest.approx(median(each))
        assert max(each) == spread["max"]
        assert stats["clips_per_second"] == pytest.approx(4 / spread["median"])
        assert stats["flops_per_second"] == pytest.approx(stats["flops"] / spread["median"])
        assert stats["peak_share"] == pytest.approx(stats["flops_per_second"] / result["peak_flops_per_second"])
        assert stats["memory_bytes"] is None or stats["memory_bytes"] >= 0
        stages = stats["stages"]
        whole = sum(stage["host_ms"] for stage in stages["rows"] if "/" not in stage["stage"])
        assert whole == pytest.approx(stages["step_ms"])
        assert {stage["stage"] for stage in stages["rows"]} >= {*STAGES, "query/cnn", "keys/transformer"} - {"log"}
    of_each = zip(theirs["stats"]["each_seconds"], ours["stats"]["each_seconds"], strict=True)
    assert theirs["ratio"] == pytest.approx(median(seconds / base for seconds, base in of_each))
    settings = result["settings"]
    assert settings | {"batch_size": 4, "precision": "fp32", "device": "cpu", "repeats": 2} == settings
    assert settings["threads"] == torch.get_num_threads()
    assert (settings["clip"]["frames"], settings["model"]["cnn"]) == (4, "r3d10")
    assert {"cpu", "cores", "python", "torch", "timm", "commit", "gpu", "cuda"} <= set(result["machine"])


def test_the_report_names_no_folder_and_no_machine(cacl: Run, tmp_path: Path) -> None:
    """What the release cannot compute is named in its place."""
    done = cacl(
        "bench-step", "--repeats", 1, "--no-compile", "--out", tmp_path, *SET, "--set", "contrast.negatives=batch"
    )
    assert done.returncode in (0, 3), done.stderr
    report = (tmp_path / "bench_step.json").read_text()
    for text in (done.stdout, report):
        assert str(tmp_path) not in text
        assert str(ROOT) not in text
        assert platform.node() not in text
    with Image.open(tmp_path / "bench_step.png") as image:
        image.load()
        assert (image.format, image.width) == ("PNG", 1600)
    assert f"{OFFICIAL}: skipped: contrast.negatives = batch: it has queue" in done.stdout
    assert "r3d10 and a transformer on light, 4 clips of 4 frames of 16 x 16, pairs cross, fp32" in done.stdout
    assert done.stderr.splitlines()[:3] == ["check", "warm-up", "repeat 1 of 1"]


def test_several_processes_take_a_step_together(cacl: Run) -> None:
    done = cacl("bench-step", "--repeats", 2, "--no-compile", "--ranks", "1,2", "--json", *SET)
    assert done.returncode in (0, 3), done.stderr
    one, two = json.loads(done.stdout)["scaling"]
    assert [one["ranks"], two["ranks"]] == [1, 2]
    for row in (one, two):
        assert len(row["each_seconds"]) == 2
        assert row["clips_per_second"] == pytest.approx(4 * row["ranks"] / median(row["each_seconds"]))
    assert one["efficiency"] == 1
    assert two["efficiency"] == pytest.approx(two["clips_per_second"] / 2 / one["clips_per_second"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--repeats", "0"], "--repeats 0: give at least 1"),
        (["--ranks", "1,x"], "--ranks 1,x: give numbers of processes, each once, such as 1,2,4"),
        (["--ranks", "2,2"], "--ranks 2,2: give numbers of processes"),
        (["--ranks", "0"], "--ranks 0: give numbers of processes"),
        (["--set", "train.device=tpu"], "train.device = 'tpu': say auto, cpu or cuda"),
        (["--set", "model.cnn=r3d1"], "model.cnn"),
        (["--out", "{file}"], "--out {file}"),
    ],
)
def test_wrong_input_is_one_line_with_a_way_out(cacl: Run, tmp_path: Path, arguments: list[str], said: str) -> None:
    file = tmp_path / "file"
    file.touch()
    done = cacl("bench-step", *(argument.format(file=file) for argument in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"cacl: {said.format(file=file)}")
