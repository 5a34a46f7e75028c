"""The stages of a training step, marked where their work is done: every profiler shows them by the same names.

torch.profiler sees the marks on any device. Under `torch.autograd.profiler.emit_nvtx` they are NVTX ranges, which
Nsight shows. While nobody profiles, a mark takes a few microseconds. torch.compile passes over those that it meets: a
compiled encoder shows `query` as a whole.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.profiler import record_function

STEP = "step"
"""The whole step, around all of its stages. Only a profiler marks it."""
STAGES = ("data", "copy", "query", "keys", "loss", "backward", "optimizer", "momentum", "queue", "log")
"""The stages of a step in their order: they follow each other, and none is in another.

`data` is the wait for the loader, and for those of other processes. `copy` is the way to the device. `query` and `keys`
are the encoders and their momentum copies, `momentum` is how the copies follow, and `queue` how new keys enter it.
`log` is everything that a step leaves for people, which may wait for the device.
"""
ENCODERS = ("cnn", "transformer")
"""The two encoders, each with its heads: what `query` and `keys` consist of."""
PREFIX = "cacl/"
"""What the names of marks begin with in a trace."""


def stage(name: str) -> AbstractContextManager[object]:
    """Marks a stage of a step.

    Args:
        name: Its name, one of those above.

    Returns:
        A context around the work of the stage.
    """
    # The compiler would pass over a mark in any case, with a warning.
    return nullcontext() if torch.compiler.is_compiling() else record_function(PREFIX + name)
