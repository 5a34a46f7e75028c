"""Compares contenders: checks each one against the truth, warms it up, and measures it in turn with the others.

A contender that computes something else than the truth is refused and never timed. Neither is one that fails or that
cannot run here. In all these cases a reason stands in place of the stats.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

from cacl.benchmarks.harness.stats import median_ratio

Parameters = ParamSpec("Parameters")
Prepared = TypeVar("Prepared")
Stats = TypeVar("Stats")
Measurement = TypeVar("Measurement")

CHECK, WARM_UP = "check", "warm-up"
"""The first two phases of a comparison; the repeats follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender(Generic[Parameters, Prepared]):
    """A way to do what a benchmark measures."""

    name: str
    description: str
    """Says in a few words how it works, for readers of the results."""
    prepare: Callable[Parameters, Prepared]
    """Makes what is measured. The time that it takes is not measured."""
    unavailable_reason: str = ""
    """Why it cannot run here; empty if it can."""


@dataclass(slots=True, kw_only=True)
class ContenderResult(Generic[Stats]):
    """The result of one contender."""

    contender: str
    description: str
    reason: str
    """Why there are no stats: the contender was skipped, was refused or failed. Empty if there are."""
    stats: Stats | None
    ratio: float | None
    """The value of this contender relative to that of the baseline: the median of the ratios within each repeat. None
    if one of the two has no stats."""


class ContenderRun(ABC, Generic[Measurement]):
    """One contender in one comparison. A benchmark says in a subclass how it checks, warms up and measures."""

    def __init__(self, contender: Contender[..., Any]) -> None:
        self.contender = contender
        self.reason = f"skipped: {contender.unavailable_reason}" if contender.unavailable_reason else ""
        self.measurements: list[Measurement] = []

    @abstractmethod
    def check(self) -> str:
        """Compares what the contender computes with the truth.

        Returns:
            What is wrong with it, or an empty string.
        """

    @abstractmethod
    def warm_up(self) -> None:
        """Does what must not be timed: workers start, files enter the page cache, code is compiled."""

    @abstractmethod
    def measure(self) -> Measurement:
        """Measures the contender once."""

    @property
    @abstractmethod
    def values(self) -> list[float]:
        """The value of each repeat that contenders are compared by, such as clips per second."""

    @abstractmethod
    def describe_error(self, error: Exception) -> str:
        """Says in one line why the contender failed."""

    @abstractmethod
    def release(self) -> None:
        """Lets go of what the contender holds, such as worker processes or memory."""

    def ratio_to(self, baseline: ContenderRun[Any]) -> float | None:
        """The median over the repeats of the ratio to the baseline; None if one of the two was left out."""
        return None if self.reason or baseline.reason else median_ratio(self.values, baseline.values)


class Step(NamedTuple):
    """What a comparison is about to do."""

    phase: str
    """`check`, `warm-up` or `repeat 1 of 5`."""
    contender: str
    done: int
    """Steps before this one."""
    total: int
    """Steps of the whole comparison."""


def compare(
    runs: Sequence[ContenderRun[Any]], repeats: int, on_step: Callable[[Step], None] = lambda step: None
) -> None:
    """Checks all contenders, warms all of them up, and then measures them in turn, `repeats` times.

    Contenders take turns because a machine changes its speed: what slows one repeat down slows all of them.

    Args:
        runs: The contenders. Afterwards each of them has one measurement per repeat, or a reason.
        repeats: How many measurements each contender gets.
        on_step: Called before each step.
    """
    phases: list[tuple[str, Callable[[ContenderRun[Any]], str]]] = [(CHECK, _check), (WARM_UP, _warm_up)]
    phases += [(f"repeat {number} of {repeats}", _measure) for number in range(1, repeats + 1)]
    done, total = 0, len(phases) * len(runs)
    for phase, action in phases:
        for run in runs:
            on_step(Step(phase, run.contender.name, done, total))
            _attempt(run, action)
            done += 1
    for run in runs:
        run.release()


def _attempt(run: ContenderRun[Any], action: Callable[[ContenderRun[Any]], str]) -> None:
    if run.reason:
        return
    try:
        run.reason = action(run)
    except Exception as error:  # Rivals fail in ways of their own, such as for want of memory or of a compiler.
        run.reason = f"fails: {run.describe_error(error)}"
    if run.reason:
        run.release()


def _check(run: ContenderRun[Any]) -> str:
    fault = run.check()
    return f"refused: {fault}" if fault else ""


def _warm_up(run: ContenderRun[Any]) -> str:
    run.warm_up()
    return ""


def _measure(run: ContenderRun[Any]) -> str:
    run.measurements.append(run.measure())
    return ""
