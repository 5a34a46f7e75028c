"""What every command has: help, exit codes, and a reader that may go away."""

import os
import subprocess
import sys

import pytest

from cacl import __version__
from tests.commands.finished import Run
from tests.launch import ROOT


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_goes_to_stdout(cacl: Run, flag: str) -> None:
    for command in (
        [],
        ["train"],
        ["data"],
        ["data", "scan"],
        ["data", "synth"],
        ["config"],
        ["recipes"],
        ["eval"],
        ["eval", "retrieval"],
    ):
        finished = cacl(*command, flag)
        assert (finished.returncode, finished.stderr) == (0, "")
        assert "Usage:" in finished.stdout


def test_the_version(cacl: Run) -> None:
    finished = cacl("--version")
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, f"cacl {__version__}\n", "")


@pytest.mark.parametrize("command", [[], ["data"], ["eval"]], ids=" ".join)
def test_without_a_command_there_is_help_and_the_code_of_wrong_usage(cacl: Run, command: list[str]) -> None:
    finished = cacl(*command)
    assert finished.returncode == 2
    assert "Usage:" in finished.stdout + finished.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_a_reader_that_goes_away_is_no_failure(unbuffered: str) -> None:
    """As in `cacl ... | head`, under `set -o pipefail`."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        finished = subprocess.run(
            [sys.executable, "-m", "cacl.cli", "train", "--config", "demo", "--dry-run", "--json"],
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    finally:
        os.close(writing)
    assert (finished.returncode, finished.stderr) == (0, "")


@pytest.mark.parametrize("command", [["--help"], ["data", "scan", "--help"], ["--version"]], ids=" ".join)
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    heavy = ["torch", "nvidia.dali", "av", "torchvision", "timm", "numpy", "numba", "matplotlib"]
    code = f"""
import sys
from cacl.cli import main
sys.argv = ["cacl", *{command}]
try:
    main()
except SystemExit as end:
    assert not end.code
print("heavy:", *(name for name in {heavy} if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "heavy:"
