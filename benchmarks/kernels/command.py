"""Compares our kernels with the ways in which other people compute the same (`cacl bench-kernels`).

What is said here of GPUs has not run on one yet.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from cacl.benchmarks.harness import machine
from cacl.benchmarks.kernels.launches import LAUNCHES
from cacl.benchmarks.kernels.problems import problems
from cacl.benchmarks.kernels.resources import CAPABILITIES, compile_ahead
from cacl.benchmarks.kernels.run import BASELINE, COMPILED, Problem, ProblemResult, Task, solve
from cacl.errors import CaclError, UsageError
from cacl.kernels.dispatch import INTERPRETED
from cacl.reporting.console import Console

log = logging.getLogger(__name__)

OPERATIONS = tuple(LAUNCHES)
PACKAGES = ("cacl", "torch", "triton", "numpy", "rapidfuzz", "torchvision", "nvidia-dali-cuda130")
"""Packages whose versions a result names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelBenchmark:
    """The result of the benchmark. It names no folder and no machine."""

    problems: tuple[ProblemResult, ...]
    resources: tuple[dict[str, Any], ...]
    """What each kernel takes of each GPU that it was compiled for; empty if none could be compiled, or none in time."""
    left_out: tuple[str, ...]
    """Problems for which there was no time."""
    settings: dict[str, Any]
    machine: dict[str, Any]

    def check(self) -> None:
        """Tells whether the results count.

        Raises:
            CaclError: A kernel of ours was refused or failed.
        """
        for problem in self.problems:
            for row in problem.rows:
                if row.contender == BASELINE and row.reason:
                    raise CaclError(f"{problem.operation}, {problem.setting}: {BASELINE} {row.reason}")

    def to_json(self) -> dict[str, Any]:
        """The result for programs."""
        return asdict(self)


def select_device(name: str) -> torch.device:
    """The device of that name: auto, cpu or cuda.

    Raises:
        UsageError: There is no such name, or no CUDA device.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {name}: say auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no CUDA device is visible; --device auto takes what is there")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def bench_kernels(
    operations: Sequence[str],
    *,
    repeats: int,
    device: str,
    console: Console,
    compile: bool = True,
    seconds: float = math.inf,
    on_result: Callable[[KernelBenchmark], None] = lambda _: None,
    list_problems: Callable[[torch.device], Iterable[Problem]] = problems,
) -> KernelBenchmark:
    """Times the kernels of some operations beside their rivals.

    Args:
        operations: The operations to measure; all of them if none is named.
        repeats: Measurements of each contender.
        device: auto, cpu or cuda.
        console: Shows the progress.
        compile: Whether to measure torch.compile too, which takes longer than all other measurements.
        seconds: No new problem is begun after this many seconds.
        on_result: Called after every problem with the results so far.
        list_problems: Names all problems for a device, from which those of the operations are taken.

    Raises:
        UsageError: An operation or the device is unknown, or there are no repeats.
        CaclError: The roofline of a problem cannot be measured.
    """
    if unknown := [name for name in operations if name not in OPERATIONS]:
        raise UsageError(f"{unknown[0]}: no operation; there are {', '.join(OPERATIONS)}")
    if repeats < 1:
        raise UsageError(f"--repeats {repeats}: give at least 1")
    chosen, measured, end = select_device(device), operations or OPERATIONS, time.monotonic() + seconds
    result = _empty_result(chosen, repeats)
    for problem in list_problems(chosen):
        if problem.operation not in measured:
            continue
        name = f"{problem.operation}: {problem.setting}"
        if time.monotonic() > end:
            result = replace(result, left_out=(*result.left_out, name))
            continue
        log.info(name)
        solved = solve(problem if compile else _without_compiled(problem), chosen, repeats, console)
        result = replace(result, problems=(*result.problems, solved))
        on_result(result)
    if not INTERPRETED and time.monotonic() <= end:
        result = replace(result, resources=_resources(measured, console))
    return result


def _empty_result(device: torch.device, repeats: int) -> KernelBenchmark:
    return KernelBenchmark(
        problems=(),
        resources=(),
        left_out=(),
        settings={
            "device": device.type,
            "threads": torch.get_num_threads(),
            "repeats": repeats,
            "load": os.getloadavg()[0],
        },
        machine=machine.describe(PACKAGES)
        | {"gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None, "cuda": torch.version.cuda},
    )


def _without_compiled(problem: Problem) -> Problem:
    def make() -> Task:
        task = problem.make()
        return task._replace(contenders=[each for each in task.contenders if each.name != COMPILED])

    return problem._replace(make=make)


def _resources(operations: Sequence[str], console: Console) -> tuple[dict[str, Any], ...]:
    log.info("kernels, compiled ahead of time")
    launches = [
        (operation, launch) for operation in OPERATIONS if operation in operations for launch in LAUNCHES[operation]()
    ]
    rows = []
    for done, (operation, launch) in enumerate(launches):
        name = launch.kernel.__name__
        console.progress("compiling", done, len(launches), name)
        by_gpu: dict[str, Any] = {
            f"sm_{capability}": compile_ahead(launch.kernel, launch.arguments, capability, **launch.options)._asdict()
            for capability in CAPABILITIES
        }
        rows.append({"operation": operation, "kernel": name, "setting": launch.setting, **by_gpu})
    return tuple(rows)
