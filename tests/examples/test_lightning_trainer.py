"""The example with Lightning runs as it stands, and goes on with the very next clip after its process was killed."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.launch import ROOT
from tests.same_bits import leaves

pytestmark = pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="lightning is not installed")
STEPS, SAVE_EVERY, KILLED_BEFORE = 8, 3, 5
NEVER = -1


def run(videos: Path, run: Path, killed_before: int) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Runs the example. The second value has a line for each step, with the numbers and the pixels of its clips."""
    notes = run.with_suffix(f".{killed_before}")
    example = [videos, run, "--steps", str(STEPS), "--save-every", str(SAVE_EVERY)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.examples.recorded_lightning", notes, str(killed_before), *example],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(videos.parent / "cache")},
        capture_output=True,
        text=True,
        timeout=240,
    )
    return done, notes.read_text().splitlines()


def test_it_trains_and_goes_on_where_it_was_killed(videos: Path, tmp_path: Path) -> None:
    whole, whole_steps = run(videos, tmp_path / "whole", NEVER)
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.splitlines()[-1].startswith(f"{STEPS} of {STEPS} steps are done")
    assert [line.split()[:2] for line in whole_steps] == [[str(step), str(16 * step)] for step in range(STEPS)]

    killed, killed_steps = run(videos, tmp_path / "parts", KILLED_BEFORE)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert killed_steps == whole_steps[:KILLED_BEFORE]
    resumed, resumed_steps = run(videos, tmp_path / "parts", NEVER)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed_steps == whole_steps[SAVE_EVERY:]

    one, other = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("whole", "parts"))
    assert one["global_step"] == other["global_step"] == STEPS // SAVE_EVERY * SAVE_EVERY
    for part in ("state_dict", "optimizer_states"):
        pairs = list(zip(leaves(one[part]), leaves(other[part]), strict=True))
        assert len(pairs) > 50
        for (name, value), (_, again) in pairs:
            assert torch.equal(value, again) if isinstance(value, torch.Tensor) else value == again, name
