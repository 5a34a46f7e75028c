"""How numba compiles functions for the CPU at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

NUMBA_OPTIONS: Any = {"nogil": True, "error_model": "numpy"}


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Lets numba compile a function when it is first called, and keep the code on disk for later processes."""
    try:
        return njit(function, cache=True, **NUMBA_OPTIONS)
    except RuntimeError:  # no folder can be written where the code could be kept, so every process compiles it
        return njit(function, **NUMBA_OPTIONS)
