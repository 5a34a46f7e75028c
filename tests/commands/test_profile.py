"""`cacl profile`: what it records, what it leaves alone, and how it calls NVIDIA's profilers."""

import ast
import gzip
import json
import os
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from cacl import config as configuration
from cacl.cli import app
from cacl.profiling import nsight
from cacl.stages import ENCODERS, STAGES
from tests.commands.finished import Finished, Run
from tests.launch import ROOT

STEPS = ("--set", "profile.steps=[1, 4]", "--set", "train.epochs=4")
"""Four epochs of six videos are six steps of four clips."""


def stages_of(finished: Finished) -> dict:
    """The result, which counts whether or not something else had the machine in the recorded steps (3)."""
    assert finished.returncode in (0, 3), finished.stderr
    return json.loads(finished.stdout)


def test_the_steps_of_a_training_are_split_into_stages(cacl: Run, config_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "profile"
    found = stages_of(cacl("profile", "--config", config_file, "--out", out, *STEPS, "--json"))
    assert (found["steps"], found["device"]) == ([1, 4], "cpu")
    assert (
        {path.name for path in out.iterdir()} == {"trace.json.gz", "stages.json", "config.toml"} == set(found["files"])
    )
    assert json.loads((out / "stages.json").read_text()) == {k: v for k, v in found.items() if k not in ("nsys", "ncu")}
    assert configuration.load(out / "config.toml").profile.steps == (1, 4)

    table = found["tables"]["0"]
    assert table["steps"] == 3
    rows = {row["stage"]: row for row in table["rows"]}
    assert list(rows) == [*(name for name in _with_encoders() if name in rows), "other"]
    assert set(rows) == {*_with_encoders(), "other"}
    assert {row["calls"] for name, row in rows.items() if name not in ("data", "other")} == {1}
    outer = [row for name, row in rows.items() if "/" not in name]
    assert sum(row["host_ms"] for row in outer) == pytest.approx(table["step_ms"])
    assert sum(row["share"] for row in outer) == pytest.approx(1)
    for name in ("query", "keys"):
        inner = sum(rows[f"{name}/{encoder}"]["host_ms"] for encoder in ENCODERS)
        assert 0 < inner <= rows[name]["host_ms"]
    assert rows["backward"]["peak_bytes"] > rows["copy"]["peak_bytes"] >= 0
    with gzip.open(out / "trace.json.gz", "rt") as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert {f"cacl/{name}" for name in (*STAGES, *ENCODERS, "step")} <= names


def _with_encoders() -> list[str]:
    parts = {name: [f"{name}/{encoder}" for encoder in ENCODERS] for name in ("query", "keys")}
    return [path for name in STAGES for path in (name, *parts.get(name, []))]


def test_the_table_is_for_people(cacl: Run, videos: Path, config_file: Path, tmp_path: Path) -> None:
    done = cacl("profile", videos, "-c", config_file, "-s", "data.root=", "--out", tmp_path, *STEPS)
    assert done.returncode == 2, "data.root is given twice"
    done = cacl("profile", "-c", config_file, "--out", tmp_path / "out", *STEPS)
    assert done.returncode in (0, 3), done.stderr
    assert "steps 2 to 4 on cpu, milliseconds of a step:" in done.stdout
    assert re.search(r"│ backward +│ +1 │ +[\d.]+ │ +[\d.]+ % │ +[\d.]+ │", done.stdout)
    (nsys,) = (line for line in done.stdout.splitlines() if line.startswith("on a machine with CUDA and nsys: "))
    command = shlex.split(nsys.partition(": ")[2])
    assert command[:4] == ["nsys", "profile", "--capture-range=cudaProfilerApi", "--capture-range-end=stop"]
    assert command[command.index("-m") :] == [
        *("-m", "cacl.cli", "profile", "--config", str(config_file)),
        *(*STEPS, "--out", str(tmp_path / "out"), "--ranges"),
    ]
    assert "and ncu: ncu --profile-from-start=off" in done.stdout


def test_without_a_configuration_settings_are_chosen_as_for_a_training(cacl: Run, videos: Path, tmp_path: Path) -> None:
    small = ("clip.frames=4", "clip.size=16", "model.width=0.0625", "train.batch_size=2", "loader.threads=1")
    overrides = [part for each in (*small, "profile.steps=[0, 1]") for part in ("--set", each)]
    done = cacl("profile", videos, "--out", tmp_path, *overrides, "--json")
    assert stages_of(done)["tables"]["0"]["steps"] == 1
    assert "chosen: optim.name" in done.stderr


def test_a_run_is_left_alone(cacl: Run, run: Path, config_file: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.iterdir()}
    done = cacl("profile", "--config", config_file, "--set", f"run={run}", "--out", run)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"cacl: --out {run}: holds a run, which a profile must not touch; name another folder\n"
    done = cacl("profile", "--config", config_file, "--set", f"run={run}", "--out", run / "profile", *STEPS, "--json")
    stages_of(done)
    assert {path: path.stat().st_mtime_ns for path in run.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "profile.steps=[3, 3]"], "profile.steps = [3, 3]: no step lies between them"),
        (["--set", "profile.steps=[-1, 3]"], "profile.steps.0 = -1"),
        ([], "profile.steps = [10, 15]: the training has only 3 steps"),
        (
            ["--set", "profile.ranks=[0, 2]"],
            "profile.ranks = [0, 2]: there is no process 2; they are numbered from 0 to 0",
        ),
        (["--set", "profile.ranks=[]"], "profile.ranks = []"),
        (["--out", "{file}"], "--out {file}: is no folder"),
        (["--ranges"], "--ranges: Nsight records CUDA, and this trains on cpu"),
    ],
)
def test_wrong_input_is_one_line_with_a_way_out(
    cacl: Run, config_file: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    filled = [argument.format(file=file) for argument in arguments]
    out = [] if "--out" in arguments else ["--out", tmp_path / "out"]
    done = cacl("profile", "--config", config_file, *out, *filled)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(f"cacl: {said.format(file=file)}")


# ------------------------------------------------------------------------------------------------ NVIDIA's profilers


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs named nsys and ncu, first on PATH, which write down their arguments and end with the code in `code`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("nsys", "ncu"):
        tool = folder / name
        written, code = tmp_path / f"{name}.txt", tmp_path / "code"
        tool.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{written}"\nexit $(cat "{code}")\n')
        tool.chmod(0o755)
    (tmp_path / "code").write_text("0")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


@pytest.mark.parametrize(("option", "tool"), [("--nsys", "nsys"), ("--kernels", "ncu")])
def test_the_profiler_is_run_around_the_same_command(cacl: Run, tools: Path, option: str, tool: str) -> None:
    out = str(tools / "o")
    given = ["videos", "--config", "demo", "--set", "profile.steps=[2, 3]", "--import", "json", "--out", out]
    done = cacl("profile", *given, option)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    arguments = (tools / f"{tool}.txt").read_text().splitlines()
    split = arguments.index(sys.executable)
    assert arguments[split:] == [sys.executable, "-m", "cacl.cli", "profile", *given, "--ranges"]
    if tool == "nsys":
        assert {"profile", "--capture-range=cudaProfilerApi", f"--output={out}/nsys"} < set(arguments[:split])
        assert any(re.fullmatch(r"--trace=.*\bnvtx\b.*", argument) for argument in arguments[:split])
    else:
        assert {"--profile-from-start=off", f"--export={out}/ncu"} < set(arguments[:split])
        assert f"--kernel-name=regex:{nsight.KERNELS}" in arguments[:split]


def test_its_exit_code_is_that_of_the_command(cacl: Run, tools: Path) -> None:
    (tools / "code").write_text("7")
    assert cacl("profile", "videos", "--out", tools / "o", "--nsys").returncode == 7


@pytest.mark.parametrize(("option", "tool"), [("--nsys", "nsys"), ("--kernels", "ncu")])
def test_a_profiler_that_is_not_there(
    cacl: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, option: str, tool: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = cacl("profile", "videos", "--out", tmp_path / "o", option)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"cacl: {tool}: no such program on PATH; it is part of NVIDIA's CUDA toolkit")


def test_one_of_several_processes_starts_no_profiler(cacl: Run, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    done = cacl("profile", "videos", "--out", tools / "o", "--nsys")
    assert done.returncode == 2
    assert done.stderr.startswith("cacl: nsys: starts a single process")


def test_the_kernels_are_those_of_this_package() -> None:
    """A kernel is what is launched: of the compiled functions, those whose names end so."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "kernels").glob("*.py")]
    functions = [node for text in sources for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    names = {f.name for f in functions if any("triton.jit" in ast.unparse(each) for each in f.decorator_list)}
    kernels = {name for name in names if name.endswith("_kernel")}
    assert {name for name in names if re.search(nsight.KERNELS, name)} == kernels
    assert len(kernels) == 8


def test_its_options_are_those_of_train() -> None:
    """Apart from those that are about a run."""

    def options(command: str) -> set[str]:
        (found,) = (each for each in app.registered_commands if each.callback and each.callback.__name__ == command)
        return set(import_module("inspect").signature(found.callback).parameters)

    assert options("train") - options("profile") == {"run", "resume", "report", "dry_run"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(cacl: Run, config_file: Path, tmp_path: Path) -> None:
    done = cacl("profile", "-c", config_file, "--set", "train.device=cuda", "--out", tmp_path / "o")
    assert done.returncode == 2
    assert "no CUDA device is visible" in done.stderr
