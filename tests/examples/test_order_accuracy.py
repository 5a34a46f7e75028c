"""The example that judges the order task counts the clips whose class the network of a run predicts."""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rapidfuzz.distance import Levenshtein

import cacl
from cacl.checkpoints import checkpoint
from cacl.training.trainer import train
from tests.launch import ROOT
from tests.tiny import tiny_config


def judge(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(ROOT / "examples/order_accuracy.py"), str(run), "--epochs", "3"])
    runpy.run_path(sys.argv[0], run_name="__main__")


@pytest.mark.usefixtures("one_thread")
def test_a_network_that_always_names_one_class_is_right_as_often_as_it_occurs(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = tiny_config(tmp_path / "run", {"data": {"root": str(videos)}, "train": {"batch_size": 10, "epochs": 1}})
    train(config)
    loader = cacl.ClipLoader.from_config(config, split="test")
    orders = [order for epoch in range(3) for batch in loader.epoch(epoch) for order in batch.order.tolist()]
    distances = [Levenshtein.distance(order, range(4)) for order in orders]
    assert len(distances) == 12
    shares = [sum(max(distance - 1, 0) == c for distance in distances) / 12 for c in range(4)]
    saved = checkpoint.load(tmp_path / "run")
    for c, share in enumerate(shares):
        saved.model["query.cnn_heads.order.3.bias"].zero_()[c] = 1e4
        checkpoint.save(tmp_path / "run/checkpoint.pt", saved)
        capsys.readouterr()
        judge(tmp_path / "run", monkeypatch)
        said = f"order accuracy {share:.3f} of 12 clips; the most frequent class has {max(shares):.3f}\n"
        assert capsys.readouterr().out == said

    without = replace(saved.config, losses={"contrast": 1.0, "order": 0.0})
    checkpoint.save(tmp_path / "run/checkpoint.pt", replace(saved, config=without))
    with pytest.raises(SystemExit, match=r"trained without the order of frames \(losses.order = 0\)"):
        judge(tmp_path / "run", monkeypatch)
