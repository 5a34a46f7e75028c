"""The example of a loop in plain torch runs as it stands, and goes on with the same bits after an interruption."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from tests.launch import ROOT
from tests.same_bits import leaves


def run(videos: Path, checkpoint: Path, epochs: int) -> list[str]:
    done = subprocess.run(
        [sys.executable, ROOT / "examples/plain_torch.py", videos, checkpoint, "--epochs", str(epochs)],
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(videos.parent / "cache")},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_it_trains_and_goes_on_where_it_was_stopped(videos: Path, tmp_path: Path) -> None:
    whole = run(videos, tmp_path / "whole.pt", 2)
    assert [line.partition(":")[0] for line in whole[:2]] == ["epoch 0", "epoch 1"]
    assert whole[2].endswith("% of the test clips are told rightly")
    assert run(videos, tmp_path / "parts.pt", 1)[0] == whole[0]
    assert run(videos, tmp_path / "parts.pt", 2) == whole[1:]
    one, other = (torch.load(tmp_path / name, weights_only=True) for name in ("whole.pt", "parts.pt"))
    assert one["loader"] == other["loader"]
    pairs = list(zip(leaves(one), leaves(other), strict=True))
    assert len(pairs) > 50
    for (name, value), (_, again) in pairs:
        assert torch.equal(value, again) if isinstance(value, torch.Tensor) else value == again, name
