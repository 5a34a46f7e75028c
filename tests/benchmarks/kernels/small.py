"""Problems that are solved in an instant, and measurements that are over in one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from cacl.benchmarks.harness import timing
from cacl.benchmarks.kernels import command
from cacl.benchmarks.kernels.augment_problem import augment_problem
from cacl.benchmarks.kernels.command import OPERATIONS
from cacl.benchmarks.kernels.contrast_problems import contrast_problem, symmetric_problem
from cacl.benchmarks.kernels.edit_distance_problem import edit_distance_problem
from cacl.benchmarks.kernels.launches import LAUNCHES
from cacl.benchmarks.kernels.run import KernelContender, Problem, RooflineWork, Task

CPU = torch.device("cpu")


def quick_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes measurements short, and compiles one kernel ahead of time for one GPU."""
    monkeypatch.setattr(timing, "MEASUREMENT_SECONDS", 0.005)
    monkeypatch.setattr(command, "CAPABILITIES", (90,))
    monkeypatch.setattr(command, "LAUNCHES", {name: lambda: iter(()) for name in OPERATIONS} | AUGMENT)


AUGMENT = {"augment": LAUNCHES["augment"]}


def tiny_problems(device: torch.device) -> Iterator[Problem]:
    yield contrast_problem(device, torch.float32, 70, 2, 300)
    yield contrast_problem(device, torch.bfloat16, 5, 1, 300, with_unchosen_form=True)
    yield symmetric_problem(device, torch.float32, 60)
    yield edit_distance_problem(device, 50, 9)
    yield augment_problem(device, 2, 3, (20, 26), 18, 10)
    yield augment_problem(device, 2, 3, (20, 26), 10, 10)


def contender(name: str, call: Callable[[], Any], **changes: Any) -> KernelContender:
    return KernelContender(name=name, description="", prepare=lambda: call, limits={"value": 0.1}, **changes)


def problem_of(*contenders: KernelContender) -> Problem:
    """Whose solution is 1."""
    work = RooflineWork(1, "nothing", timing.Roofline("none", 1, lambda: None))
    task = Task(contenders, lambda found: {"value": abs(found - 1)}, "the difference", work)
    return Problem("contrast", "one", lambda: task)


def breaks() -> float:
    raise RuntimeError("out of luck\nin many lines")
