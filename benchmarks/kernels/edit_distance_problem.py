"""Edit distances of frame orders to 0, 1, ..., L - 1: inputs, truth, contenders, roofline."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from cacl.benchmarks.harness.timing import integer_roofline
from cacl.benchmarks.kernels.run import BASELINE, COMPILED, OFFICIAL, KernelContender, Problem, RooflineWork, Task
from cacl.benchmarks.rivals import kernels as rivals
from cacl.benchmarks.rivals.packages import unavailable_reason
from cacl.kernels.edit_distance import edit_distance_to_identity

OPERATIONS_PER_SYMBOL = 17
"""Operations of one step of Myers' algorithm, for one symbol: 9 from a column to the changes along its rows, 3 to shift
these, 4 to the next column, 1 for the symbol's bit."""
SAMPLE = 1000
"""Orders that are checked where there is no rapidfuzz."""


def edit_distance_problem(device: torch.device, batch: int, length: int) -> Problem:
    """The problem of `batch` random orders of `length` frames."""
    return Problem(
        "edit-distance", f"{batch:,} orders of {length} frames", partial(_edit_distance, device, batch, length)
    )


def _edit_distance(device: torch.device, batch: int, length: int) -> Task:
    order = torch.rand(batch, length, generator=torch.Generator().manual_seed(0)).argsort(1).to(torch.uint8).to(device)
    missing = unavailable_reason("rapidfuzz", "rapidfuzz")
    checked = slice(SAMPLE if missing else None)
    truth = wagner_fischer(order[checked]) if missing else rivals.rapidfuzz_batch(order, 1)
    narrowest = 32 if device.type == "cuda" else 8
    bits = max(narrowest, 2 ** (length - 1).bit_length())
    return Task(
        contenders=_contenders(order, missing),
        errors=lambda found: {"differing": float((found[checked] != truth).sum())},
        error_unit=f"distances among {len(truth):,} that differ from {'the recurrence' if missing else 'rapidfuzz'}",
        least_work=RooflineWork(
            OPERATIONS_PER_SYMBOL * order.numel(),
            f"{OPERATIONS_PER_SYMBOL} operations on {bits} bits a symbol",
            integer_roofline(device, bits),
        ),
    )


def _contenders(order: Tensor, rapidfuzz_missing: str) -> list[KernelContender]:
    limits = {"differing": 0.0}
    return [
        KernelContender(
            name=BASELINE,
            description="edit_distance_to_identity: Myers' bit vectors, on a CPU compiled by numba for one core",
            prepare=lambda: partial(edit_distance_to_identity, order),
            limits=limits,
        ),
        KernelContender(
            name=OFFICIAL,
            description="each row to a string, these one by one to rapidfuzz.distance.Levenshtein",
            prepare=lambda: partial(rivals.official_edit_distance, order),
            limits=limits,
            unavailable_reason=rapidfuzz_missing,
        ),
        *(
            KernelContender(
                name=f"rapidfuzz, {name}",
                description=f"rapidfuzz.process.cdist with {name}, from and to tensors",
                prepare=lambda workers=workers: partial(rivals.rapidfuzz_batch, order, workers),
                limits=limits,
                unavailable_reason=rapidfuzz_missing,
            )
            for name, workers in (("1 worker", 1), ("all cores", -1))
        ),
        KernelContender(
            name=COMPILED,
            description="of the readable form of it in torch",
            prepare=lambda: partial(rivals.compiled_reference(), order),
            limits=limits,
        ),
    ]


def wagner_fischer(order: Tensor) -> Tensor:
    """The distances by the recurrence of Wagner and Fischer (1974), cell by cell.

    Args:
        order: uint8 [B, L].

    Returns:
        uint8 [B].
    """
    rows = order.cpu().numpy()
    length = rows.shape[1]
    above = np.broadcast_to(np.arange(length + 1), (len(rows), length + 1))
    for i in range(length):
        row = [np.full(len(rows), i + 1)]
        for j in range(length):
            replaced = above[:, j] + (rows[:, i] != j)
            row.append(np.minimum(np.minimum(row[j], above[:, j + 1]) + 1, replaced))
        above = np.stack(row, axis=1)
    return torch.from_numpy(above[:, -1].astype(np.uint8)).to(order.device)
