"""These tests need a place where Triton runs: a GPU, or a CPU with TRITON_INTERPRET=1 (`make test` does both)."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from cacl.kernels.dispatch import INTERPRETED
from tests.gpu import cuda_device

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS wants in torch's deterministic mode

if not (INTERPRETED or torch.cuda.is_available() or os.environ.get("CACL_REQUIRE_GPU") == "1"):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cpu") if INTERPRETED else cuda_device()


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Memory that nobody wrote holds NaN, or the largest integer: torch fills it so in its deterministic mode."""
    assert torch.utils.deterministic.fill_uninitialized_memory  # pyright: ignore[reportAttributeAccessIssue]
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
