"""Seconds and memory of a call, and the rooflines."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cacl.benchmarks.harness import timing

CPU = torch.device("cpu")


@pytest.mark.parametrize("mebibytes", [16, 64])
def test_memory_is_seen(mebibytes: int) -> None:
    """Other threads of the process only ever add to it: the least of several times is that of the call."""
    seen = [timing.memory_of(lambda: torch.ones(mebibytes, 2**18), CPU) for _ in range(5)]
    if seen[0] is None:
        pytest.skip("this system does not tell")
    assert min(x for x in seen if x is not None) / 2**20 == pytest.approx(mebibytes, abs=3)


class Clock:
    """Stands in for time: one that a call takes, and no other."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.now = seconds, 0.0

    def perf_counter(self) -> float:
        return self.now

    def call(self) -> None:
        self.now += self.seconds


def test_the_time_of_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(0.25)
    monkeypatch.setattr(timing, "time", clock)
    monkeypatch.setattr(timing, "MEASUREMENT_SECONDS", 1.1)
    assert timing.warm_up(clock.call, CPU) == 5
    assert timing.seconds_of(clock.call, 5, CPU) == 0.25


class Work(TorchDispatchMode):
    """Counts what operations of torch do: multiplications and additions, bytes read and written, elements negated."""

    done = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        first, *others = args
        if func is torch.ops.aten.mm.out:
            self.done += 2 * first.shape[0] * first.shape[1] * others[0].shape[1]
        elif func is torch.ops.aten.copy_.default:
            self.done += sum(x.numel() * x.itemsize for x in args[:2])
        elif func is torch.ops.aten.bitwise_not_.default:
            self.done += first.numel()
        else:
            raise AssertionError(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("roofline", "cores"),
    [
        (timing.multiply_roofline(CPU, torch.float32), 1),
        (timing.copy_roofline(CPU), 1),
        *((timing.integer_roofline(CPU, bits), torch.get_num_threads()) for bits in (8, 64)),  # a core each
    ],
    ids=lambda value: getattr(value, "description", ""),
)
def test_a_roofline_does_the_work_that_it_says(roofline: timing.Roofline, cores: int) -> None:
    with Work() as work:
        roofline.call()
    assert roofline.work == cores * work.done > 0
