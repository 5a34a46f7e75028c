"""A small data set, a small configuration, a run trained with them once, and three ways to call the command line."""

import csv
import io
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from cacl.cli import main
from cacl.evaluation import attentive_probe
from tests import forked
from tests.commands.finished import Finished, Run

CONFIG = """
name = "tiny"

[data]
root = '{root}'

[clip]
frames = 4
stride = 1
size = 16

[model]
cnn = "r3d10"
width = 0.0625
embedding_dim = 8

[model.transformer]
embedder = "light"
frozen = false
width = 16
depth = 1
heads = 2

[contrast]
queue_size = 32
shuffle_bn_groups = 1

[train]
device = "cpu"
epochs = 2
batch_size = 4
log_every = 1

[retrieval]
clips_per_video = 2
"""


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One process, no terminal, no GPU library that asks for more threads, and a cache that goes away."""
    cache = tmp_path_factory.mktemp("cache")
    return {
        "XDG_CACHE_HOME": str(cache),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",  # what `main` sets, which then stays in these tests
        "TERM": "dumb",
        "_TYPER_FORCE_DISABLE_TERMINAL": "1",
    }


@pytest.fixture(autouse=True)
def in_this_environment(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def short_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attentive probes in this process learn for two epochs. How well they learn is tested in tests/evaluation."""
    monkeypatch.setattr(attentive_probe, "EPOCHS", 2)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT reaches the processes of a test, as from a terminal; what a shell starts in the background ignores it, and
    so does whatever that starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def call(command: list[str]) -> int:
    """Runs a command in this process, and returns its exit code."""
    code: object = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command)
        try:
            main()
        except SystemExit as exit:
            code = exit.code or 0
        except Exception:  # what the interpreter makes of it
            traceback.print_exc()
            code = 1
    assert isinstance(code, int)
    return code


@pytest.fixture
def cacl(capfd: pytest.CaptureFixture[str]) -> Run:
    """`cacl("train", "--resume")` runs a command in this process, and sees what it writes to the file descriptors."""

    def run(*arguments: object) -> Finished:
        command = ["cacl", *map(str, arguments)]
        capfd.readouterr()
        code = call(command)
        written = capfd.readouterr()
        return Finished(command, code, written.out, written.err)

    return run


@pytest.fixture(scope="session")
def process(environment: dict[str, str]) -> Run:
    """Runs a command in a process of its own. `environment=` sets more variables."""
    default = environment

    def run(*arguments: object, environment: dict[str, str] | None = None) -> Finished:
        return forked.run(forked.cacl, *arguments, environment=os.environ | default | (environment or {}))

    return run


@pytest.fixture(scope="session")
def interpreter(environment: dict[str, str]) -> Run:
    """Runs a command in a new Python. `environment=` sets more variables, and `without=` takes some away."""

    def run(*arguments: object, environment: dict[str, str] | None = None, without: Sequence[str] = ()) -> Finished:
        variables = os.environ | default | (environment or {})
        return subprocess.run(
            [sys.executable, "-m", "cacl.cli", *map(str, arguments)],
            env={name: value for name, value in variables.items() if name not in without},
            capture_output=True,
            text=True,
            timeout=240,
        )

    default = environment
    return run


@pytest.fixture(scope="session")
def videos(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of four videos of 8 to 11 frames, and a list with a second label."""
    root, rows = tmp_path_factory.mktemp("videos"), []
    for label in ("run", "walk"):
        for number, colour in enumerate(("red", "blue", "red", "blue")):
            name = f"{label}/{number}.mp4"
            make_video(root / name, frames=8 + number, size=(32, 24), gop=4)
            rows.append([name, label, colour, "test" if number == 3 else "train"])
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "colour", "split"], *rows])
    return root


@pytest.fixture(scope="session")
def config_file(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(CONFIG.format(root=videos))
    return path


@pytest.fixture(scope="session")
def trained(
    config_file: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Finished]:
    """A run folder, and what the command that made it printed. Tests only look at it; `run` is a copy to change."""
    run, out, err = tmp_path_factory.mktemp("runs") / "tiny", io.StringIO(), io.StringIO()
    command = ["cacl", "train", "--config", str(config_file), "--set", f"run={run}", "--json"]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for name, value in environment.items():
            patch.setenv(name, value)
        code = call(command)
    return run, Finished(command, code, out.getvalue(), err.getvalue())


@pytest.fixture
def run(trained: tuple[Path, Finished], tmp_path: Path) -> Path:
    """A copy of the trained run, which a test may change."""
    return shutil.copytree(trained[0], tmp_path / "run")
