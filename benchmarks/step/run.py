"""One training step: whether it learns what ours learns, and then in which time and with how much memory."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cacl.benchmarks.harness.comparison import ContenderResult, ContenderRun
from cacl.benchmarks.harness.stats import Spread
from cacl.benchmarks.harness.timing import memory_of, synchronize, warm_up
from cacl.benchmarks.step.contenders import StepContender, Steps
from cacl.config import Config, override
from cacl.errors import reason_of
from cacl.profiling.recording import recorded_steps, trace_of_torch
from cacl.profiling.stage_times import StageTable, read_stage_table
from cacl.training.run_state import uses_bf16

PROFILED_STEPS = 2
GRADIENT_LIMIT = 1e-3
"""How far the gradient of the first step may be from that of the baseline, relative to its length."""
LOSSES = ("contrast", "order", "loss")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStats:
    """The time and the memory of a step."""

    seconds: Spread
    """Seconds of one step, over the repeats."""
    each_seconds: tuple[float, ...]
    """One value per repeat."""
    steps: int
    """Steps in each repeat."""
    clips_per_second: float
    """Clips of a batch over the median of the seconds."""
    flops: int
    """Additions and multiplications of one step, as torch's counter counts them: those of convolutions, products of
    matrices and attention. The contrast with the queue is an operation of its own in ours, which it does not see."""
    flops_per_second: float
    peak_share: float
    """The same as a share of what this machine does in a large product of matrices."""
    memory_bytes: int | None
    """Memory at the highest point of a step above weights, optimiser and batches; None where that cannot be told."""
    stages: StageTable
    """Where the time goes, in steps of their own, under a profiler."""


@dataclass(slots=True, kw_only=True)
class StepResult(ContenderResult[StepStats]):
    """The result of a contender. The ratio is one of seconds."""

    loss_limit: float
    errors: dict[str, float] | None
    """How far the losses and the gradient of the first step are from those of the baseline, relative to these. None if
    they were not compared."""


class FirstStep(NamedTuple):
    """What the first step computes, in float32."""

    losses: dict[str, float]
    gradients: list[Tensor]
    flops: int


def first_step(steps: Steps, *, counted: bool = True) -> FirstStep:
    """Takes the first step.

    Args:
        steps: The steps, of which none was taken yet.
        counted: Whether to count the operations, for which compiled code would have to be compiled otherwise.
    """
    with FlopCounterMode(display=False) if counted else nullcontext() as counter:
        losses = steps.take(0)
    gradients = [p.grad for p in steps.state.trained.parameters() if p.grad is not None]
    flops = counter.get_total_flops() if counter else 0
    return FirstStep({name: float(losses[name]) for name in LOSSES if name in losses}, gradients, flops)


class StepRun(ContenderRun[float]):
    """One contender with a configuration."""

    contender: StepContender

    def __init__(
        self, contender: StepContender, config: Config, device: torch.device, truth: Callable[[], FirstStep]
    ) -> None:
        super().__init__(contender)
        self.config, self.device, self.truth = config, device, truth
        self.errors: dict[str, float] | None = None
        self.steps: Steps | None = None
        self.flops = 0
        self.numbers = count(1)

    def check(self) -> str:
        """Compares the losses and the gradient of the first step with those of the baseline, in float32.

        Returns:
            Which of them differs too much, or an empty string.
        """
        self.steps = self.contender.prepare(override(self.config, ["train.precision=fp32"]), self.device)
        truth, found = self.truth(), first_step(self.steps, counted=self.contender.counted)
        self.flops = found.flops or truth.flops
        self.errors = {
            name: abs(found.losses.get(name, float("nan")) - value) / abs(value) for name, value in truth.losses.items()
        } | {"gradient": _relative_distance(found.gradients, truth.gradients)}
        for name, error in self.errors.items():
            limit = GRADIENT_LIMIT if name == "gradient" else self.contender.loss_limit
            if not error <= limit:  # The error may be NaN.
                return f"{name} of the first step {error:.2g} away from the baseline, {limit:.2g} allowed"
        return ""

    def warm_up(self) -> None:
        """Takes as many steps as a measurement will, and looks at the memory and the stages of others."""
        if uses_bf16(self.config.train.precision, self.device):  # What was checked is not what is measured.
            self.steps = self.contender.prepare(self.config, self.device)
            self._take()
        self.steps_per_measurement = warm_up(self._take, self.device)
        self.memory_bytes = memory_of(self._take, self.device)
        self.stages = self._profile()

    def measure(self) -> float:
        """Seconds of one step, which follows another one as in a training."""
        synchronize(self.device)
        start = time.perf_counter()
        for _ in range(self.steps_per_measurement):
            self._take()
        synchronize(self.device)
        return (time.perf_counter() - start) / self.steps_per_measurement

    def _take(self) -> None:
        assert self.steps is not None
        self.steps.take(next(self.numbers))

    def _profile(self) -> StageTable:
        assert self.steps is not None
        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder) / "trace.json.gz"
            recording = trace_of_torch(self.device, trace, memory=False)
            for number in recorded_steps(self.numbers, 0, PROFILED_STEPS, recording):
                self.steps.take(number)
            return read_stage_table(trace)

    @property
    def values(self) -> list[float]:
        """Seconds of one step in each repeat."""
        return self.measurements

    def describe_error(self, error: Exception) -> str:
        """The first line of the message: compilers add many."""
        return reason_of(error).strip().partition("\n")[0]

    def release(self) -> None:
        """Lets go of the weights."""
        self.steps = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def result(self, baseline: ContenderRun[float], peak: float) -> StepResult:
        """The result of the contender.

        Args:
            baseline: The contender that the ratio is relative to.
            peak: The operations per second of this machine in a large product of matrices.
        """
        return StepResult(
            contender=self.contender.name,
            description=self.contender.description,
            loss_limit=self.contender.loss_limit,
            errors=self.errors,
            reason=self.reason,
            stats=None if self.reason else self._stats(peak),
            ratio=self.ratio_to(baseline),
        )

    def _stats(self, peak: float) -> StepStats:
        spread = Spread.of(self.values)
        return StepStats(
            seconds=spread,
            each_seconds=tuple(self.values),
            steps=self.steps_per_measurement,
            clips_per_second=self.config.train.batch_size / spread.median,
            flops=self.flops,
            flops_per_second=self.flops / spread.median,
            peak_share=self.flops / spread.median / peak,
            memory_bytes=self.memory_bytes,
            stages=self.stages,
        )


def truth_of(baseline: StepContender, config: Config, device: torch.device) -> Callable[[], FirstStep]:
    """Returns what gives the first step of the baseline, which is taken once."""
    checked = override(config, ["train.precision=fp32"])
    return cache(partial(_first_step_of, baseline, checked, device))


def _first_step_of(baseline: StepContender, config: Config, device: torch.device) -> FirstStep:
    return first_step(baseline.prepare(config, device))


def _relative_distance(found: list[Tensor], truth: list[Tensor]) -> float:
    if [x.shape for x in found] != [x.shape for x in truth]:
        return float("nan")
    distance = sum(float((x - true).square().sum()) for x, true in zip(found, truth, strict=True))
    return (distance / sum(float(true.square().sum()) for true in truth)) ** 0.5
