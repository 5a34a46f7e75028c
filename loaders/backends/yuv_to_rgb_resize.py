"""From YUV planes to a view in half precision, in one pass: crop, resize, mirror and mix row by row.

Compiled for the CPU at hand by numba when first used, and kept on disk. All that lies between planes and view is a few
rows, which stay in the innermost cache: that is what makes it fast.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from cacl.clips import ViewPlan


def planes_to_view(luma: np.ndarray, chroma: np.ndarray, matrix: np.ndarray, view: ViewPlan, out: np.ndarray) -> None:
    """uint8 [T, H, W] luma and [2, T, H/2, W/2] chroma to out, float16 [3, T, size, size].

    matrix: float [3, 4], the three channels as affine functions of Y, U, V; of `view` the crop and the mirror count.
    Resizing is bilinear, antialiased where it shrinks; chroma lies in the middle of its four pixels.
    """
    weights, to = matrix.astype(np.float32), out.view(np.uint16)
    if view.side == out.shape[-1]:
        _convert_unscaled(luma, chroma, weights, view.top, view.left, view.flip, to)
    else:
        of_luma, of_chroma = _filter_taps(view.side, out.shape[-1]), _filter_taps(view.side // 2, out.shape[-1])
        _convert_resized(luma, chroma, weights, view.top, view.left, view.side, view.flip, *of_luma, *of_chroma, to)


@lru_cache(maxsize=1024)
def _filter_taps(source: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """What each of `size` pixels is made of, by torch's own weights: the first of its K pixels among `source` ones,
    int64 [size], and the weights of these, float32 [K, size]."""
    shrinks = source > size
    identity = torch.eye(source, dtype=torch.float64)[None, :, None]
    table = F.interpolate(identity, (1, size), mode="bilinear", antialias=shrinks)[0, :, 0].numpy()
    used = table > 1e-12
    first, last = used.argmax(0), source - 1 - used[::-1].argmax(0)
    taps = int((last - first).max()) + 1
    first = np.minimum(first, source - taps)
    weights = table[first[None] + np.arange(taps)[:, None], np.arange(size)[None]]
    return first.astype(np.int64), weights.astype(np.float32)


# --- Compiled. Indices are unsigned where they are computed: numba then need not see whether they count from the end.

NUMBA_OPTIONS: Any = {"nogil": True, "error_model": "numpy"}


def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    try:
        return njit(function, cache=True, **NUMBA_OPTIONS)
    except RuntimeError:  # there is no place where it could be kept: compiled by every process
        return njit(function, **NUMBA_OPTIONS)


FAR_WEIGHT, NEAR_WEIGHT = np.float32(0.25), np.float32(0.75)
"""Of chroma at twice its size: a pixel lies a quarter of the way from the middle of its own to that of a neighbour."""


@intrinsic
def _float16_bits(typing: Any, value: Any) -> Any:
    """The bits of a float32 in half precision, rounded to nearest, as one instruction."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), generate


@njit(inline="always", **NUMBA_OPTIONS)
def _convert_row(
    y: np.ndarray, u: np.ndarray, v: np.ndarray, weights: np.ndarray, flip: bool, out: np.ndarray, t: int, r: int
) -> None:
    """One row of the three channels from one of each plane, float32 [size]."""
    last = len(y) - 1
    for channel in range(3):
        of_y, of_u, of_v, constant = weights[channel]
        row = out[channel, t, r]
        if flip:
            for x in range(len(row)):
                other = np.uint64(last - x)
                mixed = of_y * y[other] + of_u * u[other] + of_v * v[other] + constant
                row[x] = _float16_bits(mixed)  # pyright: ignore[reportCallIssue]
        else:
            for x in range(len(row)):
                mixed = of_y * y[x] + of_u * u[x] + of_v * v[x] + constant
                row[x] = _float16_bits(mixed)  # pyright: ignore[reportCallIssue]


@njit(inline="always", **NUMBA_OPTIONS)
def _upsample_chroma_row(own: np.ndarray, other: np.ndarray, small: np.ndarray, row: np.ndarray) -> None:
    """A row of chroma at twice its size, from the two it lies between. small: memory for their mixture."""
    half = len(own)
    for x in range(half):
        small[x + 1] = NEAR_WEIGHT * own[x] + FAR_WEIGHT * other[x]
    small[0], small[half + 1] = small[1], small[half]  # pixels without a neighbour
    for x in range(half):
        row[2 * x] = NEAR_WEIGHT * small[x + 1] + FAR_WEIGHT * small[x]
        row[2 * x + 1] = NEAR_WEIGHT * small[x + 1] + FAR_WEIGHT * small[x + 2]


@_compiled
def _convert_unscaled(
    luma: np.ndarray, chroma: np.ndarray, weights: np.ndarray, top: int, left: int, flip: bool, out: np.ndarray
) -> None:
    size = out.shape[-1]
    half, upper, outer = size // 2, top // 2, left // 2
    y, u, v = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    small = np.empty(half + 2, np.float32)
    for t in range(len(luma)):
        for r in range(size):
            near = r // 2
            far = max(near - 1, 0) if r % 2 == 0 else min(near + 1, half - 1)
            blue, red = chroma[0, t, :, outer : outer + half], chroma[1, t, :, outer : outer + half]
            _upsample_chroma_row(blue[upper + near], blue[upper + far], small, u)
            _upsample_chroma_row(red[upper + near], red[upper + far], small, v)
            row = luma[t, top + r, left : left + size]
            for x in range(size):
                y[x] = row[x]
            _convert_row(y, u, v, weights, flip, out, t, r)


@njit(inline="always", **NUMBA_OPTIONS)
def _resize_row(
    plane: np.ndarray, r: int, first: np.ndarray, weights: np.ndarray, between: np.ndarray, row: np.ndarray
) -> None:
    """Row r of the resized plane. between: the rows it is made of, as one."""
    taps = len(weights)
    between[:] = 0
    for k in range(taps):
        weight, source = weights[k, r], plane[first[r] + k]
        for x in range(len(between)):
            between[x] += weight * source[x]
    row[:] = 0
    for k in range(taps):
        for x in range(len(row)):
            row[x] += weights[k, x] * between[np.uint64(first[x] + k)]


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
    half, upper, outer = side // 2, top // 2, left // 2
    y, u, v = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    long, short = np.empty(side, np.float32), np.empty(half, np.float32)
    for t in range(len(luma)):
        luma_crop = luma[t, top : top + side, left : left + side]
        blue_crop = chroma[0, t, upper : upper + half, outer : outer + half]
        red_crop = chroma[1, t, upper : upper + half, outer : outer + half]
        for r in range(size):
            _resize_row(luma_crop, r, luma_first, luma_taps, long, y)
            _resize_row(blue_crop, r, chroma_first, chroma_taps, short, u)
            _resize_row(red_crop, r, chroma_first, chroma_taps, short, v)
            _convert_row(y, u, v, weights, flip, out, t, r)
