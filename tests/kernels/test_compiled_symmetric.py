"""The resources that the kernels need of each GPU they are meant for. They are compiled as launched, without a GPU.

Two processes compile in advance of the tests.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import product
from typing import NamedTuple

import pytest
import torch

from cacl.benchmarks.kernels.resources import CAPABILITIES, SHARED_LIMIT, Resources, compile_ahead
from cacl.kernels.symmetric_triton import (
    common_arguments,
    gradient_kernel,
    gradient_tile,
    logsumexp_kernel,
    logsumexp_tile,
)

ALIGNED, ODD = (1024, 2048, 0), (1001, 2003, 501)
"""Rows, columns and rank offset. Triton compiles multiples of 16 apart from other numbers. float16, whose code is that
of bfloat16, stands for the latter."""


class Case(NamedTuple):
    kernel: str
    dtype: torch.dtype
    dim: int
    capability: int


CASES = [
    Case(*case)
    for case in product(
        ("logsumexp", "gradient"),
        (torch.float32, torch.float16, torch.bfloat16),
        (64, 128, 200, 256, 300, 512),
        CAPABILITIES,
    )
]


def resources(case: Case) -> Resources:
    kernel, tile = {
        "logsumexp": (logsumexp_kernel, logsumexp_tile),
        "gradient": (gradient_kernel, gradient_tile),
    }[case.kernel]
    *counts, rank_offset = ODD if case.dtype == torch.float16 else ALIGNED
    rows, columns = (torch.empty(count, case.dim, dtype=case.dtype) for count in counts)
    _, common = common_arguments(rows, columns, tile(case.dim, case.dtype))
    options = {name: common.pop(name) for name in ("num_warps", "num_stages", "enable_fp_fusion")}
    arguments = {
        **dict.fromkeys(("rows", "columns"), case.dtype),
        **dict.fromkeys(("temperature", "logsumexp", "max_logit", "max_weight"), torch.float32),
        **dict.fromkeys(("row_stats", "column_stats", "gradient"), torch.float32),
        "rank_offset": rank_offset,
        **common,
    }
    return compile_ahead(kernel, arguments, case.capability, **options)


@pytest.fixture(scope="module")
def compiled() -> Iterator[Mapping[Case, Future[Resources]]]:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        yield {case: pool.submit(resources, case) for case in CASES}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_resources(compiled: Mapping[Case, Future[Resources]], case: Case) -> None:
    used = compiled[case].result()
    print(f"{case.kernel}, sm_{case.capability}, {case.dtype}, {case.dim} dimensions: {used}")
    assert used.local_accesses == 0
    assert used.shared <= SHARED_LIMIT[case.capability]
    assert used.tensor_cores > 0
