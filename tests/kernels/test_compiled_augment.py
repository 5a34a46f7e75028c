"""What the kernel takes of each GPU it is meant for, compiled without one, as it is launched."""

from __future__ import annotations

import pytest
import torch

from cacl.benchmarks.kernels.resources import CAPABILITIES, SHARED_LIMIT, compile_ahead
from cacl.kernels.augment import MOST_FRAMES, OPTIONS, PIXELS, augment_kernel


@pytest.mark.parametrize("frames", [1, MOST_FRAMES])
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_resources(capability: int, frames: int) -> None:
    arguments = {
        "out": torch.float16,
        "crops": torch.int32,
        "colors": torch.float32,
        "places": torch.int64,
        "clips": 64,
        "length": 16,
        "views": 2,
        "size": 112,
        "FRAMES": frames,
        "PIXELS": PIXELS,
    }
    used = compile_ahead(augment_kernel, arguments, capability, **OPTIONS)
    print(f"sm_{capability}, {frames} frames at once: {used}")
    assert used.local_accesses == 0
    assert used.shared <= SHARED_LIMIT[capability]
    assert used.shared == 0, "threads exchange pixels, in every round of the loop"
    assert used.registers <= 64, "fewer than 1024 threads fit on a multiprocessor"
