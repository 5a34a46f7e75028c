"""What the stages of recorded steps took: their calls, and their times on the host and on the device.

It is read from the trace that torch.profiler writes, in which the marks of `cacl.stages` are ranges.
"""

from __future__ import annotations

import gzip
import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from cacl.errors import CaclError
from cacl.stages import ENCODERS, PREFIX, STAGES, STEP

LARGEST_REST = 0.05
"""The largest share of a step that may lie outside of its stages."""
OTHER = "other"
"""The row of what lies in no stage."""
ROWS = (*(path for name in STAGES for path in (name, *(f"{name}/{encoder}" for encoder in ENCODERS))), OTHER)
"""All rows of a table in their order. A stage with an encoder behind it is a part of the stage."""
LAUNCHES, WORK = ("cuda_runtime", "cuda_driver"), ("kernel", "gpu_memcpy", "gpu_memset")
"""The categories of the events in which the host asks a GPU for work, and of those in which the GPU does it."""
CUDA = 1
"""What torch.profiler calls a GPU where it tells of memory."""


class StageCoverageError(CaclError):
    """The stages of a step do not add up to the step."""

    exit_code = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTimes:
    """What a stage took, per step."""

    stage: str
    """Its name; `query/cnn` is the part of `query` that is the CNN's."""
    calls: float
    host_ms: float
    """Milliseconds of the host, which on a CPU does the work."""
    device_ms: float | None
    """Milliseconds in which a GPU did what this stage had asked for, at whatever time; None without a GPU."""
    share: float
    """Its share of the step: of the device's time where there is a GPU, else of the host's."""
    peak_bytes: int | None
    """The most memory that was allocated at a time: all of it on a GPU, and on a CPU what was allocated since the
    recording began. None if it was not recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTable:
    """The stages of the steps that a trace holds."""

    steps: int
    step_ms: float
    """Milliseconds of the host from the beginning of a step to that of the next."""
    device_ms: float | None
    """Milliseconds in which a GPU worked in a step; None without a GPU."""
    rest_share: float
    """The share of a step that lies in no stage, of the host's time, as the median over the steps: one step that the
    system interrupts does not count."""
    rows: tuple[StageTimes, ...]
    """The stages that there were, in their order. Those that are no part of another one add up to the step, with
    `other`, the last, which is what lies in none of them."""

    def check(self) -> None:
        """Tells whether the stages account for the step.

        Raises:
            StageCoverageError: More than `LARGEST_REST` of the step lies in no stage.
        """
        of_device = self.rows[-1].device_ms / self.device_ms if self.rows[-1].device_ms and self.device_ms else 0.0
        for name, share in {"host": self.rest_share, "device": of_device}.items():
            if share > LARGEST_REST:
                raise StageCoverageError(
                    f"the stages do not add up to the step: {share:.1%} of the time of the {name} are in none of them, "
                    f"and {LARGEST_REST:.0%} are allowed; the trace shows what stands there"
                )


class _Range(NamedTuple):
    """A mark of a stage, or of a step, on the host, in microseconds."""

    path: str
    start: float
    end: float


class _Events(NamedTuple):
    """The events of a trace that matter here."""

    marks: list[_Range]
    launches: dict[int, float]
    """The time of each launch, in microseconds, by the number that it shares with the work that it asks for."""
    work: list[tuple[int, float]]
    """The number of the launch and the microseconds of each piece of work of a GPU."""
    memory: list[tuple[float, int]]
    """The times, in microseconds, at which memory was allocated or freed, and the bytes that were allocated then."""


def read_stage_table(trace: Path) -> StageTable:
    """Reads the stages of all steps in a trace.

    Args:
        trace: What `export_chrome_trace` of torch.profiler wrote, compressed or not.

    Raises:
        CaclError: The trace holds no step.
    """
    with gzip.open(trace, "rt") if trace.suffix == ".gz" else trace.open() as file:
        return stage_table(json.load(file)["traceEvents"])


def stage_table(events: Iterable[Mapping[str, Any]]) -> StageTable:
    """Adds up the stages of all steps among the events of a trace.

    Args:
        events: The events, as in the file that torch.profiler writes.

    Raises:
        CaclError: There is no step among them.
    """
    found = _of_interest(events)
    ranges = _paths(found.marks)
    steps = [mark for mark in ranges if mark.path == STEP]
    if not steps:
        raise CaclError("the trace holds no step; were fewer steps taken than profile.steps skips?")
    stages = [mark for mark in ranges if mark.path != STEP and _around(steps, mark.start)]
    host, calls = defaultdict[str, float](float), defaultdict[str, int](int)
    for mark in stages:
        host[mark.path] += (mark.end - mark.start) / 1000
        calls[mark.path] += 1
    step_ms = sum(step.end - step.start for step in steps) / 1000
    host[OTHER] = step_ms - sum(ms for path, ms in host.items() if path in STAGES)
    device = _device_ms(stages, steps, found)
    device_ms = sum(ms for path, ms in device.items() if "/" not in path) if found.work else None
    whole, spent = (step_ms, host) if device_ms is None else (device_ms, device)
    peaks = _peaks(stages, found.memory)
    rows = tuple(
        StageTimes(
            stage=path,
            calls=calls[path] / len(steps),
            host_ms=host[path] / len(steps),
            device_ms=None if device_ms is None else device[path] / len(steps),
            share=spent[path] / whole if whole else 0.0,
            peak_bytes=peaks.get(path),
        )
        for path in ROWS
        if path in calls or path == OTHER
    )
    return StageTable(
        steps=len(steps),
        step_ms=step_ms / len(steps),
        device_ms=None if device_ms is None else device_ms / len(steps),
        rest_share=median(_rest_shares(stages, steps)),
        rows=rows,
    )


def _of_interest(events: Iterable[Mapping[str, Any]]) -> _Events:
    marks: list[_Range] = []
    launches: dict[int, float] = {}
    work: list[tuple[int, float]] = []
    memory: dict[int, list[tuple[float, int]]] = {}
    for event in events:
        kind, name, arguments = event.get("cat"), str(event.get("name")), event.get("args", {})
        if kind == "user_annotation" and name.startswith(PREFIX):
            start = float(event["ts"])
            marks.append(_Range(name.removeprefix(PREFIX), start, start + float(event["dur"])))
        elif kind in LAUNCHES and "correlation" in arguments:
            launches[arguments["correlation"]] = float(event["ts"])
        elif kind in WORK:
            work.append((arguments.get("correlation", -1), float(event["dur"])))
        elif name == "[memory]":
            point = (float(event["ts"]), int(arguments["Total Allocated"]))
            memory.setdefault(arguments["Device Type"], []).append(point)
    return _Events(marks, launches, work, sorted(memory.get(CUDA, memory.get(0, []))))


def _paths(marks: Sequence[_Range]) -> list[_Range]:
    """Returns the marks in the order in which they start, and puts the name of a stage before that of a part of it."""
    found, around = list[_Range](), list[_Range]()
    for mark in sorted(marks, key=lambda mark: (mark.start, -mark.end)):
        while around and around[-1].end <= mark.start:
            around.pop()
        inside = around[-1].path if around and around[-1].path != STEP else ""
        around.append(mark._replace(path=f"{inside}/{mark.path}" if inside else mark.path))
        found.append(around[-1])
    return found


def _around(ranges: Sequence[_Range], time: float) -> _Range | None:
    """Returns the range that a time lies in, of ranges that follow each other."""
    position = bisect_right(ranges, time, key=lambda found: found.start) - 1
    return ranges[position] if position >= 0 and time <= ranges[position].end else None


def _rest_shares(stages: Sequence[_Range], steps: Sequence[_Range]) -> Iterator[float]:
    """Yields the share of each step that lies in no stage."""
    for step in steps:
        inside = [stage for stage in stages if stage.path in STAGES and step.start <= stage.start <= step.end]
        yield 1 - sum(stage.end - stage.start for stage in inside) / (step.end - step.start)


def _device_ms(stages: Sequence[_Range], steps: Sequence[_Range], events: _Events) -> dict[str, float]:
    """Returns the milliseconds of the device by stage, each piece of work in the stage in which the host asked for it.

    Any thread of the host may have asked: torch's backward pass runs on a GPU from a thread of its own.
    """
    outer = [stage for stage in stages if stage.path in STAGES]
    inner = [stage for stage in stages if stage.path not in STAGES]
    spent = defaultdict[str, float](float)
    for launch, microseconds in events.work:
        time = events.launches.get(launch)
        if time is None or not _around(steps, time):
            continue
        stage = _around(outer, time)
        spent[stage.path if stage else OTHER] += microseconds / 1000
        if part := _around(inner, time):
            spent[part.path] += microseconds / 1000
    return spent


def _peaks(stages: Sequence[_Range], memory: Sequence[tuple[float, int]]) -> dict[str, int]:
    """Returns the most memory that was allocated at a time in each stage."""
    peaks: dict[str, int] = {}
    times = [time for time, _ in memory]
    for stage in stages:
        first, last = bisect_right(times, stage.start), bisect_right(times, stage.end)
        if last:
            peak = max(allocated for _, allocated in memory[max(first - 1, 0) : last])
            peaks[stage.path] = max(peak, peaks.get(stage.path, 0))
    return peaks
