"""What a call takes of time and memory, and how fast this machine multiplies, computes with integers and copies.

What is said here of GPUs has not run on one yet.
"""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
import triton
import triton.language as tl

Call: TypeAlias = Callable[[], Any]

MEASUREMENT_SECONDS = 0.2
"""The length of a measurement, unless a single call takes longer."""
L2_FLUSH_BYTES = 2**28
"""The bytes that are written before each timed call on a GPU, in order to empty its L2 cache."""


def warm_up(call: Call, device: torch.device) -> int:
    """Repeats a call for as long as a measurement lasts.

    Returns:
        The number of calls that a measurement consists of.
    """
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < MEASUREMENT_SECONDS:
        call()
        synchronize(device)
        calls += 1
    return calls


def seconds_of(call: Call, calls: int, device: torch.device) -> float:
    """The seconds of one call: on a CPU the mean over `calls` calls, on a GPU the median.

    On a GPU each call begins with a cold L2 cache, as with `triton.testing.do_bench`.
    """
    if device.type == "cpu":
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - start) / calls
    cache_filler = torch.empty(L2_FLUSH_BYTES, dtype=torch.int8, device=device)
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(calls)]
    for start, end in marks:
        cache_filler.zero_()
        start.record()
        call()
        end.record()
    synchronize(device)
    return statistics.median(start.elapsed_time(end) for start, end in marks) / 1000


def synchronize(device: torch.device) -> None:
    """Waits until the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory_of(call: Call, device: torch.device) -> int | None:
    """The bytes at the highest point of a call above those before it; None where the system does not tell.

    On a GPU this is what torch allocates, on a CPU the resident memory of the process.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        # With glibc, free memory goes back to the system here, and does not hide what the call takes.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew (man 5 proc_pid_clear_refs).
        before = _status_bytes("VmRSS")
        call()
        return max(0, _status_bytes("VmHWM") - before)
    except (OSError, AttributeError):
        return None


def _status_bytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


# --- What the machine can do


class Roofline(NamedTuple):
    """Something that a machine does as fast as it can. Nothing is faster than the best of many measurements of it."""

    description: str
    work: float
    """Operations or bytes of one call."""
    call: Call


def multiply_roofline(device: torch.device, dtype: torch.dtype) -> Roofline:
    """Additions and multiplications, in a product of matrices that fit in the cache of a CPU or fill a GPU."""
    side = 8192 if device.type == "cuda" else 1024
    first, second, out = torch.randn(3, side, side, device=device).to(dtype).unbind()
    return Roofline(f"torch.mm of {side} x {side}", 2 * side**3, lambda: torch.mm(first, second, out=out))


def copy_roofline(device: torch.device) -> Roofline:
    """Bytes read and written, far more than fit in a cache."""
    source = torch.zeros(2**30 if device.type == "cuda" else 2**28, dtype=torch.uint8, device=device)
    target = source.clone()
    return Roofline("copy_", 2 * len(source), lambda: target.copy_(source))


def integer_roofline(device: torch.device, bits: int) -> Roofline:
    """Operations on words of `bits` bits.

    On a CPU they are done in place in the cache of one core, and count times the number of threads. On a GPU they are
    done in registers.
    """
    word = {8: torch.int8, 16: torch.int16, 32: torch.int32, 64: torch.int64}[bits]
    if device.type == "cpu":
        words = torch.zeros(2**14, dtype=word)  # These are so few that torch gives them to one thread.
        threads = torch.get_num_threads()
        return Roofline(f"{threads} times bitwise_not_ in a core's cache", threads * len(words), words.bitwise_not_)
    words = torch.zeros(2**24, dtype=word, device=device)
    launch: Any = chain_kernel[len(words) // WORDS,]  # Its type is that of the kernel.
    return Roofline("a chain of ^ and +", 2 * STEPS * len(words), lambda: launch(words, STEPS, WORDS))


STEPS, WORDS = 256, 128


@triton.jit
def chain_kernel(words, STEPS: tl.constexpr, WORDS: tl.constexpr):
    """Does STEPS times two operations, each of which needs the one before it, on WORDS words, one for each thread."""
    address = words + tl.program_id(0) * WORDS + tl.arange(0, WORDS)
    y = tl.load(address)
    x = ~y
    for _ in tl.static_range(STEPS):  # pyright: ignore[reportGeneralTypeIssues]
        x = (x ^ y) + y
    tl.store(address, x)
