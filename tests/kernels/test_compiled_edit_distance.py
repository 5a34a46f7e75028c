"""The resources that the kernels need of each GPU they are meant for. They are compiled as launched, without a GPU."""

from __future__ import annotations

import pytest
import torch

from cacl.benchmarks.kernels.resources import CAPABILITIES, SHARED_LIMIT, compile_ahead
from cacl.kernels.edit_distance_reference import WORD_BITS
from cacl.kernels.edit_distance_triton import (
    OPTIONS,
    ORDERS_PER_PROGRAM,
    PAIRS_PER_PROGRAM,
    sequences_kernel,
    to_identity_kernel,
)

BATCH = 1001
"""An odd number of rows, since the kernels are compiled for any."""


@pytest.mark.parametrize("symbols_per_load", [1, 4])
@pytest.mark.parametrize(("length", "bits"), [(4, 32), (16, 32), (32, 32), (36, 64), (64, 64)])
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_orders(capability: int, length: int, bits: int, symbols_per_load: int) -> None:
    arguments = {
        "orders": torch.uint8,
        "distances": torch.uint8,
        "batch": BATCH,
        "LENGTH": length,
        "BITS": bits,
        "SYMBOLS_PER_LOAD": symbols_per_load,
        "BLOCK_B": ORDERS_PER_PROGRAM,
    }
    used = compile_ahead(to_identity_kernel, arguments, capability, num_warps=ORDERS_PER_PROGRAM // 32, **OPTIONS)
    print(f"sm_{capability}, {length} symbols, {symbols_per_load} at once: {used}")
    assert used.local_accesses == 0
    assert used.shared == 0, "threads exchange what each should have of its own"
    assert used.registers <= 32, "fewer than 2048 threads fit on a multiprocessor"


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_sequences(capability: int, dtype: torch.dtype) -> None:
    arguments = {
        "first": dtype,
        "second": dtype,
        "first_lengths": torch.int32,
        "second_lengths": torch.int32,
        "differences": torch.int8,
        "distances": torch.int32,
        "batch": BATCH,
        "WORD_BITS": WORD_BITS,
        "BLOCK_B": PAIRS_PER_PROGRAM,
    }
    used = compile_ahead(sequences_kernel, arguments, capability, num_warps=PAIRS_PER_PROGRAM // 32, **OPTIONS)
    print(f"sm_{capability}, {dtype}: {used}")
    assert used.local_accesses == 0
    assert used.shared <= SHARED_LIMIT[capability]
    assert used.shared == 0, "threads exchange what each should have of its own"
    assert used.registers <= 168, "fewer than 12 programs fit on a multiprocessor"
