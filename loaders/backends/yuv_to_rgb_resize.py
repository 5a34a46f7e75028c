"""From YUV planes to a view in half precision, in one pass: crop, resize, mirror and convert row by row.

Numba compiles the functions for the CPU at hand when they are first used, and keeps them on disk. All that lies between
planes and view is a few rows, which stay in the innermost cache: that is what makes it fast.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from torch.nn.functional import interpolate

from cacl.clips import ViewPlan


def planes_to_view(luma: np.ndarray, chroma: np.ndarray, matrix: np.ndarray, view: ViewPlan, out: np.ndarray) -> None:
    """Makes one view of the planes of a clip.

    Resizing is bilinear, and antialiased where it shrinks; a chroma sample lies in the middle of its four pixels.

    Args:
        luma: uint8 [T, H, W].
        chroma: uint8 [2, T, H/2, W/2], with edges rounded up.
        matrix: The three colour channels as affine functions of Y, U and V, float [3, 4].
        view: The crop and the mirror. Its colours are those in `matrix`.
        out: The view to fill, float16 [3, T, size, size].
    """
    weights, target, size = matrix.astype(np.float32), out.view(np.uint16), out.shape[-1]
    if view.side == size:
        _convert_unscaled(luma, chroma, weights, view.top, view.left, view.flip, target)
    else:
        luma_taps, chroma_taps = _filter_taps(view.side, size), _filter_taps(view.side // 2, size)
        _convert_resized(
            luma, chroma, weights, view.top, view.left, view.side, view.flip, *luma_taps, *chroma_taps, target
        )


@lru_cache(maxsize=1024)
def _filter_taps(source: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Tells of which pixels a resized row is made, by the weights of torch's own interpolation.

    Args:
        source: The length of the row in pixels.
        size: The length of the resized row in pixels.

    Returns:
        For each pixel of the resized row the position of the first of its K source pixels, int64 [size], and the
        weights of these, float32 [K, size].
    """
    shrinks = source > size
    identity = torch.eye(source, dtype=torch.float64)[None, :, None]
    table = interpolate(identity, (1, size), mode="bilinear", antialias=shrinks)[0, :, 0].numpy()
    used = table > 1e-12
    first, last = used.argmax(0), source - 1 - used[::-1].argmax(0)
    taps = int((last - first).max()) + 1
    first = np.minimum(first, source - taps)
    weights = table[first[None] + np.arange(taps)[:, None], np.arange(size)[None]]
    return first.astype(np.int64), weights.astype(np.float32)


# --- Numba compiles the rest. Indices are unsigned where they are computed, so that numba need not check whether they
# count from the end.

NUMBA_OPTIONS: Any = {"nogil": True, "error_model": "numpy"}


def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    try:
        return njit(function, cache=True, **NUMBA_OPTIONS)
    except RuntimeError:  # no folder can be written where the code could be kept, so every process compiles it
        return njit(function, **NUMBA_OPTIONS)


FAR_WEIGHT, NEAR_WEIGHT = np.float32(0.25), np.float32(0.75)
"""The weights by which chroma is doubled in size: a pixel lies a quarter of the way from the middle of its own chroma
sample to that of a neighbour."""


