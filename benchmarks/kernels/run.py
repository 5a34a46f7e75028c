"""One problem: whether each contender computes what it should, and then in which time and with how much memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from cacl.benchmarks.harness.calls import CallRun, RooflineRun
from cacl.benchmarks.harness.comparison import Contender, ContenderResult, compare
from cacl.benchmarks.harness.stats import Spread
from cacl.benchmarks.harness.timing import Call, Roofline, memory_of, synchronize
from cacl.errors import CaclError
from cacl.reporting.console import Console

BASELINE = "cacl"
"""The contender that ratios are relative to, and whose refusal is an error."""
COMPILED = "torch.compile"
"""The contender that goes through torch's own compiler."""
OFFICIAL = "official release"
"""The contender that computes as the release of Guo et al. (CVPR 2022) does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelContender(Contender[[], Call]):
    """A way to compute something. It is prepared once, and then called: a call computes everything from its inputs."""

    limits: dict[str, float]
    """How large the errors may be. An error that is not named here may have any size."""
    own_memory: bool = False
    """Whether it keeps memory from call to call, or has it from elsewhere than torch: what a call takes cannot be seen
    then."""


class RooflineWork(NamedTuple):
    """The least work that every contender must do, for the roofline of this machine."""

    work: float
    """Operations or bytes, as the roofline counts them."""
    description: str
    roofline: Roofline


class Task(NamedTuple):
    """A problem with its inputs, which go away with the task."""

    contenders: Sequence[KernelContender]
    """The baseline comes first."""
    errors: Callable[[Any], dict[str, float]]
    """How far the results of a call are from the truth."""
    error_unit: str
    """What the errors count."""
    least_work: RooflineWork


class Problem(NamedTuple):
    """Something to compute, of one size."""

    operation: str
    setting: str
    """Sizes and dtype."""
    make: Callable[[], Task]
    """Makes the inputs, the truth and the contenders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelStats:
    """The time and the memory of a call."""

    seconds: Spread
    """Seconds of one call, over the repeats."""
    each_seconds: tuple[float, ...]
    """One value per repeat."""
    calls: int
    """Calls in each repeat."""
    roofline_share: float
    """The roofline's time as a share of the median."""
    memory_bytes: int | None
    """Memory at the highest point of a call above the inputs; None where that cannot be told."""


@dataclass(slots=True, kw_only=True)
class KernelResult(ContenderResult[KernelStats]):
    """The result of a contender on one problem. The ratio is one of seconds."""

    limits: dict[str, float]
    errors: dict[str, float] | None
    """None if it was not checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemResult:
    """The results of all contenders on one problem."""

    operation: str
    setting: str
    error_unit: str
    roofline_seconds: float
    """The time that the least work takes at the best rate of this machine."""
    roofline: str
    """What takes so long."""
    rows: tuple[KernelResult, ...]
    """The baseline comes first."""


def solve(problem: Problem, device: torch.device, repeats: int, console: Console) -> ProblemResult:
    """Checks the contenders of a problem and measures them in turn, with the roofline of the machine among them.

    Raises:
        CaclError: The roofline cannot be measured.
    """
    task = problem.make()
    runs = [KernelRun(contender, task, device) for contender in task.contenders]
    roofline = RooflineRun(task.least_work.roofline, device)
    compare(
        [*runs, roofline],
        repeats,
        lambda step: console.progress(problem.setting, step.done, step.total, f"{step.contender}, {step.phase}"),
    )
    if roofline.reason:
        raise CaclError(f"{problem.operation}, {problem.setting}: the roofline {roofline.reason}")
    seconds = task.least_work.work / roofline.rate
    return ProblemResult(
        operation=problem.operation,
        setting=problem.setting,
        error_unit=task.error_unit,
        roofline_seconds=seconds,
        roofline=f"{task.least_work.description} at {roofline.rate / 1e9:,.3g} G/s ({roofline.contender.name})",
        rows=tuple(run.result(runs[0], seconds) for run in runs),
    )


class KernelRun(CallRun):
    """A contender on one problem."""

    contender: KernelContender

    def __init__(self, contender: KernelContender, task: Task, device: torch.device) -> None:
        super().__init__(contender, device)
        self.task = task
        self.errors: dict[str, float] | None = None
        self.memory_bytes: int | None = None

    def check(self) -> str:
        """Prepares the call, and compares what it computes with the truth.

        Returns:
            Which error is too large, or an empty string.
        """
        super().check()
        self.errors = self.task.errors(self.call())
        for name, limit in self.contender.limits.items():
            if not self.errors[name] <= limit:  # The error may be NaN.
                return f"{name} {self.errors[name]:.2g} away from the truth, {limit:.2g} allowed"
        return ""

    def warm_up(self) -> None:
        """Calls it as often as a measurement will, and looks at the memory that a call takes."""
        super().warm_up()
        if not self.contender.own_memory:
            self.memory_bytes = memory_of(self.call, self.device)
        synchronize(self.device)

    def result(self, baseline: KernelRun, roofline_seconds: float) -> KernelResult:
        """The result of the contender, relative to the baseline."""
        return KernelResult(
            contender=self.contender.name,
            description=self.contender.description,
            limits=self.contender.limits,
            errors=self.errors,
            reason=self.reason,
            stats=None if self.reason else self._stats(roofline_seconds),
            ratio=self.ratio_to(baseline),
        )

    def _stats(self, roofline_seconds: float) -> KernelStats:
        spread = Spread.of(self.values)
        return KernelStats(
            seconds=spread,
            each_seconds=tuple(self.values),
            calls=self.calls,
            roofline_share=roofline_seconds / spread.median,
            memory_bytes=self.memory_bytes,
        )
