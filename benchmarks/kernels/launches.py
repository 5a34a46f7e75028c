"""The launches of our kernels for the usual sizes, as `resources.compile_ahead` takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
import triton

from cacl.kernels import augment_triton, contrast_triton, edit_distance_triton, symmetric_triton
from cacl.kernels.common import Tile, contrast_tile
from cacl.kernels.edit_distance_reference import WORD_BITS

N, K, DIM = 2048, 2**16, 128
SPLIT = 2**13
"""Keys or columns that one program goes through."""


class Launch(NamedTuple):
    """A launch of a kernel, to be compiled ahead of time."""

    kernel: Any
    setting: str
    arguments: Mapping[str, Any]
    """The arguments by name. More than the kernel takes do no harm."""
    options: Mapping[str, Any]


def _contrast_launches() -> Iterator[Launch]:
    for dtype in (torch.bfloat16, torch.float32):
        tile = contrast_tile(DIM, dtype)
        arguments = {
            **dict.fromkeys(("anchors", "queue"), dtype),
            **dict.fromkeys(("temperature", "split_m", "split_l", "split_acc"), torch.float32),
            "n": N,
            "k": K,
            "keys_per_split": SPLIT,
            **_tile_arguments(tile),
        }
        yield Launch(contrast_triton.scan_kernel, _name(dtype), arguments, _launch_options(tile))
    arguments = {
        **dict.fromkeys(("anchors", "positives", "d_anchors", "d_positives"), torch.bfloat16),
        **dict.fromkeys(("temperature", "split_m", "split_l", "split_acc"), torch.float32),
        **dict.fromkeys(("loss", "similarity", "logsumexp", "max_negative_logit", "mean"), torch.float32),
        **dict.fromkeys(("d_loss", "d_logsumexp", "d_temperature"), torch.float32),
        "n": N,
        "splits": K // SPLIT,
        "num_positives": 1,
        "D": DIM,
        "BLOCK_D": DIM,
        "BLOCK_N": contrast_triton.ELEMENTS_PER_PROGRAM // DIM,
        "NEEDS_D_POSITIVES": False,
    }
    for kernel in (contrast_triton.finish_kernel, contrast_triton.backward_kernel):
        yield Launch(kernel, "bfloat16", arguments, {})


def _symmetric_launches() -> Iterator[Launch]:
    for dtype in (torch.bfloat16, torch.float32):
        for kernel, tile in (
            (symmetric_triton.logsumexp_kernel, symmetric_triton.logsumexp_tile(DIM, dtype)),
            (symmetric_triton.gradient_kernel, symmetric_triton.gradient_tile(DIM, dtype)),
        ):
            arguments = {
                **dict.fromkeys(("rows", "columns"), dtype),
                **dict.fromkeys(("temperature", "logsumexp", "max_logit"), torch.float32),
                **dict.fromkeys(("max_weight", "row_stats", "column_stats", "gradient"), torch.float32),
                "n_rows": N,
                "n_columns": N,
                "columns_per_split": N,
                "rank_offset": 0,
                **_tile_arguments(tile),
            }
            yield Launch(kernel, _name(dtype), arguments, _launch_options(tile))


def _tile_arguments(tile: Tile) -> dict[str, Any]:
    return {
        "D": DIM,
        "BLOCK_D": tile.block_d,
        "NUM_SLICES": triton.cdiv(DIM, tile.block_d),
        "BLOCK_N": tile.block_n,
        "BLOCK_K": tile.block_k,
        "PRECISION": "tf32x3",
        "WIDEN": False,
    }


def _launch_options(tile: Tile) -> dict[str, int]:
    return {"num_warps": tile.num_warps, "num_stages": tile.num_stages}


def _edit_distance_launches() -> Iterator[Launch]:
    for length, bits in ((16, 32), (64, 64)):
        arguments = {
            **dict.fromkeys(("orders", "distances"), torch.uint8),
            "batch": 1001,  # The kernel is compiled for any number.
            "LENGTH": length,
            "BITS": bits,
            "SYMBOLS_PER_LOAD": 4,
            "BLOCK_B": edit_distance_triton.ORDERS_PER_PROGRAM,
        }
        options = {"num_warps": edit_distance_triton.ORDERS_PER_PROGRAM // 32, **edit_distance_triton.OPTIONS}
        yield Launch(edit_distance_triton.to_identity_kernel, f"{length} frames", arguments, options)
    arguments = {
        **dict.fromkeys(("first", "second", "first_lengths", "second_lengths", "distances"), torch.int32),
        "differences": torch.int8,
        "batch": 1001,
        "WORD_BITS": WORD_BITS,
        "BLOCK_B": edit_distance_triton.PAIRS_PER_PROGRAM,
    }
    options = {"num_warps": edit_distance_triton.PAIRS_PER_PROGRAM // 32, **edit_distance_triton.OPTIONS}
    yield Launch(edit_distance_triton.sequences_kernel, "int32", arguments, options)


def _augment_launches() -> Iterator[Launch]:
    arguments = {
        "out": torch.float16,
        "crops": torch.int32,
        "colors": torch.float32,
        "clip_table": torch.int64,
        "clips": 64,
        "length": 16,
        "views": 2,
        "size": 112,
        "BLOCK_T": augment_triton.MAX_FRAMES_PER_PROGRAM,
        "BLOCK_P": augment_triton.PIXELS_PER_PROGRAM,
    }
    yield Launch(augment_triton.augment_kernel, "16 frames", arguments, augment_triton.OPTIONS)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


LAUNCHES: dict[str, Callable[[], Iterator[Launch]]] = {
    "contrast": _contrast_launches,
    "symmetric": _symmetric_launches,
    "edit-distance": _edit_distance_launches,
    "augment": _augment_launches,
}
"""The launches of each operation."""
