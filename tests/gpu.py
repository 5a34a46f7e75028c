"""How tests that need a GPU ask for it: `from tests.gpu import cuda_device`, under `@pytest.mark.gpu`."""

from __future__ import annotations

import os

import pytest
import torch


def cuda_device() -> torch.device:
    """The GPU. Without one the test is skipped, or fails if CACL_REQUIRE_GPU=1 promised one."""
    if not torch.cuda.is_available():
        if os.environ.get("CACL_REQUIRE_GPU") == "1":
            pytest.fail("CACL_REQUIRE_GPU=1, but torch finds no CUDA device")
        pytest.skip("torch finds no CUDA device (CACL_REQUIRE_GPU=1 makes this a failure)")
    return torch.device("cuda", torch.cuda.current_device())
