"""Compares training steps on the same weights and clips (`cacl bench-step`).

A step begins with a batch of views in the memory of the host, as the loader delivers it, and ends with new weights and
a new queue. How views are decoded and augmented is compared by `cacl bench-loader`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from cacl import distributed
from cacl.benchmarks.harness import machine
from cacl.benchmarks.harness.calls import RooflineRun
from cacl.benchmarks.harness.comparison import Step, compare
from cacl.benchmarks.harness.timing import multiply_roofline
from cacl.benchmarks.step.contenders import BASELINE, StepContender, contenders
from cacl.benchmarks.step.run import StepResult, StepRun, truth_of
from cacl.benchmarks.step.scaling import Scaling, measure_scaling
from cacl.config import Config, override, to_dict
from cacl.errors import CaclError, UsageError
from cacl.reporting.console import Console
from cacl.training.run_state import uses_bf16

log = logging.getLogger(__name__)

PACKAGES = ("cacl", "torch", "triton", "timm")
"""Packages whose versions a result names."""
DEFAULTS: dict[str, Any] = {
    "model": {"cnn": "r3d10", "transformer": {"embedder": "resnet18"}},
    "train": {"batch_size": 16},
}
"""What is measured without a configuration: R3D-10 with the other defaults and a ResNet-18 for single frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBenchmark:
    """The result of the benchmark. It names no folder and no machine."""

    rows: tuple[StepResult, ...]
    peak_flops_per_second: float
    """What this machine does in a large product of matrices of the same dtype, at its best during the benchmark."""
    peak: str
    """How large that product is."""
    scaling: tuple[Scaling, ...]
    """Our step on several processes, where that was asked for."""
    settings: dict[str, Any]
    machine: dict[str, Any]

    def check(self) -> None:
        """Tells whether the results count.

        Raises:
            CaclError: Our own step failed.
            StageCoverageError: Its stages do not add up to it.
        """
        for row in self.rows:
            if row.contender == BASELINE:
                if row.stats is None:
                    raise CaclError(f"{row.contender}: {row.reason}; no figure counts without it")
                row.stats.stages.check()

    def to_json(self) -> dict[str, Any]:
        """The result for programs."""
        return asdict(self)


def bench_step(
    config: Config,
    *,
    repeats: int,
    console: Console,
    compile: bool = True,
    ranks: Sequence[int] = (),
    modules: Sequence[str] = (),
    list_contenders: Callable[..., Sequence[StepContender]] = contenders,
) -> StepBenchmark:
    """Times training steps.

    Args:
        config: The configuration, whose models, clips, losses and batch count. No video is needed.
        repeats: Measurements of each step.
        console: Shows the progress.
        compile: Whether to measure the compiled step, too.
        ranks: Numbers of processes to measure our step on, with as many clips for each process.
        modules: The modules that register what the configuration names, for these processes.
        list_contenders: Names the steps to compare, the baseline first.

    Raises:
        UsageError: There are no repeats, or there is no such device.
        CaclError: The peak of this machine cannot be measured, or one of several processes failed.
    """
    if repeats < 1:
        raise UsageError(f"--repeats {repeats}: give at least 1")
    config = override(config, ["train.compile=false"])
    with distributed.process_group(config.train.device) as device:
        listed = list_contenders(config, compile=compile)
        truth = truth_of(listed[0], config, device)
        runs = [StepRun(contender, config, device, truth) for contender in listed]
        dtype = torch.bfloat16 if uses_bf16(config.train.precision, device) else torch.float32
        peak = RooflineRun(multiply_roofline(device, dtype), device)
        settings = _describe_settings(config, device, dtype) | {"repeats": repeats, "load": os.getloadavg()[0]}
        compare([*runs, peak], repeats, _tell_progress(console))
        scaling: list[Scaling] = []
        for number in ranks:
            log.info("%s", f"{number} processes" if number > 1 else "1 process")
            first = scaling[0] if scaling else None
            scaling.append(measure_scaling(config, device, number, repeats, modules, first))
    if peak.reason:
        raise CaclError(f"the peak of this machine: {peak.contender.name} {peak.reason}")
    return StepBenchmark(
        rows=tuple(run.result(runs[0], peak.rate) for run in runs),
        peak_flops_per_second=peak.rate,
        peak=f"{peak.contender.name}, {str(dtype).removeprefix('torch.')}",
        scaling=tuple(scaling),
        settings=settings,
        machine=machine.describe(PACKAGES)
        | {"gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None, "cuda": torch.version.cuda},
    )


def _describe_settings(config: Config, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    known = to_dict(config)
    return {
        **{name: known[name] for name in ("seed", "clip", "model", "losses", "contrast", "optim")},
        "batch_size": config.train.batch_size,
        "precision": "bf16" if dtype == torch.bfloat16 else "fp32",
        "device": device.type,
        "threads": torch.get_num_threads(),
    }


def _tell_progress(console: Console) -> Callable[[Step], None]:
    """Moves a progress bar, and logs where a phase begins."""
    logged: set[str] = set()

    def tell(step: Step) -> None:
        if step.phase not in logged:
            logged.add(step.phase)
            log.info(step.phase)
        console.progress("comparing steps", step.done, step.total, f"{step.contender}, {step.phase}")

    return tell