@intrinsic
def _float16_bits(typing: Any, value: Any) -> Any:
    """Returns the bits of a float32 in half precision, rounded to nearest, by one instruction."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), generate


@njit(inline="always", **NUMBA_OPTIONS)
def _convert_row(
    y: np.ndarray, u: np.ndarray, v: np.ndarray, weights: np.ndarray, flip: bool, out: np.ndarray, t: int, r: int
) -> None:
    """Converts one row of each plane, float32 [size], to row `r` of frame `t` in the three channels of the view."""
    last = len(y) - 1
    for channel in range(3):
        y_weight, u_weight, v_weight, constant = weights[channel]
        row = out[channel, t, r]
        if flip:
            for x in range(len(row)):
                mirrored = np.uint64(last - x)
                value = y_weight * y[mirrored] + u_weight * u[mirrored] + v_weight * v[mirrored] + constant
                row[x] = _float16_bits(value)  # pyright: ignore[reportCallIssue]
        else:
            for x in range(len(row)):
                value = y_weight * y[x] + u_weight * u[x] + v_weight * v[x] + constant
                row[x] = _float16_bits(value)  # pyright: ignore[reportCallIssue]


@njit(inline="always", **NUMBA_OPTIONS)
def _upsample_chroma_row(near: np.ndarray, far: np.ndarray, mixed: np.ndarray, row: np.ndarray) -> None:
    """Makes a row of chroma at twice its size from the two rows that it lies between.

    `mixed` is memory for the mixture of the two, with one more sample at either end.
    """
    half = len(near)
    for x in range(half):
        mixed[x + 1] = NEAR_WEIGHT * near[x] + FAR_WEIGHT * far[x]
    mixed[0], mixed[half + 1] = mixed[1], mixed[half]  # Pixels at the ends have one neighbour only.
    for x in range(half):
        row[2 * x] = NEAR_WEIGHT * mixed[x + 1] + FAR_WEIGHT * mixed[x]
        row[2 * x + 1] = NEAR_WEIGHT * mixed[x + 1] + FAR_WEIGHT * mixed[x + 2]


@_compiled
def _convert_unscaled(
    luma: np.ndarray, chroma: np.ndarray, weights: np.ndarray, top: int, left: int, flip: bool, out: np.ndarray
) -> None:
    size = out.shape[-1]
    half, chroma_top, chroma_left = size // 2, top // 2, left // 2
    y, u, v = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    mixed = np.empty(half + 2, np.float32)
    for t in range(len(luma)):
        for r in range(size):
            near = r // 2
            far = max(near - 1, 0) if r % 2 == 0 else min(near + 1, half - 1)
            blue, red = (
                chroma[0, t, :, chroma_left : chroma_left + half],
                chroma[1, t, :, chroma_left : chroma_left + half],
            )
            _upsample_chroma_row(blue[chroma_top + near], blue[chroma_top + far], mixed, u)
            _upsample_chroma_row(red[chroma_top + near], red[chroma_top + far], mixed, v)
            row = luma[t, top + r, left : left + size]
            for x in range(size):
                y[x] = row[x]
            _convert_row(y, u, v, weights, flip, out, t, r)


@njit(inline="always", **NUMBA_OPTIONS)
def _resize_row(
    plane: np.ndarray, r: int, first: np.ndarray, weights: np.ndarray, row_sum: np.ndarray, row: np.ndarray
) -> None:
    """Makes row `r` of the resized plane. `row_sum` is memory for the weighted sum of the rows that it is made of."""
    taps = len(weights)
    row_sum[:] = 0
    for k in range(taps):
        weight, source = weights[k, r], plane[first[r] + k]
        for x in range(len(row_sum)):
            row_sum[x] += weight * source[x]
    row[:] = 0
    for k in range(taps):
        for x in range(len(row)):
            row[x] += weights[k, x] * row_sum[np.uint64(first[x] + k)]


@_compiled
def _convert_resized(
    luma: np.ndarray,
    chroma: np.ndarray,
    weights: np.ndarray,
    top: int,
    left: int,
    side: int,
    flip: bool,
    luma_first: np.ndarray,
    luma_taps: np.ndarray,
    chroma_first: np.ndarray,
    chroma_taps: np.ndarray,
    out: np.ndarray,
) -> None:
    size = out.shape[-1]
    half, chroma_top, chroma_left = side // 2, top // 2, left // 2
    y, u, v = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    luma_sum, chroma_sum = np.empty(side, np.float32), np.empty(half, np.float32)
    for t in range(len(luma)):
        luma_crop = luma[t, top : top + side, left : left + side]
        blue_crop = chroma[0, t, chroma_top : chroma_top + half, chroma_left : chroma_left + half]
        red_crop = chroma[1, t, chroma_top : chroma_top + half, chroma_left : chroma_left + half]
        for r in range(size):
            _resize_row(luma_crop, r, luma_first, luma_taps, luma_sum, y)
            _resize_row(blue_crop, r, chroma_first, chroma_taps, chroma_sum, u)
            _resize_row(red_crop, r, chroma_first, chroma_taps, chroma_sum, v)
            _convert_row(y, u, v, weights, flip, out, t, r)
