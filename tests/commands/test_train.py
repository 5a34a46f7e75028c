"""`cacl train` from end to end: what it writes, what it prints, and where."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cacl import config as configuration
from cacl.checkpoints import checkpoint
from tests.commands.finished import Finished, Run, result


def test_training_fills_a_run_folder(trained: tuple[Path, Finished], config_file: Path) -> None:
    run, finished = trained
    summary = result(finished)
    assert (summary["run"], summary["steps"], summary["steps_taken"]) == (str(run), 3, 3)  # 2 epochs of 6 by 4
    assert summary["seconds"] > 0
    assert all(math.isfinite(value) for value in summary["scalars"].values())
    assert {"loss", "contrast", "order", "clips_per_second"} <= set(summary["scalars"])

    config = configuration.load(config_file, [f"run={run}"])
    assert configuration.load(run / "config.toml") == config
    saved = checkpoint.load(run)
    assert (saved.step, saved.config) == (3, config)
    encoders = load_file(run / "encoders.safetensors")
    assert {name.split(".")[0] for name in encoders} == {"cnn", "transformer"}
    assert all(torch.equal(value, saved.model[f"query.{name}"]) for name, value in encoders.items())
    names = {path.name for path in run.iterdir()}
    (events,) = (name for name in names if name.startswith("events.out.tfevents"))
    assert names == {"config.toml", "manifest.jsonl", "checkpoint.pt", "encoders.safetensors", "metrics.jsonl", events}


def test_training_logs_to_stderr(trained: tuple[Path, Finished], videos: Path) -> None:
    _, finished = trained
    first, loader, *steps = finished.stderr.splitlines()
    assert first == f"6 training videos of 8 in {videos} (layout csv)"
    assert loader.startswith("loader: cpu, ")
    told = [line.split(",")[0] for line in steps if not line.startswith("warning: ")]  # such a small run collapses
    assert told == ["step 1/3", "step 2/3", "step 3/3"]


def test_tensorboard_has_the_scalars_of_every_logged_step(trained: tuple[Path, Finished]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, finished = trained
    events = EventAccumulator(str(run))
    events.Reload()
    last = result(finished)["scalars"]
    assert set(last) | {"epoch"} == set(events.Tags()["scalars"])
    assert [event.value for event in events.Scalars("epoch")] == pytest.approx([4 / 6, 8 / 6, 12 / 6])
    for name, value in last.items():
        logged = events.Scalars(name)
        assert [event.step for event in logged] == [1, 2, 3]
        assert logged[-1].value == pytest.approx(value, rel=1e-6)


def test_the_summary_is_one_line_for_people(cacl: Run, config_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    finished = cacl("train", "-c", config_file, "-s", f"run={run}", "-s", "train.epochs=0.5")
    assert finished.returncode == 0
    assert finished.stdout.startswith(f"{run}: 1 of 1 steps in ")
    assert finished.stdout.count("\n") == 1


def test_a_dry_run_prints_the_configuration_and_does_nothing(cacl: Run, config_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["train", "-c", config_file, "-s", f"run={run}", "--dry-run"]
    config = configuration.load(config_file, [f"run={run}"])
    shown = cacl(*arguments)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, configuration.to_toml(config), "")
    assert result(cacl(*arguments, "--json")) == json.loads(json.dumps(configuration.to_dict(config)))
    assert not run.exists()


def test_a_finished_run_is_resumed_without_a_step(cacl: Run, run: Path, config_file: Path) -> None:
    before = load_file(run / "encoders.safetensors")
    finished = cacl("train", "-c", config_file, "-s", f"run={run}", "--resume", "--json")
    assert (result(finished)["steps"], result(finished)["steps_taken"]) == (3, 0)
    assert f"resuming {run} after step 3 of 3" in finished.stderr
    after = load_file(run / "encoders.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_resuming_what_has_not_begun_begins_it(cacl: Run, config_file: Path, tmp_path: Path) -> None:
    finished = cacl("train", "-c", config_file, "-s", f"run={tmp_path / 'run'}", "--resume", "--json")
    assert result(finished)["steps_taken"] == 3
    assert "holds no checkpoint yet: beginning at step 0" in finished.stderr
