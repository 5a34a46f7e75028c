"""Training step by step: what the settings of a step do, what the loop logs, when it looks, stops and goes on."""

from __future__ import annotations

import dataclasses
import functools
import math
import shutil
import signal
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from cacl import config as configuration
from cacl.checkpoints import checkpoint
from cacl.checkpoints.encoders import ENCODERS_NAME
from cacl.clips import ClipBatch
from cacl.config import Config
from cacl.errors import CaclError, CheckpointError
from cacl.training import scalar_averages
from cacl.training.train_state import TrainState
from cacl.training.trainer import train
from tests.config_keys import config_keys, other_value, value_at, with_value
from tests.tiny import tiny_batch, tiny_config

training = import_module("cacl.training.trainer")

pytestmark = pytest.mark.usefixtures("one_thread")

VIDEOS, BATCH = 10, 4
CPU = torch.device("cpu")
PLAIN = {"name": "momentum", "momentum": 0.0, "weight_decay": 0.0}
"""Gradient descent: a step is the learning rate times the gradient."""


def config_of(steps: int = 3, run: str | Path = "never written", **sections: dict[str, Any]) -> Config:
    own = {"train": {"epochs": steps * BATCH / VIDEOS, "batch_size": BATCH}}
    return tiny_config(run, own, sections)


def weights(train_state: TrainState) -> Tensor:
    """All trained weights in one vector, in double precision."""
    return torch.cat([p.detach().double().flatten() for p in train_state.model.query.parameters() if p.requires_grad])


# ------------------------------------------------------------------------------------------------- what a step does


@pytest.mark.parametrize("max_grad_norm", [0.0, 0.25, 1e6], ids=["no limit", "beyond it", "within it"])
def test_a_step_follows_the_gradient_no_further_than_its_limit(max_grad_norm: float) -> None:
    train_state = TrainState(config_of(optim=PLAIN | {"lr": 0.125, "max_grad_norm": max_grad_norm}), VIDEOS, CPU)
    before = weights(train_state)
    metrics = train_state.train_step(tiny_batch(BATCH), sync=True)
    gradient, taken = metrics["gradient_norm"].item(), (weights(train_state) - before).norm().item() / 0.125
    assert gradient > 1  # that of the loss, whatever the limit
    assert taken == pytest.approx(min(gradient, max_grad_norm or math.inf), rel=1e-4)


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
    "model.dropout": 0.25,
    "model.transformer.embedder": "test_resnet",
    "model.transformer.width": 32,
    "model.transformer.depth": 2,
    "model.transformer.heads": 4,
    "contrast.pairs": "within",
    "contrast.negatives": "both",
    "contrast.weight": 0.5,
    "contrast.temperature": 0.1,
    "contrast.queue_size": 40,
    "contrast.momentum": 0.5,
    "contrast.shuffle_bn_groups": 2,
    "order.weight": 0.5,
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
    """The trained weights after three steps on the same clips; the schedule is that of the configuration."""
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
    """So that it is the setting that makes the difference above."""
    found = learnt(config_of())
    assert found.keys() == usual.keys()
    assert all(torch.equal(found[name], usual[name]) for name in usual)


def test_compiled_encoders_learn_the_same(usual: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced as for any compiler; here the graphs are run as they are, which takes no compiler."""
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


# ------------------------------------------------------------------------------------------------ the loop around it


@pytest.fixture(scope="module")
def videos(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of the training split."""
    root = tmp_path_factory.mktemp("videos")
    names = [f"{number}.mp4" for number in range(VIDEOS)]
    for name in names:
        make_video(root / name, frames=6, size=(32, 24), gop=3)
    (root / "labels.csv").write_text("\n".join(["path,split", *(f"{name},train" for name in names)]))
    return root


@pytest.fixture
def configured(videos: Path, tmp_path: Path) -> Callable[..., Config]:
    """`configured(steps, train={...})`: a run on real videos."""

    def make(steps: int, **sections: dict[str, Any]) -> Config:
        data = {"root": str(videos), "cache": str(videos.with_name("cache"))}
        return config_of(steps, tmp_path / "run", data=data, **sections)

    return make


def trained(config: Config, after_step: Callable[[TrainState], None], *, resume: bool = False) -> dict[str, Any]:
    """What `train` returns; `after_step` is called when a step is taken and before it is logged or saved."""

    class Observed(TrainState):
        def train_step(self, batch: ClipBatch, **options: Any) -> dict[str, Tensor]:
            metrics = super().train_step(batch, **options)
            after_step(self)
            return metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "TrainState", Observed)
        return train(config, resume=resume)


