"""A run that is interrupted: it says so, leaves a checkpoint, and goes on later. SIGTERM and the bits: tests/golden."""

import json
import os
import signal
from pathlib import Path

import pytest

from cacl.checkpoints import checkpoint
from tests import forked
from tests.commands.finished import Run

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 50


def interrupted(arguments: list[str], environment: dict[str, str], after: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a process that gets SIGINT after the first line on stderr with `after` in it.

    It cannot finish before: it logs more in half its steps than the pipe holds.
    """
    done = forked.run(
        forked.cacl,
        *arguments,
        environment=os.environ | environment,
        send=signal.SIGINT,
        when=lambda line: after in line,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def arguments(config_file: Path, tmp_path: Path) -> list[str]:
    epochs = STEPS * 4 / 6
    return ["train", "--json", "-c", str(config_file), "-s", f"run={tmp_path / 'run'}", "-s", f"train.epochs={epochs}"]


def test_an_interrupted_run_leaves_a_checkpoint_and_goes_on(
    cacl: Run, arguments: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    code, out, err = interrupted(arguments, environment, f"step 1/{STEPS}")
    last = err.splitlines()[-1]
    assert (code, out) == (130, ""), err
    assert "Traceback" not in err
    assert last.startswith("cacl: stopped by SIGINT after step ")

    saved = checkpoint.load(tmp_path / "run")
    assert f"after step {saved.step} of {STEPS};" in last
    assert 1 <= saved.step < STEPS
    assert not (tmp_path / "run/encoders.safetensors").exists()

    resumed = cacl(*arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["steps_taken"] == STEPS - saved.step
    assert f"after step {saved.step} of {STEPS}" in resumed.stderr
    assert checkpoint.load(tmp_path / "run").step == STEPS
    assert (tmp_path / "run/encoders.safetensors").exists()


def test_an_interrupt_before_the_first_step_is_told_too(arguments: list[str], environment: dict[str, str]) -> None:
    code, out, err = interrupted(arguments, environment, "training videos")
    assert (code, out) == (130, ""), err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("cacl: ")
