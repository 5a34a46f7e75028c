"""Records some steps of a training: which ones, and by which profiler."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch
from torch.autograd.profiler import emit_nvtx
from torch.profiler import ProfilerActivity, profile

from cacl.errors import CaclError
from cacl.stages import STEP, stage

T = TypeVar("T")

MEMORY_EVENTS = 100_000
"""The number of allocations that a memory history goes back."""


def recorded_steps(
    batches: Iterator[T], first: int, last: int, recording: AbstractContextManager[object]
) -> Iterator[T]:
    """Passes batches on, and records the steps that a loop takes with some of them.

    A step goes from the wait for its batch to the wait for the next one.

    Args:
        batches: The batches of the loop.
        first: The number of steps before the first one that is recorded.
        last: The number of steps up to the last one that is recorded, which is the last of all.
        recording: What records while it is entered.

    Yields:
        The first `last` batches.
    """
    yield from islice(batches, first)
    with recording:
        for _ in range(first, last):
            with stage(STEP):
                batch = next(batches, None)
                if batch is None:
                    return
                yield batch


@contextmanager
def trace_of_torch(device: torch.device, file: Path, *, memory: bool = True) -> Iterator[None]:
    """Records what torch does in the block, with torch.profiler.

    Args:
        device: The device of the training.
        file: The trace that is written, `.json.gz` or `.json`, which chrome://tracing and ui.perfetto.dev show.
        memory: Whether to record what is allocated.

    Yields:
        Nothing, once the profiler has begun.
    """
    # Its library writes of each start and stop to stderr, and where there is no GPU of an error that is none.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities, profile_memory=memory) as recording:
        yield
    recording.export_chrome_trace(str(file))


@contextmanager
def cuda_capture_range() -> Iterator[None]:
    """Lets Nsight record the block: NVTX ranges, between cudaProfilerStart and cudaProfilerStop.

    torch.profiler has to stay out of it, since only one program at a time can listen to CUDA.

    Yields:
        Nothing, once the recording has begun.
    """
    with emit_nvtx():
        torch.cuda.profiler.start()
        try:
            yield
            torch.cuda.synchronize()
        finally:
            torch.cuda.profiler.stop()


@contextmanager
def memory_history(device: torch.device, file: Path) -> Iterator[None]:
    """Keeps the history of a GPU's memory during the block, and writes it at the end, also if memory runs out.

    Args:
        device: The device of the training. Only CUDA has a history.
        file: The file for pytorch.org/memory_viz.

    Yields:
        Nothing, once the history has begun.

    Raises:
        CaclError: Memory ran out.
    """
    if device.type != "cuda":
        yield
        return
    torch.cuda.memory._record_memory_history(max_entries=MEMORY_EVENTS)
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).partition(". ")[0]
        raise CaclError(f"{reason}; {file} shows on pytorch.org/memory_viz what held the memory") from None
    finally:
        torch.cuda.memory._dump_snapshot(str(file))
        torch.cuda.memory._record_memory_history(enabled=None)