@pytest.mark.parametrize("before_the_end", [0, 1])
def test_a_signal_that_comes_as_the_last_step_ends_interrupts_nothing(
    configured: Callable[..., Config], before_the_end: int
) -> None:
    """In the last step, and in the one before, after which the loop notices it."""
    config = configured(3)

    def ask_to_stop(train_state: TrainState) -> None:
        if train_state.step == 3 - before_the_end:
            signal.raise_signal(signal.SIGTERM)

    assert trained(config, ask_to_stop)["steps_taken"] == 3
    assert checkpoint.load(Path(config.run)).step == 3
    assert (Path(config.run) / ENCODERS_NAME).exists()


@pytest.fixture
def own_handlers() -> Iterator[dict[signal.Signals, Any]]:
    """What a program that calls `train` may have set itself, by signal."""
    own = {number: lambda *_: None for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: signal.signal(number, handler) for number, handler in own.items()}
    yield own
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("ending", ["done", "stopped", "failed"])
def test_signals_are_handled_as_before_when_training_ends(
    configured: Callable[..., Config], own_handlers: dict[signal.Signals, Any], ending: str
) -> None:
    def after_step(train_state: TrainState) -> None:
        assert all(signal.getsignal(number) is not handler for number, handler in own_handlers.items())
        if ending == "stopped":
            signal.raise_signal(signal.SIGINT)
        if ending == "failed":
            raise CaclError("of this test")

    try:
        trained(configured(3), after_step)
    except CaclError:
        assert ending != "done"
    assert {number: signal.getsignal(number) for number in own_handlers} == own_handlers


