"""What W&B and trackio keep of a run while they are offline, also when it is resumed."""

import importlib.util
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.launch import ROOT

LOG = """
import sys
from pathlib import Path
from cacl.reporting.console import Console
from cacl.reporting.scalars import ScalarLog
from tests.tiny import tiny_config

name, run, first_step, value, *steps = sys.argv[1:]
Path(run).mkdir(exist_ok=True)
config = tiny_config(run, {"train": {"loggers": (name,)}})
with Console() as console, ScalarLog(config, console, first_step=int(first_step), steps=8) as scalar_log:
    for step in map(int, steps):
        scalars = {"loss": float(value), "contrast": 1.0, "similarity/cnn": float("nan")}
        scalar_log.write(step, scalars | {"epoch": step, "clips_per_second": 1.0, "data_wait_share": 0.0})
"""
"""A script that logs steps of a run. Its arguments are the logger, the run folder, the step that it goes on from, the
loss, and the steps."""


def log_steps(name: str, run: Path, first_step: int, value: float, *steps: int) -> None:
    """Runs the script with no place to send anything to, and sees that stdout is left to results."""
    environment = os.environ | {"WANDB_MODE": "offline", "TRACKIO_DIR": str(run.parent / "kept by trackio")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", LOG, name, str(run), *map(str, (first_step, value, *steps))]
    done = subprocess.run(command, cwd=run.parent, env=environment, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def needs(package: str) -> pytest.MarkDecorator:
    spec = importlib.util.find_spec(package)
    return pytest.mark.skipif(spec is None or spec.origin is None, reason=f"{package} is not installed")


def wandb_records(file: Path) -> Iterator[Any]:
    """Yields the records of a run that W&B keeps while it is offline, in the format of the logs of LevelDB."""
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore

    block, header, last_or_whole = 32768, struct.Struct("<IHB"), (1, 4)
    data, at, record = file.read_bytes(), 7, b""
    while at + header.size <= len(data):
        if block - at % block < header.size:
            at += block - at % block
            continue
        _, size, kind = header.unpack_from(data, at)
        record += data[at + header.size : at + header.size + size]
        at += header.size + size
        if kind in last_or_whole:
            yield Record.FromString(record)
            record = b""


def wandb_runs(run: Path) -> list[tuple[str, dict[str, Any], dict[int, float]]]:
    """Returns the id, the configuration and the losses by step, of each attempt in its order."""
    found = []
    for file in sorted(run.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns):
        records = list(wandb_records(file))
        (started,) = (record.run for record in records if record.HasField("run"))
        config = {item.key: json.loads(item.value_json) for item in started.config.update}
        losses = {}
        for record in records:
            if record.HasField("history"):
                (loss,) = (item.value_json for item in record.history.item if "loss" in (item.key, *item.nested_key))
                losses[record.history.step.num] = float(loss)
        found.append((started.run_id, config, losses))
    return found


@needs("wandb")
def test_wandb_goes_on_with_the_run_of_a_folder(tmp_path: Path) -> None:
    """Offline, each attempt is a folder, and the id says that they are one run."""
    run = tmp_path / "run"
    log_steps("wandb", run, 0, 0.5, 2, 4, 6)
    log_steps("wandb", run.rename(tmp_path / "moved"), 4, 0.25, 6, 8)
    first, second = wandb_runs(tmp_path / "moved")
    assert (first[2], second[2]) == ({2: 0.5, 4: 0.5, 6: 0.5}, {6: 0.25, 8: 0.25})
    assert first[0] == second[0]
    assert first[1]["clip"]["frames"] == 4
    assert first[1]["train"]["loggers"] == ["wandb"]
    log_steps("wandb", tmp_path / "moved", 0, 0.5, 2)
    assert wandb_runs(tmp_path / "moved")[2][0] != first[0]


@needs("wandb")
def test_wandb_without_a_key_is_one_line(tmp_path: Path) -> None:
    code = "import sys; from cacl.reporting.sinks.wandb_sink import WandbSink; from tests.tiny import tiny_config\n"
    code += "from cacl.errors import UsageError\n"
    code += "try: WandbSink(tiny_config(sys.argv[1]), 0)\nexcept UsageError as error: print(error)"
    left_out = ("WANDB_API_KEY", "WANDB_MODE")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    environment |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240
    )
    assert done.stdout.count("\n") == 1, done.stderr
    assert done.stdout.startswith('train.loggers, "wandb": No API key configured.')
    assert done.stdout.endswith("WANDB_MODE=offline needs no server\n")


TRACKIO_RUNS = """
import json
from trackio.sqlite_storage import SQLiteStorage
for run in SQLiteStorage.get_run_records("cacl"):
    logs = SQLiteStorage.get_logs("cacl", run["name"])
    config = SQLiteStorage.get_run_config("cacl", run["name"])
    print(json.dumps([run["name"], config, [[entry["step"], entry["loss"]] for entry in logs]]))
"""
"""A script, since trackio reads where its runs are when it is imported."""


@needs("trackio")
def test_trackio_goes_on_with_the_run_of_a_folder(tmp_path: Path) -> None:
    """Step 6 is there from the attempt that was cut off, and is not written twice."""
    log_steps("trackio", tmp_path / "run", 0, 0.5, 2, 4, 6)
    log_steps("trackio", tmp_path / "run", 4, 0.25, 6, 8)
    log_steps("trackio", tmp_path / "other", 0, 0.125, 2)
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "kept by trackio")}
    command = [sys.executable, "-c", TRACKIO_RUNS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    name, config, losses = json.loads(done.stdout.splitlines()[0])
    assert name == f"cacl-{(tmp_path / 'run/logger_id.txt').read_text()}"
    assert config["clip"]["frames"] == 4
    assert losses == [[2, 0.5], [4, 0.5], [6, 0.5], [8, 0.25]]
    assert [json.loads(line)[2] for line in done.stdout.splitlines()[1:]] == [[[2, 0.125]]]
