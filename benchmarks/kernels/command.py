"""Our kernels beside the ways in which other people compute the same, in turn (`cacl bench-kernels`).

What is said here of GPUs has not run on one yet.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cacl.benchmarks.harness import machine
from cacl.benchmarks.harness.stats import Spread, machine_line, number, ratios, show_table, table
from cacl.benchmarks.harness.trial import COMPILED, OURS, Block, Figures, Problem, Row, Task, solved
from cacl.benchmarks.kernels.launches import LAUNCHES
from cacl.benchmarks.kernels.problems import problems
from cacl.benchmarks.kernels.resources import CAPABILITIES, compile_ahead
from cacl.errors import CaclError, UsageError
from cacl.kernels.dispatch import INTERPRETED
from cacl.reporting import charts
from cacl.reporting.console import Console

OPERATIONS = tuple(LAUNCHES)
PACKAGES = ("cacl", "torch", "triton", "numpy", "rapidfuzz", "torchvision", "nvidia-dali-cuda130")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Names no folder and no machine."""

    blocks: tuple[Block, ...]
    resources: tuple[dict[str, Any], ...]
    """What each kernel takes of each GPU that it was compiled for; nothing if none could be compiled, or in time."""
    left_out: tuple[str, ...]
    """Problems for which there was no time."""
    settings: dict[str, Any]
    machine: dict[str, Any]

    def check(self) -> None:
        """Raises CaclError if a way of ours failed or was refused."""
        for block in self.blocks:
            for row in block.rows:
                if row.way == OURS and row.reason:
                    raise CaclError(f"{block.operation}, {block.setting}: {OURS} {row.reason}")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def device_of(name: str) -> torch.device:
    """auto, cpu or cuda. Raises UsageError for others, and for CUDA where there is none."""
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
    report: Console,
    compile: bool = True,
    seconds: float = math.inf,
    so_far: Callable[[Result], None] = lambda _: None,
    of_device: Callable[[torch.device], Iterable[Problem]] = problems,
) -> Result:
    """Times these operations, or all if none is named. of_device: all problems, from which those of them are taken.

    compile: with ways through torch.compile, which takes longer than the measurements. seconds: nothing is begun after
    so many. so_far: called with what there is after every problem.

    Raises UsageError for unknown operations and devices, and for no repeats.
    """
    if unknown := [name for name in operations if name not in OPERATIONS]:
        raise UsageError(f"{unknown[0]}: no operation; there are {', '.join(OPERATIONS)}")
    if repeats < 1:
        raise UsageError(f"--repeats {repeats}: give at least 1")
    place, wanted, end = device_of(device), operations or OPERATIONS, time.monotonic() + seconds
    result = Result(
        blocks=(),
        resources=(),
        left_out=(),
        settings={
            "device": place.type,
            "threads": torch.get_num_threads(),
            "repeats": repeats,
            "load": os.getloadavg()[0],
        },
        machine=machine.describe(PACKAGES)
        | {"gpu": torch.cuda.get_device_name(place) if place.type == "cuda" else None, "cuda": torch.version.cuda},
    )
    for problem in of_device(place):
        if problem.operation not in wanted:
            continue
        name = f"{problem.operation}: {problem.setting}"
        if time.monotonic() > end:
            result = replace(result, left_out=(*result.left_out, name))
            continue
        report.say(name)
        block = solved(problem if compile else _uncompiled(problem), place, repeats, report)
        result = replace(result, blocks=(*result.blocks, block))
        so_far(result)
    if not INTERPRETED and time.monotonic() <= end:
        result = replace(result, resources=_resources(wanted, report))
    return result


def _uncompiled(problem: Problem) -> Problem:
    def make() -> Task:
        task = problem.make()
        return task._replace(ways=[way for way in task.ways if way.name != COMPILED])

    return problem._replace(make=make)


def _resources(operations: Sequence[str], report: Console) -> tuple[dict[str, Any], ...]:
    report.say("kernels, compiled ahead of time")
    wanted = [
        (operation, launch) for operation in OPERATIONS if operation in operations for launch in LAUNCHES[operation]()
    ]
    rows = []
    for done, (operation, launch) in enumerate(wanted):
        name = launch.kernel.__name__
        report.progress("compiling", done, len(wanted), name)
        of_gpu: dict[str, Any] = {
            f"sm_{capability}": compile_ahead(launch.kernel, launch.arguments, capability, **launch.options)._asdict()
            for capability in CAPABILITIES
        }
        rows.append({"operation": operation, "kernel": name, "setting": launch.setting, **of_gpu})
    return tuple(rows)


# --- For people


