"""One way of computing something: whether it computes that, and then in which time and how much memory.

A way whose results are too far from the truth is not timed, and the reason stands in the place of its figures.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from cacl.benchmarks.harness.stats import Spread, ratios
from cacl.benchmarks.harness.timing import Call, Roofline, calls_of, memory_of, seconds_of, wait
from cacl.errors import reason_of
from cacl.reporting.console import Console

OURS = "cacl"
"""The way whose failure is an error."""
COMPILED = "torch.compile"
"""The way through torch's own compiler."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    name: str
    how: str
    """In a few words, for readers of the figures."""
    prepare: Callable[[], Call]
    """Called once; it returns what is measured: a call that computes everything from inputs that are there."""
    limits: dict[str, float]
    """How large the errors may be. One that is not in here may have any size."""
    own_memory: bool = False
    """It keeps memory from call to call, or has it from elsewhere than torch: what a call takes cannot be seen."""
    unavailable_reason: str = ""
    """Why it cannot run here."""


class Floor(NamedTuple):
    """The least that any way must do, at the best rate that this machine has for such work."""

    work: float
    """As the yardstick counts it."""
    what: str
    roofline: Roofline


class Task(NamedTuple):
    ways: Sequence[Way]
    """Ours first."""
    errors: Callable[[Any], dict[str, float]]
    """How far the results of a call are from the truth."""
    unit: str
    """What the errors count."""
    floor: Floor


class Problem(NamedTuple):
    operation: str
    setting: str
    """Sizes and dtype."""
    make: Callable[[], Task]
    """With its inputs, which go away with the task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    seconds: Spread
    """Of one call, over the repeats."""
    each_seconds: tuple[float, ...]
    calls: int
    """In each repeat."""
    ratio: float | None
    """Of the time, to that of ours: the median of the ratios within each repeat."""
    floor_share: float
    """Of the floor in the time."""
    memory_bytes: int | None
    """At the highest point above the inputs; None where that cannot be told."""


@dataclass(slots=True, kw_only=True)
class Row:
    """What came of a way."""

    way: str
    how: str
    limits: dict[str, float]
    errors: dict[str, float] | None = None
    reason: str = ""
    """Why there are no figures."""
    figures: Figures | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What came of a problem."""

    operation: str
    setting: str
    error_unit: str
    floor_seconds: float
    floor: str
    """What takes so long."""
    rows: tuple[Row, ...]
    """Ours first."""


def solved(problem: Problem, device: torch.device, repeats: int, report: Console) -> Block:
    """Checks all ways of a problem, and measures them in turn, with the yardstick of its floor among them."""
    task = problem.make()
    runs = [Run(way, task, device) for way in task.ways]
    roofline = task.floor.roofline
    total = (1 + repeats) * len(runs)
    for done, run in enumerate(runs):
        report.progress(problem.setting, done, total, run.row.way)
        run.begin()
    calls, best = calls_of(roofline.call, device), math.inf
    for done in range(len(runs), total):
        run = runs[done % len(runs)]
        report.progress(problem.setting, done, total, run.row.way)
        run.measure()
        if run is runs[-1]:
            best = min(best, seconds_of(roofline.call, calls, device))
    report.progress(problem.setting, total, total)

    rate = roofline.work / best
    floor = task.floor.work / rate
    ours = None if runs[0].row.reason else runs[0].seconds
    return Block(
        operation=problem.operation,
        setting=problem.setting,
        error_unit=task.unit,
        floor_seconds=floor,
        floor=f"{task.floor.what} at {rate / 1e9:,.3g} G/s ({roofline.what})",
        rows=tuple(run.finish(ours, floor) for run in runs),
    )


class Run:
    def __init__(self, way: Way, task: Task, device: torch.device) -> None:
        self.way, self.task, self.device = way, task, device
        reason = f"skipped: {way.unavailable_reason}" if way.unavailable_reason else ""
        self.row = Row(way=way.name, how=way.how, limits=way.limits, reason=reason)
        self.call: Call = lambda: None
        self.calls, self.memory = 0, None
        self.seconds: list[float] = []

    def begin(self) -> None:
        """Prepares and checks it, warms it up and looks at its memory."""
        for action in (self._check, self._warm_up):
            self._attempt(action)

    def measure(self) -> None:
        self._attempt(lambda: self.seconds.append(seconds_of(self.call, self.calls, self.device)))

    def finish(self, ours: Sequence[float] | None, floor: float) -> Row:
        """ours: the seconds that our way took in each repeat, if it has any; floor: those of the floor."""
        self.call = lambda: None
        if not self.row.reason:
            spread = Spread.of(self.seconds)
            self.row.figures = Figures(
                seconds=spread,
                each_seconds=tuple(self.seconds),
                calls=self.calls,
                ratio=statistics.median(ratios(self.seconds, ours)) if ours else None,
                floor_share=floor / spread.median,
                memory_bytes=self.memory,
            )
        return self.row

    def _attempt(self, action: Callable[[], None]) -> None:
        if self.row.reason:
            return
        try:
            action()
        except Exception as error:  # rivals fail in ways of their own, such as for want of memory or of a compiler
            first_line, _, _ = reason_of(error).strip().partition("\n")
            self.row.reason = f"fails: {first_line}"
        if self.row.reason and self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _check(self) -> None:
        self.call = self.way.prepare()
        self.row.errors = self.task.errors(self.call())
        for name, limit in self.way.limits.items():
            if not self.row.errors[name] <= limit:  # it may be nan
                self.row.reason = (
                    f"refused: {name} {self.row.errors[name]:.2g} away from the truth, {limit:.2g} allowed"
                )
                self.call = lambda: None

    def _warm_up(self) -> None:
        self.calls = calls_of(self.call, self.device)
        if not self.way.own_memory:
            self.memory = memory_of(self.call, self.device)
        wait(self.device)
