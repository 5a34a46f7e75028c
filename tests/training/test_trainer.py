"""The loop around the steps: signals, log lines, and what is saved."""

from __future__ import annotations

import dataclasses
import json
import math
import signal
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from cacl.checkpoints import checkpoint
from cacl.checkpoints.encoders import ENCODERS_NAME
from cacl.clips import ClipBatch
from cacl.config import Config
from cacl.errors import CaclError
from cacl.loaders import clip_loader
from cacl.loaders.catalog.catalog import Catalog
from cacl.reporting.sinks.jsonl import METRICS_NAME
from cacl.training import scalar_averages
from cacl.training.run_state import RunState
from cacl.training.train_state import TrainState
from cacl.training.trainer import train
from tests.training.small_runs import BATCH, VIDEOS, config_of

training = import_module("cacl.training.trainer")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def configured(videos: Path, tmp_path: Path) -> Callable[..., Config]:
    """Makes configurations of runs on video files: `configured(steps, train={...})`."""

    def make(steps: int, **sections: dict[str, Any]) -> Config:
        data = {"root": str(videos), "cache": str(videos.with_name("cache"))}
        return config_of(steps, tmp_path / "run", data=data, **sections)

    return make


def trained(config: Config, after_step: Callable[[TrainState], None], **options: Any) -> dict[str, Any]:
    """Runs `train` and returns its result. `after_step` is called after a step, before it is logged or saved."""

    class Observed(TrainState):
        def train_step(self, batch: ClipBatch, **options: Any) -> dict[str, Tensor]:
            metrics = super().train_step(batch, **options)
            after_step(self)
            return metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "TrainState", Observed)
        return train(config, **options)


@pytest.mark.parametrize("before_the_end", [0, 1])
def test_a_signal_that_comes_as_the_last_step_ends_interrupts_nothing(
    configured: Callable[..., Config], before_the_end: int
) -> None:
    """The signal comes in the last step, or in the one before, after which the loop notices it."""
    config = configured(3)

    def ask_to_stop(train_state: TrainState) -> None:
        if train_state.step == 3 - before_the_end:
            signal.raise_signal(signal.SIGTERM)

    assert trained(config, ask_to_stop)["steps_taken"] == 3
    assert checkpoint.load(Path(config.run)).step == 3
    assert (Path(config.run) / ENCODERS_NAME).exists()


@pytest.fixture
def own_handlers() -> Iterator[dict[signal.Signals, Any]]:
    """Sets the handlers that a program that calls `train` may have set itself, and yields them by signal."""
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
    """On this clock a batch takes three seconds to come and a step takes one: four clips in four seconds.

    Whoever looks at the run takes 100 seconds each time, which are no part of the steps.
    """
    clock = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now)
    build = clip_loader.build_backend

    class Slow:
        def __init__(self, *arguments: Any) -> None:
            self.backend = build(*arguments)

        def batches(self, plans: Any) -> Iterator[ClipBatch]:
            for batch in self.backend.batches(plans):
                clock.now += 3
                yield batch

    def take_a_second(train_state: TrainState) -> None:
        clock.now += 1

    monkeypatch.setattr(clip_loader, "build_backend", Slow)
    monkeypatch.setattr(training, "time", clock)
    monkeypatch.setattr(scalar_averages, "time", clock)
    seen = []

    def look(state: RunState[Any], catalog: Catalog, batch: ClipBatch, last: bool) -> None:
        clock.now += 100
        lines = (Path(state.config.run) / METRICS_NAME).read_text().splitlines()
        seen.append((state.step, json.loads(lines[-1])["step"], len(catalog.videos), len(batch), last))

    summary = trained(configured(5, train={"log_every": 2}), take_a_second, on_log=look)
    assert seen == [(2, 2, VIDEOS, BATCH, False), (4, 4, VIDEOS, BATCH, False), (5, 5, VIDEOS, BATCH, True)]
    assert summary["seconds"] == 20 + 3 * 100
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
def test_nothing_that_is_not_finite_is_saved_by_steps_without_sync(
    configured: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
    poisoned: int,
    settings: dict[str, int],
) -> None:
    """The CPU, which would be checked in every step, stands for a device that is only waited for where it must be."""
    config = configured(steps, train={"device": "cpu", **settings})
    monkeypatch.setattr(ClipBatch, "to", lambda batch, device: batch)

    def after_step(train_state: TrainState) -> None:
        train_state.device = SimpleNamespace(type="other")  # type: ignore[assignment]
        if train_state.step == poisoned:
            train_state.model.state_dict()["query.cnn.layers.0.weight"].view(-1)[0] = math.nan

    with pytest.raises(CaclError, match=rf"step {poisoned + 1}: .* not finite"):
        trained(config, after_step)
    assert not (Path(config.run) / checkpoint.CHECKPOINT_NAME).exists()