COLUMNS: dict[str, Callable[[Figures], str]] = {
    "ms": lambda figures: _ms(figures.seconds.median),
    "min..max": lambda figures: f"{_ms(figures.seconds.min)}..{_ms(figures.seconds.max)}",
    "time /\nours": lambda figures: number(figures.ratio),
    "floor /\ntime": lambda figures: f"{100 * figures.floor_share:.2g} %",
    "MiB above\ninputs": lambda figures: number(figures.memory_bytes and figures.memory_bytes / 2**20),
}


def show(result: Result) -> None:
    """The figures, on stdout."""
    for block in result.blocks:
        _show_block(block)
    for operation in dict.fromkeys(block.operation for block in result.blocks):
        hows = {row.way: row.how for block in result.blocks for row in block.rows if block.operation == operation}
        for way, how in hows.items():
            print(f"{operation}, {way}: {how}")
    for block in result.blocks:
        for row in block.rows:
            if row.reason:
                print(f"{block.operation}, {block.setting}, {row.way}: {row.reason}")
    for name in result.left_out:
        print(f"no time for {name}")
    _show_resources(result)
    for line in (*_setting(result), _machine(result)):
        print(line)


def _show_block(block: Block) -> None:
    print(f"{block.operation}: {block.setting}")
    print(f"floor {_ms(block.floor_seconds)} ms: {block.floor}")
    print(f"error: {block.error_unit}")
    names = list(next((row.errors for row in block.rows if row.errors), {}))
    shown = table()
    shown.add_column("way", no_wrap=True, min_width=24)
    for name in (*COLUMNS, f"error (allowed)\n{', '.join(names)}"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in block.rows:
        cells = [cell(row.figures) for cell in COLUMNS.values()] if row.figures else ["-", *[""] * (len(COLUMNS) - 1)]
        shown.add_row(row.way, *cells, ", ".join(_error(row, name) for name in names))
    show_table(shown)


def _error(row: Row, name: str) -> str:
    if row.errors is None:
        return ""
    return f"{row.errors[name]:.2g}" + (f" ({row.limits[name]:.2g})" if name in row.limits else "")


def _show_resources(result: Result) -> None:
    if not result.resources:
        why = "TRITON_INTERPRET=1 is set: our kernels ran in Triton's interpreter" if INTERPRETED else "no time left"
        print(f"{why}, and none was compiled ahead of time")
        return
    shown = table()
    shown.add_column("kernel", no_wrap=True, min_width=24)
    shown.add_column("for", no_wrap=True)
    for capability in CAPABILITIES:
        shown.add_column(f"sm_{capability}: registers,\nKiB shared, local accesses", justify="right", no_wrap=True)
    for row in result.resources:
        used = [row[f"sm_{capability}"] for capability in CAPABILITIES]
        cells = [f"{x['registers']}, {number(round(x['shared'] / 1024, 1))}, {x['local_accesses']}" for x in used]
        shown.add_row(row["kernel"], row["setting"], *cells)
    show_table(shown)


def save(result: Result, folder: Path) -> None:
    """Writes bench_kernels.json and, for people, bench_kernels.png."""
    (folder / "bench_kernels.json").write_text(json.dumps(result.to_json(), indent=2) + "\n")
    charts.draw_ratios(
        folder / "bench_kernels.png",
        title="Time of a call, relative to cacl",
        subtitle=["to the right of 1: slower than cacl, on a logarithmic axis", *_setting(result)],
        sections={f"{block.operation}: {block.setting}": _bars(block) for block in result.blocks},
        footnotes=[_machine(result)],
    )


def _bars(block: Block) -> list[charts.Bar]:
    bars, ours = [], block.rows[0].figures
    for row in block.rows:
        series = int(row.way == OURS)
        if row.figures and ours:
            spread = Spread.of(ratios(row.figures.each_seconds, ours.each_seconds))
            note = f"{number(spread.median)} ({_ms(row.figures.seconds.median)} ms)"
            bars.append(charts.Bar(row.way, series, spread.median, spread.min, spread.max, note))
        elif not row.reason.startswith("skipped"):
            bars.append(charts.Bar(row.way, series, note=row.reason or "nothing to compare it with"))
    return bars


def _setting(result: Result) -> list[str]:
    settings = result.settings
    place = "on the GPU, from a cold L2 cache" if settings["device"] == "cuda" else f"{settings['threads']} threads"
    return [
        f"median of {settings['repeats']} repeats in turn, {place}; the range is from the fastest to the slowest; "
        f"load of the machine before: {settings['load']:.1f}"
    ]


def _machine(result: Result) -> str:
    gpu = f"{result.machine['gpu']}, CUDA {result.machine['cuda']}; " if result.machine["gpu"] else ""
    return gpu + machine_line(result.machine, PACKAGES[1:])


def _ms(seconds: float) -> str:
    return number(1000 * seconds)
