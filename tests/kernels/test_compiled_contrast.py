"""What the kernels take of each GPU they are meant for, compiled without one, as they are launched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import triton

from cacl.benchmarks.kernels.resources import CAPABILITIES, SHARED_LIMIT, Resources, compile_ahead
from cacl.kernels.contrast import (
    FINISHING_ELEMENTS,
    backward_kernel,
    finish_kernel,
    scan_kernel,
    splits_of,
    tiling,
)

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
    # Rests of slices and of vectors, on the GPU where registers are scarcest.
    *((dtype, d, 80) for dtype in (HALF, torch.float32) for d in (100, 200, 300, 507)),
]


def parts_of_the_queue(d: int, dtype: torch.dtype, capability: int) -> tuple[int, int]:
    """How many keys one has, and how many there are."""
    tile = tiling(d, dtype)
    tiles = triton.cdiv(KEYS, tile.keys)
    splits = splits_of(triton.cdiv(ANCHORS, tile.rows), tiles, MULTIPROCESSORS[capability])
    keys_of_split = triton.cdiv(tiles, splits) * tile.keys
    return keys_of_split, triton.cdiv(KEYS, keys_of_split)


def scanning(dtype: torch.dtype, d: int, capability: int) -> Resources:
    tile = tiling(d, dtype)
    arguments = {
        "anchors": dtype,
        "queue": dtype,
        **dict.fromkeys(("temperature", "max_negative_logit", "total", "mean"), torch.float32),
        "n": ANCHORS,
        "k": KEYS,
        "keys_of_split": parts_of_the_queue(d, dtype, capability)[0],
        "D": d,
        "SLICE": tile.slice,
        "SLICES": triton.cdiv(d, tile.slice),
        "ROWS": tile.rows,
        "KEYS": tile.keys,
        "PRECISION": "tf32x3",
        "WIDEN": False,
    }
    used = compile_ahead(scan_kernel, arguments, capability, num_warps=tile.warps, num_stages=tile.stages)
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
    width = triton.next_power_of_2(d)
    return {
        **dict.fromkeys(("anchors", "positives"), HALF),
        **dict.fromkeys(("temperature", "loss", "similarity", "logsumexp", "max_negative_logit", "mean"), torch.float32),
        "n": ANCHORS,
        "count": POSITIVES,
        "D": d,
        "WIDTH": width,
        "ROWS": FINISHING_ELEMENTS // width,
    }


@pytest.mark.parametrize("d", [128, 512])
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_finish(capability: int, d: int) -> None:
    arguments = of_small_kernels(d) | dict.fromkeys(("part_highest", "part_total", "part_mean"), torch.float32)
    arguments["splits"] = parts_of_the_queue(d, HALF, capability)[1]
    used = compile_ahead(finish_kernel, arguments, capability)
    print(f"finish, sm_{capability}, {d} dimensions: {used}")
    check(used, capability)


@pytest.mark.parametrize("positives_too", [True, False])
@pytest.mark.parametrize("d", [128, 512])
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_backward(capability: int, d: int, positives_too: bool) -> None:
    arguments = of_small_kernels(d) | dict.fromkeys(("d_anchors", "d_positives"), HALF)
    arguments |= dict.fromkeys(("d_loss", "d_logsumexp", "d_temperature"), torch.float32)
    used = compile_ahead(backward_kernel, arguments | {"POSITIVES_TOO": positives_too}, capability)
    print(f"backward, sm_{capability}, {d} dimensions, with {positives_too=}: {used}")
    check(used, capability)
