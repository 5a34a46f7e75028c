"""The example of a loop in plain torch runs as it stands, and goes on with the same bits after an interruption."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import pytest
import torch

from tests import forked
from tests.launch import ROOT
from tests.same_bits import leaves


@pytest.mark.usefixtures("one_thread")
def test_it_trains_and_goes_on_where_it_was_stopped(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one that goes on is a process of its own, so that only the checkpoint can tell it where."""
    surroundings = {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(videos.parent / "cache")}
    monkeypatch.setenv("XDG_CACHE_HOME", surroundings["XDG_CACHE_HOME"])

    def command(checkpoint: str, epochs: int) -> list[str]:
        return [str(ROOT / "examples/plain_torch.py"), str(videos), str(tmp_path / checkpoint), "--epochs", str(epochs)]

    def run(checkpoint: str, epochs: int) -> list[str]:
        monkeypatch.setattr(sys, "argv", command(checkpoint, epochs))
        runpy.run_path(sys.argv[0], run_name="__main__")
        return capsys.readouterr().out.splitlines()

    whole = run("whole.pt", 2)
    assert [line.partition(":")[0] for line in whole[:2]] == ["epoch 0", "epoch 1"]
    assert whole[2].endswith("% of the test clips are told rightly")
    assert run("parts.pt", 1)[0] == whole[0]
    resumed = forked.run(forked.script, *command("parts.pt", 2), environment=os.environ | surroundings)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.splitlines() == whole[1:]
    one, other = (torch.load(tmp_path / name, weights_only=True) for name in ("whole.pt", "parts.pt"))
    assert one["loader"] == other["loader"]
    pairs = list(zip(leaves(one), leaves(other), strict=True))
    assert len(pairs) > 50
    for (name, value), (_, again) in pairs:
        assert torch.equal(value, again) if isinstance(value, torch.Tensor) else value == again, name
