"""What one step does, and what decides it."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cacl import config as configuration
from cacl.config import Config
from cacl.errors import CaclError
from cacl.training.embedding_measures import measure_embeddings
from cacl.training.train_state import TrainState
from tests.tiny import tiny_batch
from tests.training.small_runs import BATCH, VIDEOS, config_of

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
PLAIN = {"name": "momentum", "momentum": 0.0, "weight_decay": 0.0}
"""Settings of plain gradient descent, in which a step is the learning rate times the gradient."""


def weights(train_state: TrainState) -> Tensor:
    """Returns all trained weights in one vector, in double precision."""
    return torch.cat([p.detach().double().flatten() for p in train_state.model.query.parameters() if p.requires_grad])


@pytest.mark.parametrize("max_grad_norm", [0.0, 0.25, 1e6], ids=["no limit", "beyond it", "within it"])
def test_a_step_follows_the_gradient_no_further_than_its_limit(max_grad_norm: float) -> None:
    train_state = TrainState(config_of(optim=PLAIN | {"lr": 0.125, "max_grad_norm": max_grad_norm}), VIDEOS, CPU)
    before = weights(train_state)
    metrics = train_state.train_step(tiny_batch(BATCH), sync=True)
    gradient, taken = metrics["gradient_norm"].item(), (weights(train_state) - before).norm().item() / 0.125
    assert gradient > 1  # that of the loss, whatever the limit
    assert taken == pytest.approx(min(gradient, max_grad_norm or math.inf), rel=1e-4)


def test_optimisers_clear_gradients_as_they_do_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is how those of NVIDIA Apex do it, whose `zero_grad` takes no argument."""
    train_state = TrainState(config_of(optim=PLAIN), VIDEOS, CPU)
    cleared: list[int] = []
    zero_grad = train_state.optimizer.zero_grad
    monkeypatch.setattr(train_state.optimizer, "zero_grad", lambda: cleared.append(zero_grad() or train_state.step))
    for step in range(2):
        train_state.train_step(tiny_batch(BATCH, seed=step), sync=True)
    assert cleared == [0, 1]


def test_the_rate_warms_up_over_epochs() -> None:
    """Two epochs of ten videos are five steps of four."""
    train_state = TrainState(config_of(12, optim={"lr": 0.5, "warmup_epochs": 2.0}), VIDEOS, CPU)
    rates = [
        train_state.train_step(tiny_batch(BATCH, seed=step), sync=True)["learning_rate"].item() for step in range(12)
    ]
    rising = [0.5 * step / 5 for step in (1, 2, 3, 4, 5)]
    falling = [0.25 * (1 + math.cos(math.pi * step / 7)) for step in range(7)]
    assert rates == pytest.approx(rising + falling, rel=1e-6)


def test_the_logged_rate_is_the_one_applied() -> None:
    train_state = TrainState(config_of(12, optim=PLAIN | {"lr": 0.5, "warmup_epochs": 2.0}), VIDEOS, CPU)
    for step in range(8):
        before = weights(train_state)
        metrics = train_state.train_step(tiny_batch(BATCH, seed=step), sync=True)
        taken = (weights(train_state) - before).norm().item()
        assert taken == pytest.approx(metrics["learning_rate"].item() * metrics["gradient_norm"].item(), rel=1e-3)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_stops_a_run_whose_loss_is(value: float) -> None:
    train_state = TrainState(config_of(), VIDEOS, CPU)
    before = weights(train_state)
    parts, _ = train_state.model(tiny_batch(BATCH), 0)
    assert parts.total.isfinite()
    next(train_state.model.query.parameters()).register_hook(lambda gradient: gradient * value)
    with pytest.raises(CaclError, match=r"step 1: the loss or its gradient is not finite"):
        train_state.train_step(tiny_batch(BATCH), sync=True)
    assert torch.equal(weights(train_state), before)
    assert train_state.step == 0


DECIDES = {
    "seed": 1,
    "model.cnn": "r3d18",
    "model.width": 0.125,
    "model.embedding_dim": 16,
    "model.order_head": "difference",
    "model.dropout": 0.25,
    "model.transformer.embedder": "test_resnet",
    "model.transformer.width": 32,
    "model.transformer.depth": 2,
    "model.transformer.heads": 4,
    "contrast.pairs": "within",
    "contrast.negatives": "both",
    "losses.contrast": 0.5,
    "contrast.temperature": 0.1,
    "contrast.queue_size": 40,
    "contrast.momentum": 0.5,
    "contrast.shuffle_bn_groups": 2,
    "losses.order": 0.5,
    "optim.name": "momentum",
    "optim.lr": 0.02,
    "optim.momentum": 0.5,
    "optim.weight_decay": 0.1,
    "optim.warmup_epochs": 1.0,
    "optim.max_grad_norm": 0.5,
    "train.epochs": 2.0,
    "train.batch_size": 8,
}
"""Settings of the method, each with another value than `config_of` gives."""


def learnt(config: Config) -> dict[str, Tensor]:
    """Returns the trained weights after three steps on the same clips, by the schedule of the configuration."""
    train_state = TrainState(config, VIDEOS, CPU)
    for step in range(3):
        train_state.train_step(tiny_batch(BATCH, seed=step), sync=True)
    return dict(train_state.model.query.named_parameters())


@pytest.fixture(scope="module")
def usual() -> dict[str, Tensor]:
    return learnt(config_of())


