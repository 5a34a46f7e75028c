"""What the kernels take of each GPU they are meant for, compiled without one, as they are launched.

Two processes compile, in advance of the tests.
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
from cacl.kernels import symmetric
from cacl.kernels.symmetric import gradient_kernel, gradient_tiling, logsumexp_kernel, logsumexp_tiling

ALIGNED, ODD = (1024, 2048, 0), (1001, 2003, 501)
"""Rows, columns and place: Triton compiles multiples of 16 apart from other numbers. float16, whose code is that of
bfloat16, stands for the latter."""


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
    kernel, tiling = {
        "logsumexp": (logsumexp_kernel, logsumexp_tiling),
        "gradient": (gradient_kernel, gradient_tiling),
    }[case.kernel]
    *counts, rank_offset = ODD if case.dtype == torch.float16 else ALIGNED
    rows, columns = (torch.empty(count, case.dim, dtype=case.dtype) for count in counts)
    launch = symmetric._Launch(rows, columns, tiling(case.dim, case.dtype))
    options = dict(launch.options)
    own = {name: options.pop(name) for name in ("num_warps", "num_stages", "enable_fp_fusion")}
    arguments = {
        **dict.fromkeys(("rows", "columns"), case.dtype),
        **dict.fromkeys(("temperature", "logsumexp", "max_negative_logit", "largest"), torch.float32),
        **dict.fromkeys(("of_rows", "of_columns", "gradient"), torch.float32),
        **dict(zip(("n", "m", "columns_of_split"), launch.sizes, strict=True)),
        "rank_offset": rank_offset,
        **options,
    }
    return compile_ahead(kernel, arguments, case.capability, **own)


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
