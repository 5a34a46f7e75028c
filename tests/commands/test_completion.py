"""A real bash completes a command line with the script that `cacl --show-completion` prints to it."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cacl.config import recipes
from tests.launch import ROOT

COMPLETE = """
set -eu
script=$(cacl --show-completion)
eval "$script"
complete -p cacl >&2
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_cacl_completion cacl
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """A folder with `cacl` as pip writes it."""
    script = tmp_path / "bin/cacl"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nfrom cacl.cli import main\nmain()\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script.parent


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["tra"], ["train"]),
        (["data", ""], ["scan", "prepare", "join", "synth", "look"]),
        (["train", "--config", "ucf101_r"], ["ucf101_r2plus1d", "ucf101_r3d"]),
        (["bench-loader", "videos", "-c", ""], recipes.names()),
        (["train", "-c", "./"], []),  # Bash offers files then.
        (["recipes", "off"], ["official"]),
        (["config", "retrieval.b"], ["retrieval.batch_size"]),
        (["config", "clip.s"], ["clip.stride", "clip.size"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_bash_completes(command: Path, words: list[str], offered: list[str]) -> None:
    environment = os.environ | {"PATH": f"{command}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    arguments = ["bash", "--norc", "-c", COMPLETE, "bash", "cacl", *words]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "complete -o default -F _cacl_completion cacl\n")
    assert sorted(done.stdout.split()) == sorted(offered)
