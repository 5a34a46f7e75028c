"""The resources that the kernels need of each GPU they are meant for. They are compiled as launched, without a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import triton

from cacl.benchmarks.kernels.resources import CAPABILITIES, SHARED_LIMIT, Resources, compile_ahead
from cacl.kernels.common import contrast_tile, num_splits_heuristic
from cacl.kernels.contrast_triton import ELEMENTS_PER_PROGRAM, backward_kernel, finish_kernel, scan_kernel

ANCHORS, KEYS, POSITIVES = 2048, 65_536, 2
MULTIPROCESSORS = {80: 108, 90: 132, 100: 148}
HALF = torch.bfloat16

CASES = [
    *(
        (dtype, d, capability)
        for dtype in (HALF, torch.float32)
        for d in (16, 64, 128, 256, 512)
        for capability in CAPABILITIES
    ),
    *((torch.float16, d, capability) for d in (128, 512) for capability in CAPABILITIES),
    # These have incomplete slices and vectors, on the GPU where registers are scarcest.
    *((dtype, d, 80) for dtype in (HALF, torch.float32) for d in (100, 200, 300, 507)),
]


def splits_of_the_queue(d: int, dtype: torch.dtype, capability: int) -> tuple[int, int]:
    """Computes how many keys a split has, and how many splits there are."""
    tile = contrast_tile(d, dtype)
    tiles = triton.cdiv(KEYS, tile.block_k)
    splits = num_splits_heuristic(triton.cdiv(ANCHORS, tile.block_n), tiles, MULTIPROCESSORS[capability])
    keys_per_split = triton.cdiv(tiles, splits) * tile.block_k
    return keys_per_split, triton.cdiv(KEYS, keys_per_split)


def scanning(dtype: torch.dtype, d: int, capability: int) -> Resources:
    tile = contrast_tile(d, dtype)
    arguments = {
        "anchors": dtype,
        "queue": dtype,
        **dict.fromkeys(("temperature", "split_m", "split_l", "split_acc"), torch.float32),
        "n": ANCHORS,
        "k": KEYS,
        "keys_per_split": splits_of_the_queue(d, dtype, capability)[0],
        "D": d,
        "BLOCK_D": tile.block_d,
        "NUM_SLICES": triton.cdiv(d, tile.block_d),
        "BLOCK_N": tile.block_n,
        "BLOCK_K": tile.block_k,
        "PRECISION": "tf32x3",
        "WIDEN": False,
    }
    used = compile_ahead(scan_kernel, arguments, capability, num_warps=tile.num_warps, num_stages=tile.num_stages)
    print(f"scan, sm_{capability}, {dtype}, {d} dimensions: {used}")
    return used


def check(used: Resources, capability: int) -> None:
    assert used.local_accesses == 0
    assert used.shared <= SHARED_LIMIT[capability]


@pytest.mark.parametrize(("dtype", "d", "capability"), CASES, ids=str)
def test_scan(dtype: torch.dtype, d: int, capability: int) -> None:
    used = scanning(dtype, d, capability)
    check(used, capability)
    assert used.tensor_cores > 0


def of_small_kernels(d: int) -> dict[str, Any]:
    block_d = triton.next_power_of_2(d)
    return {
        **dict.fromkeys(("anchors", "positives"), HALF),
        **dict.fromkeys(
            ("temperature", "loss", "similarity", "logsumexp", "max_negative_logit", "mean"), torch.float32
        ),
        "n": ANCHORS,
        "num_positives": POSITIVES,
        "D": d,
        "BLOCK_D": block_d,
        "BLOCK_N": ELEMENTS_PER_PROGRAM // block_d,
    }


@pytest.mark.parametrize("d", [128, 512])
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_finish(capability: int, d: int) -> None:
    arguments = of_small_kernels(d) | dict.fromkeys(("split_m", "split_l", "split_acc"), torch.float32)
    arguments["splits"] = splits_of_the_queue(d, HALF, capability)[1]
    used = compile_ahead(finish_kernel, arguments, capability)
    print(f"finish, sm_{capability}, {d} dimensions: {used}")
    check(used, capability)


@pytest.mark.parametrize("needs_d_positives", [True, False])
@pytest.mark.parametrize("d", [128, 512])
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_backward(capability: int, d: int, needs_d_positives: bool) -> None:
    arguments = of_small_kernels(d) | dict.fromkeys(("d_anchors", "d_positives"), HALF)
    arguments |= dict.fromkeys(("d_loss", "d_logsumexp", "d_temperature"), torch.float32)
    used = compile_ahead(backward_kernel, arguments | {"NEEDS_D_POSITIVES": needs_d_positives}, capability)
    print(f"backward, sm_{capability}, {d} dimensions, with {needs_d_positives=}: {used}")
    check(used, capability)
