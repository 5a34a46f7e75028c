"""What the process of a command sets up before anything heavy is imported."""

from __future__ import annotations

import ctypes
import io
import os
import platform
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""The names of parameters in glibc's malloc.h."""


def accept_any_file_name() -> None:
    """Lets stdout and stderr show names of files that are no valid UTF-8, with backslashes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def let_waiting_threads_sleep() -> None:
    """Lets threads of torch that wait for each other sleep, in this process and in those that it starts.

    OpenMP reads the variable as torch is imported, so this must come first. By default its threads spin while they wait
    (GNU's, in torch's wheels, 300,000 times). Where another process uses one of the cores, even a niced one, they spin
    away the time that the awaited thread needs, and training becomes many times slower. Threads that sleep take some
    microseconds to wake up: that costs a tenth of the speed beside free cores, and nothing beside a GPU, for which the
    CPU only starts kernels. Decoding has threads of its own. docs/training.md has the figures of
    benchmarks/scripts/busy_core.py. A value that is already set is left alone, and GOMP_SPINCOUNT counts for more.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def keep_freed_memory() -> None:
    """Lets this process keep the memory that it frees, and use it again, where its C library is glibc.

    By default glibc returns large blocks to the system at once, and every block that is asked for is new: the system
    fills its pages with zeros, one after the other. On a CPU a training step asks for the same large feature maps each
    time, and this takes a sixth of it. docs/training.md has the figures. Who sets malloc up by the environment is left
    alone.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)  # no block is mapped on its own, and unmapped when it is freed
    libc.mallopt(_M_TRIM_THRESHOLD, -1)  # the end of the heap is not given back either
