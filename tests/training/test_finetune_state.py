"""What one step of fine-tuning does: which layers change, by which rate, and by which loss."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cacl.errors import ConfigError
from cacl.training.finetune_state import FinetuneState
from tests.training.finetuning_runs import BATCH, TRAINING, finetune_config, labelled_batch, new_state

pytestmark = pytest.mark.usefixtures("one_thread")

PLAIN = {"name": "momentum", "momentum": 0.0, "weight_decay": 0.0, "lr": 0.5}
"""Settings of plain gradient descent, in which a step is the learning rate times the gradient."""


def applied_rates(state: FinetuneState, step: int) -> tuple[dict[str, float], dict[str, float]]:
    """Takes a step of plain gradient descent. Returns the rate of each group that was applied, and that was logged."""
    groups = state.model.layer_groups()
    before = {name: [p.detach().clone() for p in parameters] for name, parameters in groups.items()}
    metrics = state.train_step(labelled_batch(seed=step), sync=True)
    applied = {}
    for name, parameters in groups.items():
        changes = torch.cat([(p - old).flatten() for p, old in zip(parameters, before[name], strict=True)]).detach()
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        gradient = torch.cat([g.flatten() for g in gradients])
        applied[name] = (changes.norm() / gradient.norm()).item() if gradient.norm() > 0 else changes.norm().item()
    logged = {n.partition("/")[2]: v.item() for n, v in metrics.items() if n.startswith("learning_rate/")}
    return applied, logged


@pytest.mark.parametrize("encoder", ["cnn", "transformer"])
def test_rates_that_decay_by_layer_are_applied_and_logged(encoder: str) -> None:
    config = finetune_config(steps=6, finetune={"encoder": encoder, "layer_decay": 0.5}, optim=PLAIN)
    state = new_state(config)
    names = [
        "classifier",
        *(["conv5", "conv4", "conv3", "conv2", "conv1"] if encoder == "cnn" else ["block1", "embedder"]),
    ]
    for step in range(4):
        applied, logged = applied_rates(state, step)
        cosine = 0.25 * (1 + math.cos(math.pi * step / state.num_steps))
        expected = {name: cosine * 0.5**distance for distance, name in enumerate(names)}
        assert logged == pytest.approx(expected, rel=1e-6)
        assert applied == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("encoder", ["cnn", "transformer"])
def test_activations_that_are_computed_again_change_nothing(encoder: str) -> None:
    """The transformer has an embedder with batch norm, and some of the layers are frozen with their statistics."""
    finetune = {"encoder": encoder, "trained": "last", "last_layers": 2, "dropout": 0.5}
    transformer = {"embedder": "tubelet", "width": 16, "depth": 1, "heads": 2}
    found = []
    for recomputed in (False, True):
        train = {"activation_checkpointing": recomputed}
        state = new_state(finetune_config(finetune=finetune, model={"transformer": transformer}, train=train))
        for step in range(2):
            state.train_step(labelled_batch(seed=step), sync=True)
        found.append(state.model.state_dict())
        trained: Any = state.model.encoder
        assert trained.checkpointing is recomputed
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


@pytest.mark.parametrize("trained", ["all", "classifier"])
def test_parts_of_a_batch_have_the_gradient_of_the_whole(trained: str) -> None:
    """Without batch statistics. In training, dropout and the loss see all clips at once, and the encoder the parts."""
    found, lengths = [], list[int]()
    for parts in (1, 3):
        finetune = {"encoder": "transformer", "trained": trained, "dropout": 0.5}
        config = finetune_config(
            finetune=finetune, train={"gradient_accumulation": parts, "batch_size": 6}, optim=PLAIN
        )
        state = new_state(config)
        assert state.min_clips_per_rank == 2 * parts
        state.model.encoder.register_forward_pre_hook(lambda _, inputs: lengths.append(len(inputs[0])))
        state.train_step(labelled_batch(6), sync=True)
        found.append(state.model.state_dict())
    # A classifier alone needs no second pass.
    assert lengths == [6] + [2, 2, 2] * (2 if trained == "all" else 1)
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_the_last_groups_have_a_constant_rate_beside_a_cosine_by_epoch() -> None:
    """Two steps are an epoch. The rate of the last epoch is 0."""
    optim = PLAIN | {"schedule_per": "epoch"}
    state = new_state(finetune_config(steps=8, finetune={"last_lr": 0.25, "last_layers": 2}, optim=optim))
    for step in range(8):
        applied, logged = applied_rates(state, step)
        early = 0.25 * (1 + math.cos(math.pi * (step // 2 + 1) / 4))
        expected = {f"conv{number}": early for number in (1, 2, 3)} | dict.fromkeys(
            ["conv4", "conv5", "classifier"], 0.25
        )
        assert logged == pytest.approx(expected, rel=1e-6, abs=1e-9)
        assert applied == pytest.approx(expected, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize(
    ("finetune", "trained"),
    [
        ({"trained": "classifier"}, {"classifier"}),
        ({"trained": "last", "last_layers": 1}, {"conv5", "classifier"}),
        ({"trained": "last", "last_layers": 2}, {"conv4", "conv5", "classifier"}),
        ({"trained": "last", "last_layers": 99}, {"conv1", "conv2", "conv3", "conv4", "conv5", "classifier"}),
        ({"trained": "all"}, {"conv1", "conv2", "conv3", "conv4", "conv5", "classifier"}),
    ],
)
def test_what_is_frozen_does_not_change(finetune: dict[str, Any], trained: set[str]) -> None:
    state = new_state(finetune_config(finetune=finetune, optim={"lr": 0.5, "weight_decay": 0.1}))
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    state.train_step(labelled_batch(), sync=True)
    assert {rate.name for rate in state.layer_rates} == trained
    of_trained = {id(p) for name in trained for p in state.model.layer_groups()[name]}
    for name, parameter in state.model.named_parameters():
        assert torch.equal(parameter, before[name]) == (id(parameter) not in of_trained), name
    if trained == {"classifier"}:
        after = state.model.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items() if name.startswith("encoder."))


def expected_loss(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """The cross-entropy with soft targets, written out: they are smoothed towards 1 / C."""
    targets = targets * (1 - smoothing) + smoothing / targets.shape[1]
    return -(targets * logits.log_softmax(1)).sum(1).mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_cross_entropy_of_smoothed_labels(smoothing: float) -> None:
    state = new_state(finetune_config(finetune={"label_smoothing": smoothing}), classes=3)
    batch = labelled_batch(classes=3)
    assert batch.labels is not None
    logits = state.model(batch.query.float()).detach()
    loss = expected_loss(logits, F.one_hot(batch.labels, 3).float(), smoothing)
    metrics = state.train_step(batch, sync=True)
    assert metrics["loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    assert metrics["accuracy"].item() == (logits.argmax(1) == batch.labels).float().mean().item()


def test_mixup_mixes_clips_and_labels_by_one_ratio() -> None:
    state = new_state(finetune_config(finetune={"mixup": 0.8, "label_smoothing": 0.1}), classes=3)
    seen: list[tuple[Tensor, Tensor]] = []
    state.model.register_forward_hook(lambda _, inputs, logits: seen.append((inputs[0], logits.detach())))
    batch = labelled_batch(classes=3)
    assert batch.labels is not None
    loss = state.train_step(batch, sync=True)["loss"].item()
    ((mixed, logits),) = seen
    clips, labels = batch.query.float(), F.one_hot(batch.labels, 3).float()
    # Each mixed clip is the combination of two clips of the batch, which is found by least squares.
    ratios = torch.linalg.lstsq(clips.flatten(1).T, mixed.flatten(1).T).solution.T
    assert ((ratios.abs() > 1e-4).sum(1) <= 2).all()
    torch.testing.assert_close(ratios.sum(1), torch.ones(BATCH), rtol=0, atol=1e-4)
    assert (ratios.diagonal() < 0.9999).any()
    assert loss == pytest.approx(expected_loss(logits, ratios @ labels, 0.1).item(), rel=1e-4)


def test_dropout_draws_anew_in_each_step_and_the_same_again() -> None:
    config = finetune_config(finetune={"dropout": 0.5})
    losses = [
        [state.train_step(labelled_batch(), sync=True)["loss"].item() for _ in range(3)]
        for state in (new_state(config), new_state(config))
    ]
    assert losses[0] == losses[1]
    without = dataclasses.replace(config, finetune=dataclasses.replace(config.finetune, dropout=0.0))
    assert new_state(without).train_step(labelled_batch(), sync=True)["loss"].item() != losses[0][0]


def test_labels_are_learnt_by_heart() -> None:
    state = new_state(finetune_config(steps=40, optim={"name": "adamw", "lr": 1e-2}), classes=4)
    batch = labelled_batch(classes=4)
    taken = [state.train_step(batch, sync=True) for _ in range(40)]
    assert taken[0]["loss"].item() > 1
    assert taken[-1]["loss"].item() < 0.1
    assert taken[-1]["accuracy"].item() == 1


def test_epochs_are_those_of_the_training_videos() -> None:
    state = new_state(finetune_config(steps=6))
    assert state.num_steps == 6
    state.train_step(labelled_batch(), sync=True)
    assert state.epochs_done == BATCH / TRAINING


def test_two_rules_for_one_rate_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match=r"finetune\.last_lr = 0\.1 and finetune\.layer_decay = 0\.5 both"):
        finetune_config(finetune={"last_lr": 0.1, "layer_decay": 0.5})
