"""The launches of our kernels for the usual sizes, as `resources.compile_ahead` takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
import triton

from cacl.kernels import augment, contrast, edit_distance, symmetric

N, K, DIM = 2048, 2**16, 128
SPLIT = 2**13
"""Keys or columns of one program."""


class Launch(NamedTuple):
    kernel: Any
    setting: str
    arguments: Mapping[str, Any]
    """By name; more than the kernel takes do no harm."""
    options: Mapping[str, Any]


def _of_contrast() -> Iterator[Launch]:
    for dtype in (torch.bfloat16, torch.float32):
        tile = contrast.tiling(DIM, dtype)
        arguments = {
            **dict.fromkeys(("anchors", "queue"), dtype),
            **dict.fromkeys(("temperature", "max_negative_logit", "total", "mean"), torch.float32),
            "n": N,
            "k": K,
            "keys_of_split": SPLIT,
            "KEYS": tile.keys,
            **_of_tiles(tile),
        }
        yield Launch(contrast.scan_kernel, _name(dtype), arguments, _options(tile))
    arguments = {
        **dict.fromkeys(("anchors", "positives", "d_anchors", "d_positives"), torch.bfloat16),
        **dict.fromkeys(("temperature", "part_highest", "part_total", "part_mean"), torch.float32),
        **dict.fromkeys(("loss", "similarity", "logsumexp", "max_negative_logit", "mean"), torch.float32),
        **dict.fromkeys(("d_loss", "d_logsumexp", "d_temperature"), torch.float32),
        "n": N,
        "splits": K // SPLIT,
        "count": 1,
        "D": DIM,
        "WIDTH": DIM,
        "ROWS": contrast.FINISHING_ELEMENTS // DIM,
        "POSITIVES_TOO": False,
    }
    for kernel in (contrast.finish_kernel, contrast.backward_kernel):
        yield Launch(kernel, "bfloat16", arguments, {})


def _of_symmetric() -> Iterator[Launch]:
    for dtype in (torch.bfloat16, torch.float32):
        for kernel, tile in (
            (symmetric.logsumexp_kernel, symmetric.logsumexp_tiling(DIM, dtype)),
            (symmetric.gradient_kernel, symmetric.gradient_tiling(DIM, dtype)),
        ):
            arguments = {
                **dict.fromkeys(("rows", "columns"), dtype),
                **dict.fromkeys(("temperature", "logsumexp", "max_negative_logit"), torch.float32),
                **dict.fromkeys(("largest", "of_rows", "of_columns", "gradient"), torch.float32),
                "n": N,
                "m": N,
                "columns_of_split": N,
                "rank_offset": 0,
                "COLUMNS": tile.keys,
                **_of_tiles(tile),
            }
            yield Launch(kernel, _name(dtype), arguments, _options(tile))


def _of_tiles(tile: contrast.Tiling) -> dict[str, Any]:
    return {
        "D": DIM,
        "SLICE": tile.slice,
        "SLICES": triton.cdiv(DIM, tile.slice),
        "ROWS": tile.rows,
        "PRECISION": "tf32x3",
        "WIDEN": False,
    }


def _options(tile: contrast.Tiling) -> dict[str, int]:
    return {"num_warps": tile.warps, "num_stages": tile.stages}


def _of_edit_distance() -> Iterator[Launch]:
    for length, bits in ((16, 32), (64, 64)):
        arguments = {
            **dict.fromkeys(("orders", "distances"), torch.uint8),
            "batch": 1001,  # the kernel is compiled for any
            "LENGTH": length,
            "BITS": bits,
            "SYMBOLS_PER_LOAD": 4,
            "ROWS": edit_distance.ROWS,
        }
        options = {"num_warps": edit_distance.ROWS // 32, **edit_distance.OPTIONS}
        yield Launch(edit_distance.to_identity_kernel, f"{length} frames", arguments, options)
    arguments = {
        **dict.fromkeys(("first", "second", "first_lengths", "second_lengths", "distances"), torch.int32),
        "differences": torch.int8,
        "batch": 1001,
        "WORD": edit_distance.WORD,
        "PAIRS": edit_distance.PAIRS,
    }
    options = {"num_warps": edit_distance.PAIRS // 32, **edit_distance.OPTIONS}
    yield Launch(edit_distance.general_kernel, "int32", arguments, options)


def _of_augment() -> Iterator[Launch]:
    arguments = {
        "out": torch.float16,
        "crops": torch.int32,
        "colors": torch.float32,
        "places": torch.int64,
        "clips": 64,
        "length": 16,
        "views": 2,
        "size": 112,
        "FRAMES": augment.MOST_FRAMES,
        "PIXELS": augment.PIXELS,
    }
    yield Launch(augment.augment_kernel, "16 frames", arguments, augment.OPTIONS)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


LAUNCHES: dict[str, Callable[[], Iterator[Launch]]] = {
    "contrast": _of_contrast,
    "symmetric": _of_symmetric,
    "edit-distance": _of_edit_distance,
    "augment": _of_augment,
}
"""By operation."""
