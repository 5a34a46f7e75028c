"""Whether two runs ended in the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cacl.checkpoints import checkpoint


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the name and the value of everything in nested dictionaries and lists."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from leaves(child, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for number, child in enumerate(value):
            yield from leaves(child, f"{name}.{number}")
    else:
        yield name, value


def assert_same_bits(one: Path, other: Path) -> None:
    """Compares the weights, the queue and the optimiser of two runs, in whose folders there is a checkpoint."""
    first, second = (checkpoint.load(run) for run in (one, other))
    assert (first.step, first.data_fingerprint) == (second.step, second.data_fingerprint)
    for part in ("model", "optimizer"):
        left, right = (dict(leaves(getattr(saved, part))) for saved in (first, second))
        assert left.keys() == right.keys()
        assert sum(isinstance(value, Tensor) for value in left.values()) > 20
        for name, value in left.items():
            if isinstance(value, Tensor):
                assert value.dtype == right[name].dtype, name
                assert torch.equal(value, right[name]), f"{part}{name}"
                assert value.isfinite().all(), name
            else:
                assert value == right[name], f"{part}{name}"
    assert {"queue.keys", "queue.pointer"} <= first.model.keys()
