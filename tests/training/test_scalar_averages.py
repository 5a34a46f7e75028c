"""The means of a log line, by a clock that the test turns."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from cacl.training import scalar_averages
from cacl.training.scalar_averages import ScalarAverages


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(scalar_averages, "time", clock)
    return clock


def test_each_mean_is_that_of_the_steps_since_the_last(clock: SimpleNamespace) -> None:
    averages = ScalarAverages()
    for values in ((1.0, 2.0, 6.0), (5.0,)):
        for value in values:
            clock.now += 2
            averages.add({"loss": torch.tensor(value), "rate": torch.tensor(0.5)}, clips=4)
        assert averages.steps == len(values)
        assert averages.take() == {
            "loss": sum(values) / len(values),
            "rate": 0.5,
            "clips_per_second": 2.0,
            "data_wait_share": 0.0,
        }
        assert averages.steps == 0


def test_the_wait_for_data_is_the_time_between_asking_and_getting(clock: SimpleNamespace) -> None:
    def batches() -> Iterator[int]:
        for number in range(3):
            clock.now += 3
            yield number

    averages, seen = ScalarAverages(), []
    for number in averages.timed(batches()):
        seen.append(number)
        clock.now += 1
        averages.add({"loss": torch.tensor(0.0)}, clips=1)
    assert seen == [0, 1, 2]
    assert averages.take()["data_wait_share"] == 0.75
