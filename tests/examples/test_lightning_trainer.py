"""The example with Lightning runs as it stands, and goes on with the very next clip after its process was killed."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from pathlib import Path

import pytest
import torch

from tests import forked
from tests.examples import recorded_lightning
from tests.same_bits import leaves

pytestmark = pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="lightning is not installed")
STEPS, SAVE_EVERY, KILLED_BEFORE = 5, 2, 3
NEVER = -1


def test_it_trains_and_goes_on_where_it_was_killed(videos: Path, tmp_path: Path) -> None:
    options = ("--steps", str(STEPS), "--save-every", str(SAVE_EVERY))
    whole, killed, resumed = (
        (str(tmp_path / f"{name}.notes"), killed_before, [str(videos), str(tmp_path / folder), *options])
        for name, folder, killed_before in (
            ("whole", "whole", NEVER),
            ("killed", "parts", KILLED_BEFORE),
            ("resumed", "parts", NEVER),
        )
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(videos.parent / "cache")}
    done = forked.run(recorded_lightning.main, *map(json.dumps, (whole, killed, resumed)), environment=environment)
    said = [line for line in done.stdout.splitlines() if line.startswith((f"{STEPS} of {STEPS} steps", "exit code"))]
    assert [line.partition(";")[0] for line in said] == [
        f"{STEPS} of {STEPS} steps are done", "exit code 0", f"exit code {-signal.SIGKILL}",
        f"{STEPS} of {STEPS} steps are done", "exit code 0",
    ], done.stderr  # fmt: skip

    whole_steps, killed_steps, resumed_steps = (
        Path(run[0]).read_text().splitlines() for run in (whole, killed, resumed)
    )
    assert [line.split()[:2] for line in whole_steps] == [[str(step), str(16 * step)] for step in range(STEPS)]
    assert killed_steps == whole_steps[:KILLED_BEFORE]
    assert resumed_steps == whole_steps[SAVE_EVERY:]

    one, other = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("whole", "parts"))
    assert one["global_step"] == other["global_step"] == STEPS // SAVE_EVERY * SAVE_EVERY
    for part in ("state_dict", "optimizer_states"):
        pairs = list(zip(leaves(one[part]), leaves(other[part]), strict=True))
        assert len(pairs) > 50
        for (name, value), (_, again) in pairs:
            assert torch.equal(value, again) if isinstance(value, torch.Tensor) else value == again, name