@pytest.mark.parametrize("key", DECIDES)
def test_every_setting_of_the_method_changes_what_is_learnt(usual: dict[str, Tensor], key: str) -> None:
    found = learnt(configuration.override(config_of(), [f"{key}={DECIDES[key]}"]))
    same = found.keys() == usual.keys() and all(
        found[name].shape == usual[name].shape and torch.equal(found[name], usual[name]) for name in usual
    )
    assert not same


def test_what_is_learnt_is_the_same_again(usual: dict[str, Tensor]) -> None:
    """It is therefore the setting that makes the difference above."""
    found = learnt(config_of())
    assert found.keys() == usual.keys()
    assert all(torch.equal(found[name], usual[name]) for name in usual)


def learnt_bits(config: Config) -> dict[str, Tensor]:
    """Returns all weights and batch statistics after two steps."""
    train_state = TrainState(config, VIDEOS, CPU)
    for step in range(2):
        train_state.train_step(tiny_batch(BATCH, seed=step), sync=True)
    return train_state.model.state_dict()


@pytest.mark.parametrize(
    ("embedder", "order_head"), [("light", "concatenation"), ("tubelet", "difference"), ("resnet10t", "concatenation")]
)
def test_activations_that_are_computed_again_change_nothing(embedder: str, order_head: str) -> None:
    """Neither weights nor batch statistics, which would move twice, nor the masks of dropout."""
    transformer = {"embedder": embedder, "frozen": False, "width": 16, "depth": 2, "heads": 2}
    model = {"order_head": order_head, "transformer": transformer}
    usual = learnt_bits(config_of(model=model))
    found = learnt_bits(config_of(model=model, train={"activation_checkpointing": True}))
    assert found.keys() == usual.keys()
    assert sum(name.endswith("num_batches_tracked") for name in usual) > 10
    for name in usual:
        assert torch.equal(found[name], usual[name]), name


def test_activations_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage of the CNN for the clip and its copy, then the embedder of the transformer and each of its blocks."""
    train_state = TrainState(config_of(train={"activation_checkpointing": True}), VIDEOS, CPU)
    calls: dict[str, list[int]] = {}
    query: Any = train_state.model.query
    parts = {"stem": query.cnn.layers[0], "embedder": query.transformer.embedder, "block": query.transformer.blocks[0]}
    for name, module in parts.items():
        # The last layer of a part may not be reached again: what it gives is known.
        first = next(child for child in module.modules() if not list(child.children()))
        first.register_forward_hook(lambda *_, name=name: calls.setdefault(name, []).append(train_state.step))
    train_state.train_step(tiny_batch(BATCH), sync=True)
    assert {name: len(steps) for name, steps in calls.items()} == {"stem": 4, "embedder": 2, "block": 2}


def test_compiled_encoders_learn_the_same(usual: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoders are traced as for any compiler. The graphs are then run as they are, which takes no compiler."""
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    torch.compiler.reset()
    found = learnt(config_of(train={"compile": True}))
    assert graphs
    assert found.keys() == usual.keys()
    for name in usual:
        torch.testing.assert_close(found[name], usual[name], rtol=1e-4, atol=1e-6)


def test_measures_are_of_the_last_step_and_change_nothing() -> None:
    train_state = TrainState(config_of(), VIDEOS, CPU)
    train_state.train_step(tiny_batch(BATCH), sync=True)
    batch, before = tiny_batch(BATCH, seed=1), copy.deepcopy(train_state.model)
    train_state.train_step(batch, sync=True)
    values = {name: x.clone() for name, x in train_state.model.state_dict().items()}
    random_state = torch.random.get_rng_state()
    measures = train_state.measure()
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert all(torch.equal(x, values[name]) for name, x in train_state.model.state_dict().items())
    assert train_state.measure() == measures

    embeddings = before(batch, 1).losses.embeddings
    assert set(map(str, embeddings)) == {"cnn_query", "cnn_key", "transformer_query", "transformer_key"}
    assert not any(x.requires_grad for x in embeddings.values())
    queries, keys = (
        {name.encoder: x.double() for name, x in embeddings.items() if name.side == side} for side in ("query", "key")
    )
    assert measures == pytest.approx(measure_embeddings(queries, keys, None), rel=1e-6)


@pytest.mark.parametrize(
    ("contrast", "first"),
    [({}, 4), ({"negatives": "both"}, 4), ({"negatives": "batch"}, None), ({"queue_size": 15}, None)],
    ids=["queue", "both", "batch", "short queue"],
)
def test_drift_is_measured_from_when_the_queue_is_full_of_keys(contrast: dict[str, Any], first: int | None) -> None:
    """A step brings eight keys. Four of them fill a queue of thirty, and a queue of fifteen holds less than two."""
    train_state = TrainState(config_of(6, contrast=contrast), VIDEOS, CPU)
    measured = []
    for step in range(6):
        train_state.train_step(tiny_batch(BATCH, seed=step), sync=True)
        if any(name.startswith("drift/") for name in train_state.measure()):
            measured.append(step + 1)
    assert measured == (list(range(first, 7)) if first else [])


def test_nothing_is_measured_without_a_contrast() -> None:
    train_state = TrainState(config_of(losses={"contrast": 0.0}), VIDEOS, CPU)
    train_state.train_step(tiny_batch(BATCH), sync=True)
    assert train_state.measure() == {}
