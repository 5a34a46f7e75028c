"""The resources that the kernel needs of each GPU it is meant for. It is compiled as launched, without a GPU."""

from __future__ import annotations

import pytest
import torch

from cacl.benchmarks.kernels.resources import CAPABILITIES, SHARED_LIMIT, compile_ahead
from cacl.kernels.augment_triton import MAX_FRAMES_PER_PROGRAM, OPTIONS, PIXELS_PER_PROGRAM, augment_kernel


@pytest.mark.parametrize("frames", [1, MAX_FRAMES_PER_PROGRAM])
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_resources(capability: int, frames: int) -> None:
    arguments = {
        "out": torch.float16,
        "crops": torch.int32,
        "colors": torch.float32,
        "clip_table": torch.int64,
        "clips": 64,
        "length": 16,
        "views": 2,
        "size": 112,
        "BLOCK_T": frames,
        "BLOCK_P": PIXELS_PER_PROGRAM,
    }
    used = compile_ahead(augment_kernel, arguments, capability, **OPTIONS)
    print(f"sm_{capability}, {frames} frames at once: {used}")
    assert used.local_accesses == 0
    assert used.shared <= SHARED_LIMIT[capability]
    assert used.shared == 0, "threads exchange pixels, in every round of the loop"
    assert used.registers <= 64, "fewer than 1024 threads fit on a multiprocessor"