def test_speed_and_the_wait_for_data_are_those_of_the_steps_logged(
    configured: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which a batch takes three seconds to come and a step takes one: four clips in four seconds."""
    clock = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now)
    build = training.build_backend

    class Slow:
        def __init__(self, *arguments: Any) -> None:
            self.backend = build(*arguments)

        def batches(self, plans: Any) -> Iterator[ClipBatch]:
            for batch in self.backend.batches(plans):
                clock.now += 3
                yield batch

    def take_a_second(train_state: TrainState) -> None:
        clock.now += 1

    monkeypatch.setattr(training, "build_backend", Slow)
    monkeypatch.setattr(training, "time", clock)
    monkeypatch.setattr(scalar_averages, "time", clock)
    summary = trained(configured(5, train={"log_every": 2}), take_a_second)
    assert summary["seconds"] == 20
    assert summary["scalars"]["data_wait_share"] == 0.75
    assert summary["scalars"]["clips_per_second"] == 1.0


def test_a_log_line_has_the_means_of_its_steps(
    configured: Callable[..., Config], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    logged = {}
    for every in (1, 2):
        config = dataclasses.replace(configured(5, train={"log_every": every}), run=str(tmp_path / f"every {every}"))
        train(config)
        events = EventAccumulator(config.run)
        events.Reload()
        logged[every] = {event.step: event.value for event in events.Scalars("loss")}
    assert list(logged[1]) == [1, 2, 3, 4, 5]
    one = logged[1]
    assert logged[2] == pytest.approx({2: (one[1] + one[2]) / 2, 4: (one[3] + one[4]) / 2, 5: one[5]}, rel=1e-5)
    told = [line.split(",")[0] for line in capfd.readouterr().err.splitlines() if line.startswith("step ")]
    assert told[5:] == ["step 2/5", "step 4/5", "step 5/5"]


@pytest.mark.parametrize(
    ("steps", "poisoned", "settings"),
    [(5, 2, {"checkpoint_every": 3, "log_every": 20}), (3, 2, {"checkpoint_every": 20, "log_every": 20})],
    ids=["at a save", "at the end"],
)
def test_nothing_that_is_not_finite_is_saved_by_steps_that_do_not_look(
    configured: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
    poisoned: int,
    settings: dict[str, int],
) -> None:
    """On a device that is only waited for where it must be; the CPU plays it, which would look at every step."""
    config = configured(steps, train={"device": "cpu", **settings})
    monkeypatch.setattr(ClipBatch, "to", lambda batch, device: batch)

    def after_step(train_state: TrainState) -> None:
        train_state.device = SimpleNamespace(type="other")  # type: ignore[assignment]
        if train_state.step == poisoned:
            train_state.model.state_dict()["query.cnn.layers.0.weight"].view(-1)[0] = math.nan

    with pytest.raises(CaclError, match=rf"step {poisoned + 1}: .* not finite"):
        trained(config, after_step)
    assert not (Path(config.run) / checkpoint.CHECKPOINT_NAME).exists()


# --------------------------------------------------------------------------------------- what a resumed run may change

MAY_CHANGE: dict[str, Any] = {
    "name": "another",
    "run": None,  # with the checkpoint in it
    "data.root": None,  # with the same videos in it
    "data.layout": "csv",
    "data.fold": 2,
    "data.test_share": 0.0625,
    "data.max_rejected_share": 0.5,
    "data.cache": None,
    "loader.backend": "reference",
    "loader.threads": 2,
    "loader.prefetch": 1,
    "loader.dali_pipelines": 3,
    "loader.dali_views": "triton",
    "loader.on_failure": "fail",
    "train.device": "cpu:0",
    "train.log_every": 3,
    "train.checkpoint_every": 2,
    "retrieval.clips_per_video": 3,
    "retrieval.clip_starts": "official",
    "retrieval.batch_size": 5,
}
"""Every key that a resumed run may set anew, with another value (None: a place that the test makes): how it runs, where
things lie, how it is evaluated. Whatever else there is decides what is computed, and is refused."""


@pytest.mark.parametrize("key", [key for key in config_keys(Config()) if key not in MAY_CHANGE])
def test_a_resumed_run_may_not_change_what_is_computed(tmp_path: Path, key: str) -> None:
    config = config_of(run=tmp_path)
    begun = checkpoint.Checkpoint(config=config, step=1, data_fingerprint="videos", model={}, optimizer={})
    checkpoint.save(tmp_path / checkpoint.CHECKPOINT_NAME, begun)
    old, new = value_at(config, key), other_value(value_at(config, key))
    with pytest.raises(CheckpointError) as refused:
        train(with_value(config, key, new), resume=True)
    assert f"({key}: {old} -> {new})" in str(refused.value)


@pytest.fixture(scope="module")
def done(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Of a run whose single step is taken."""
    folder = tmp_path_factory.mktemp("done")
    config = config_of(1, folder / "run", data={"root": str(videos), "cache": str(folder / "cache")})
    train(config)
    return config


@pytest.mark.parametrize("key", MAY_CHANGE)
def test_a_resumed_run_may_change_how_it_runs(done: Config, videos: Path, tmp_path: Path, key: str) -> None:
    run, moved = shutil.copytree(done.run, tmp_path / "run"), shutil.copytree(videos, tmp_path / "moved")
    places = {"run": run, "data.root": moved, "data.cache": tmp_path / "cache"}
    value = str(places[key]) if key in places else MAY_CHANGE[key]
    assert value_at(done, key) != value
    config = with_value(dataclasses.replace(done, run=str(run)), key, value)
    assert train(config, resume=True)["steps_taken"] == 0
