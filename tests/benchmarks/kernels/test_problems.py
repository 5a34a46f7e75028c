"""The problems of the kernel benchmark: what is computed, and what stands in for what is missing."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from cacl.benchmarks.kernels import edit_distance_problem as edit_distance
from cacl.benchmarks.kernels.command import OPERATIONS, bench_kernels
from cacl.benchmarks.kernels.edit_distance_problem import wagner_fischer
from cacl.benchmarks.kernels.launches import LAUNCHES
from cacl.benchmarks.kernels.problems import problems
from cacl.benchmarks.kernels.run import BASELINE, OFFICIAL
from cacl.errors import CaclError
from cacl.reporting.console import Console
from tests.benchmarks.kernels.small import tiny_problems


def test_our_own_operations_are_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that is off by little, found by the real check."""
    right = edit_distance.edit_distance_to_identity

    def off(order: Tensor) -> Tensor:
        distances = right(order)
        distances[0] += 1
        return distances

    monkeypatch.setattr(edit_distance, "edit_distance_to_identity", off)
    with Console(enabled=False) as console:
        result = bench_kernels(
            ["edit-distance"], repeats=1, device="cpu", console=console, compile=False, list_problems=tiny_problems
        )
    with pytest.raises(CaclError, match="edit-distance, 50 orders of 9 frames: cacl refused: differing 1 away"):
        result.check()


def test_without_rapidfuzz_the_recurrence_is_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edit_distance, "unavailable_reason", lambda module, package: f"{package} is not installed")
    with Console(enabled=False) as console:
        result = bench_kernels(
            ["edit-distance"], repeats=1, device="cpu", console=console, compile=False, list_problems=tiny_problems
        )
    reasons = {row.contender: row.reason for row in result.problems[0].rows}
    assert reasons[BASELINE] == ""
    assert reasons[OFFICIAL] == "skipped: rapidfuzz is not installed"


def test_the_recurrence() -> None:
    order = torch.tensor([[0, 1, 2, 3], [1, 0, 2, 3], [3, 0, 1, 2], [3, 2, 1, 0]], dtype=torch.uint8)
    assert wagner_fischer(order).tolist() == [0, 2, 2, 4]


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_all_operations_are_there(device: str) -> None:
    found = list(problems(torch.device(device)))
    assert {problem.operation for problem in found} == set(OPERATIONS)
    assert len({(problem.operation, problem.setting) for problem in found}) == len(found)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_launches_name_every_argument(operation: str) -> None:
    launches: Sequence[Any] = list(LAUNCHES[operation]())
    assert launches
    for launch in launches:
        assert {parameter.name for parameter in launch.kernel.params} <= launch.arguments.keys()
