"""The step as the authors wrote it learns what ours learns, from the same weights, clips and orders."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from rapidfuzz.distance import Levenshtein

from cacl.benchmarks.rivals.steps import OfficialStep, levenshtein, official_batch, unavailable_reason
from cacl.config import Config
from cacl.training.train_state import TrainState
from tests.tiny import tiny_batch, tiny_config

CPU = torch.device("cpu")


def config_of(**sections: dict[str, Any]) -> Config:
    own = {"contrast": {"queue_size": 16, "momentum": 0.9}, "train": {"batch_size": 4, "epochs": 20.0}}
    return tiny_config("unused", own, sections)


@pytest.mark.parametrize("pairs", ["cross", "official", "within"])
@pytest.mark.parametrize("embedder", ["light", "resnet10t"])
def test_the_steps_are_equal(monkeypatch: pytest.MonkeyPatch, pairs: str, embedder: str) -> None:
    """In float64, in which nothing tips over at the kink of a ReLU. Keys go around the queue of 16."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    transformer = {"embedder": embedder, "width": 16, "depth": 1, "heads": 2}
    config = config_of(contrast={"pairs": pairs}, model={"transformer": transformer})
    assert unavailable_reason(config) == ""
    ours = TrainState(config, 8, CPU)
    ours.model.double()
    theirs = TrainState(config, 8, CPU)
    theirs.model.double()
    step = OfficialStep(theirs)
    for number in range(4):
        batch = tiny_batch(4, seed=number)
        before = copy.deepcopy(ours.model.queue.keys)
        expected, found = ours.train_step(batch, sync=True), step(official_batch(batch))
        for name in ("contrast", "order", "loss"):
            assert found[name].item() == pytest.approx(expected[name].item(), rel=1e-9), (number, name)
        torch.testing.assert_close(theirs.model.queue.keys, ours.model.queue.keys, rtol=0, atol=1e-9)
        assert not torch.equal(before, ours.model.queue.keys)
    for mine, other in zip(ours.model.query.parameters(), theirs.model.query.parameters(), strict=True):
        torch.testing.assert_close(other, mine, rtol=0, atol=1e-9)


def test_the_label_is_the_edit_distance() -> None:
    draw = random.Random(0)
    for length in (0, 1, 5, 16):
        for _ in range(20):
            order = draw.sample(range(length), length)
            assert levenshtein(order, range(length)) == Levenshtein.distance(order, list(range(length)))


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"contrast": {"negatives": "batch"}}, "contrast.negatives = batch: it has queue"),
        ({"contrast": {"reversed_weight": 1.0}}, "contrast.reversed_weight = 1.0: it has 0.0"),
        ({"contrast": {"shuffle_bn_groups": 2}}, "contrast.shuffle_bn_groups = 2: it has 1"),
        ({"contrast": {"queue_size": 15}}, "contrast.queue_size = 15"),
        ({"contrast": {"pairs": "cnn"}}, "it has both encoders"),
        ({"losses": {"order": 0.0}}, "neither is 0"),
        ({"model": {"order_head": "difference"}}, "model.order_head = difference"),
        ({"model": {"transformer": {"embedder": "tubelet", "heads": 2, "width": 16}}}, "single frames"),
    ],
)
def test_what_the_release_has_not_is_named(sections: dict[str, Any], said: str) -> None:
    assert said in unavailable_reason(config_of(**sections))
