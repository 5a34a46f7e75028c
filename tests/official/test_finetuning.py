"""Steps of the recipe `finetune_official` against plain SGD with the two groups of the release, written out."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cacl.checkpoints.checkpoint import FinetuneRecord
from cacl.config import Config, load
from cacl.registry import ENCODERS
from cacl.training.finetune_state import FinetuneState
from tests.launch import ROOT
from tests.official import release
from tests.official.second_implementation import (
    CLIP,
    FRAMES,
    SIZE,
    assert_same,
    copy_weights,
    random_batch,
    running_statistics,
)

VIDEOS, CLASSES, EPOCHS = 6, 5, 3
"""Three epochs of six videos are five steps of four clips."""
SMALL = (f"clip.frames={FRAMES}", f"clip.size={SIZE}", "model.width=0.125", f"train.batch_size={CLIP}")


def recipe(*overrides: str) -> Config:
    return load(ROOT / "cacl/recipes/finetune_official.toml", overrides)


class Classifier(nn.Module):
    """The network of the release with its linear layer."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.network, self.linear = release.cnn(name, 8), nn.Linear(64, CLASSES)

    def forward(self, clips: Tensor) -> Tensor:
        return self.linear(self.network(clips))


def is_late(name: str, network: str) -> bool:
    """Whether a parameter belongs to conv4, conv5 or the linear layer."""
    parts = name.split(".")
    if parts[0] == "linear":
        return True
    # The six last convolutions of eight are conv3a, 3b, 4a, 4b, 5a, 5b; the blocks are conv2, conv3, conv4, conv5.
    first = {"c3d": ("layers", 4), "r3d10": ("blocks", 2), "r2plus1d10_official": ("blocks", 2)}[network]
    return parts[1] == first[0] and int(parts[2]) >= first[1]


@pytest.mark.parametrize("network", ["c3d", "r3d10", "r2plus1d10_official"])
def test_steps_have_the_two_groups_of_the_release(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All is computed in float64, as in test_steps.py."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    config = recipe(*SMALL, f"model.cnn={network}", f"train.epochs={EPOCHS}", "train.device=cpu")
    record = FinetuneRecord(classes=tuple("abcde"), val_fingerprint="")

    def build() -> Any:
        return ENCODERS.load(network)(config)

    state = FinetuneState(config, VIDEOS, torch.device("cpu"), build_encoder=build, record=record)
    model = state.model.double()
    theirs = Classifier(network).double()
    copy_weights(model, theirs)
    groups = [[p for name, p in theirs.named_parameters() if is_late(name, network) == late] for late in (False, True)]
    assert all(groups)
    optimizer = torch.optim.SGD(
        [{"params": groups[0]}, {"params": groups[1], "lr": 1e-3}], lr=0.1, momentum=0.9, weight_decay=5e-4
    )
    assert state.num_steps == 5
    for step, epoch in enumerate((1, 1, 2, 3, 3)):
        batch = dataclasses.replace(random_batch(step), labels=torch.arange(CLIP) + step % 2)
        assert batch.labels is not None
        rate = 0.1 * 0.5 * (1 + math.cos(math.pi * epoch / EPOCHS))
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss = F.cross_entropy(theirs.train()(batch.query.double()), batch.labels)
        loss.backward()
        optimizer.step()
        metrics = state.train_step(batch, sync=True)
        assert metrics["loss"].item() == pytest.approx(loss.item(), rel=1e-9)
        logged = {name: value.item() for name, value in metrics.items() if name.startswith("learning_rate/")}
        late = {f"learning_rate/{name}": 1e-3 for name in ("conv4", "conv5", "classifier")}
        assert logged == pytest.approx(late | {f"learning_rate/conv{n}": rate for n in (1, 2, 3)}, rel=1e-6, abs=1e-12)
        assert_same(model.parameters(), theirs.parameters(), "weights")
        assert_same(running_statistics(model), running_statistics(theirs), "batch statistics")


def test_the_recipe_has_the_facts_of_the_release() -> None:
    config = recipe()
    assert (config.train.epochs, config.train.batch_size) == (150, 64)
    assert (config.clip.frames, config.clip.stride, config.clip.size) == (16, 2, 112)
    assert (config.augment.resize, config.augment.color_jitter_prob) == ((128, 171), 0.5)
    assert (config.retrieval.clips_per_video, config.retrieval.clip_starts) == (10, "official")
    assert (config.finetune.dropout, config.finetune.label_smoothing, config.finetune.mixup) == (0, 0, 0)
