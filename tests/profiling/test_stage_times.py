"""The table of stages: from events that are made up, and from steps that torch.profiler recorded."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cacl.errors import CaclError
from cacl.profiling.recording import recorded_steps, trace_of_torch
from cacl.profiling.stage_times import StageCoverageError, StageTable, read_stage_table, stage_table
from cacl.stages import ENCODERS, PREFIX, STAGES
from cacl.training.train_state import TrainState
from tests.tiny import tiny_batch, tiny_config

CPU = torch.device("cpu")


def mark(name: str, start: float, end: float) -> dict[str, Any]:
    return {
        "cat": "user_annotation",
        "name": PREFIX + name,
        "ts": 1000 * start,
        "dur": 1000 * (end - start),
        "args": {},
    }


def launched(number: int, at: float, ms: float, kind: str = "kernel") -> Iterator[dict[str, Any]]:
    """A launch on the host, at a time in milliseconds, and the work of the GPU that it asked for, much later."""
    yield {"cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": 1000 * at, "args": {"correlation": number}}
    yield {"cat": kind, "name": "k", "ts": 1e6 + number, "dur": 1000 * ms, "args": {"correlation": number}}


def allocated(at: float, total: int, device: int = 0) -> dict[str, Any]:
    return {"name": "[memory]", "ts": 1000 * at, "args": {"Total Allocated": total, "Device Type": device}}


STEPS = [
    *(mark("step", 0, 10), mark("query", 0, 6), mark("cnn", 0, 2), mark("transformer", 2, 5), mark("backward", 6, 10)),
    *(mark("step", 20, 40), mark("query", 20, 28), mark("cnn", 21, 25), mark("backward", 28, 39)),
    *(mark("query", 12, 19), {"cat": "user_annotation", "name": "Optimizer.step", "ts": 0, "dur": 5000, "args": {}}),
    {"ph": "M", "name": "process_name", "args": {"name": "python"}},
]
"""Two steps of 10 and 20 ms, of which the second has 1 ms in no stage, and a stage between them that is in no step."""


def by_name(table: StageTable) -> dict[str, Any]:
    return {row.stage: row for row in table.rows}


def test_times_of_the_host_are_means_over_steps() -> None:
    table = stage_table(reversed(STEPS))
    assert (table.steps, table.step_ms, table.device_ms) == (2, 15, None)
    rows = by_name(table)
    assert list(rows) == ["query", "query/cnn", "query/transformer", "backward", "other"]
    assert {name: row.host_ms for name, row in rows.items()} == {
        "query": 7,
        "query/cnn": 3,
        "query/transformer": 1.5,
        "backward": 7.5,
        "other": 0.5,
    }
    assert (rows["query/cnn"].calls, rows["query/transformer"].calls) == (1, 0.5)
    assert rows["query"].share == pytest.approx(7 / 15)
    assert {row.device_ms for row in table.rows} == {row.peak_bytes for row in table.rows} == {None}
    table.check()


def test_work_of_the_device_counts_where_the_host_asked_for_it() -> None:
    """Also where another thread did, as in the backward pass, and outside of steps not at all."""
    work = [
        *launched(1, 1, 3),  # in query/cnn of the first step
        *launched(2, 5.5, 1, "gpu_memcpy"),  # in query alone
        *launched(3, 7, 4),  # in backward
        *launched(4, 39.5, 2),  # in no stage
        *launched(5, 15, 100),  # in no step
        {"cat": "kernel", "name": "k", "ts": 0, "dur": 7000, "args": {"correlation": 99}},  # asked for by nobody
    ]
    table = stage_table([*STEPS, *work])
    assert table.device_ms == 5
    device = {name: row.device_ms for name, row in by_name(table).items()}
    assert device == {"query": 2, "query/cnn": 1.5, "query/transformer": 0, "backward": 2, "other": 1}
    assert by_name(table)["backward"].share == pytest.approx(0.4)
    with pytest.raises(StageCoverageError, match=r"20.0% of the time of the device are in none of them"):
        table.check()


def test_the_peak_of_memory_begins_with_what_was_there_before() -> None:
    memory = [allocated(-1, 70), allocated(1, 50), allocated(3, 90), allocated(4, 20), allocated(8, 30)]
    peaks = {row.stage: row.peak_bytes for row in stage_table([*STEPS[:5], *memory]).rows}
    assert peaks == {"query": 90, "query/cnn": 70, "query/transformer": 90, "backward": 30, "other": None}
    of_gpu = [*STEPS[:5], *memory, allocated(7, 5, device=1)]
    assert {row.stage: row.peak_bytes for row in stage_table(of_gpu).rows}["backward"] == 5


def test_stages_that_do_not_add_up_are_an_error() -> None:
    table = stage_table([mark("step", 0, 10), mark("query", 0, 9)])
    with pytest.raises(StageCoverageError, match=r"10.0% of the time of the host are in none") as caught:
        table.check()
    assert caught.value.exit_code == 3
    stage_table([mark("step", 0, 10), mark("query", 0, 9.6)]).check()


def test_a_step_that_the_system_interrupts_does_not_count() -> None:
    marks = [mark("step", 0, 10), mark("query", 0, 9.8), mark("step", 20, 30), mark("query", 20, 29.8)]
    table = stage_table([*marks, mark("step", 50, 90), mark("query", 50, 59)])
    assert table.rest_share == pytest.approx(0.02)
    assert by_name(table)["other"].host_ms == pytest.approx((0.2 + 0.2 + 31) / 3)
    table.check()


def test_a_trace_without_a_step_is_an_error() -> None:
    with pytest.raises(CaclError, match="holds no step"):
        stage_table([mark("query", 0, 9)])


def test_recorded_steps_have_their_stages(tmp_path: Path) -> None:
    """The steps around the recorded ones leave nothing in the trace. `data` and `log` are marks of the trainer."""
    state = TrainState(tiny_config("unused"), 40, CPU)
    trace = tmp_path / "trace.json.gz"
    batch = tiny_batch(4)
    for _ in recorded_steps(iter(range(9)), 2, 5, trace_of_torch(CPU, trace)):
        assert not trace.exists()
        state.train_step(batch, sync=True)
    assert state.step == 5
    table = read_stage_table(trace)
    assert table.steps == 3
    rows = by_name(table)
    inner = [f"{name}/{encoder}" for name in ("query", "keys") for encoder in ENCODERS]
    assert set(rows) == {*STAGES, *inner, "other"} - {"data", "log"}
    assert all(row.calls == 1 for name, row in rows.items() if name != "other")
    assert rows["backward"].peak_bytes
    parts = [row.host_ms for name, row in rows.items() if "/" not in name]
    assert sum(parts) == pytest.approx(table.step_ms)

    plain = tmp_path / "trace.json"
    plain.write_bytes(gzip.decompress(trace.read_bytes()))
    assert read_stage_table(plain) == table
    assert len(json.loads(plain.read_text())["traceEvents"]) > 1000


def test_a_loop_that_ends_early_is_recorded_as_far_as_it_went(tmp_path: Path) -> None:
    trace = tmp_path / "trace.json.gz"
    seen = list(recorded_steps(iter("ab"), 1, 5, trace_of_torch(CPU, trace)))
    assert seen == ["a", "b"]
    assert read_stage_table(trace).steps == 2  # the second is the wait for a batch that does not come
