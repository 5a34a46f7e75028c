"""From YUV planes to a view in half precision, in one pass: crop, resize, mirror and convert row by row.

Numba compiles the functions for the CPU at hand when they are first used, and keeps them on disk. They read the planes
where the decoder has left them. All that lies between planes and view is a few rows, which stay in the innermost cache:
that is what makes it fast.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import torch
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic
from torch.nn.functional import interpolate

from cacl.clips import ViewPlan
from cacl.kernels.compiled import NUMBA_OPTIONS, compiled


def planes_to_view(planes: np.ndarray, matrix: np.ndarray, view: ViewPlan, out: np.ndarray) -> None:
    """Makes one view of the planes of a clip.

    Resizing is bilinear, and antialiased where it shrinks; a chroma sample lies in the middle of its four pixels.

    Args:
        planes: Where luma and both planes of chroma of each frame lie, int64 [T, 3, 2]: the address of the first row,
            and the bytes from one row to the next. The planes are uint8 [H, W] for luma and [H/2, W/2], with edges
            rounded up, for chroma. Nobody checks that they hold the crop.
        matrix: The three colour channels as affine functions of Y, U and V, float [3, 4].
        view: The crop and the mirror. Its colours are those in `matrix`.
        out: The view to fill, float16 [3, T, size, size].
    """
    weights, target, size = matrix.astype(np.float32), out.view(np.uint16), out.shape[-1]
    if view.side == size:
        weights[:, 1:3] /= UPSAMPLED_SCALE
        _convert_unscaled(planes, weights, view.top, view.left, view.flip, target)
    else:
        luma_taps, chroma_taps = (
            (*_filter_taps(side, size, False), *_filter_taps(side, size, view.flip))
            for side in (view.side, view.side // 2)
        )
        _convert_resized(planes, weights, view.top, view.left, view.side, luma_taps, chroma_taps, target)


@lru_cache(maxsize=1024)
def _filter_taps(source: int, size: int, flip: bool) -> tuple[np.ndarray, np.ndarray]:
    """Tells of which pixels a resized row is made, by the weights of torch's own interpolation.

    Args:
        source: The length of the row in pixels.
        size: The length of the resized row in pixels.
        flip: Whether the resized row is mirrored.

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
    if flip:
        first, weights = first[::-1], weights[:, ::-1]
    return np.ascontiguousarray(first, np.int64), np.ascontiguousarray(weights, np.float32)


# --- Numba compiles the rest. Indices are unsigned where they are computed, so that numba need not check whether they
# count from the end.

BLOCK = 16
"""Pixels that are converted at a time. Of a loop of just so many turns LLVM makes vector code, where it leaves up to 63
pixels of a loop over a whole row to scalar code."""
UPSAMPLED_SCALE = np.float32(16)
"""How many times too large chroma of twice the size is: it is a sum in integers, by weights of 9, 3, 3 and 1."""
NEAR_WEIGHT = np.uint16(3)
"""The weight of the nearer sample where chroma is doubled in size, beside 1 for the other. A pixel lies a quarter of
the way from the middle of its own chroma sample to that of a neighbour."""


@intrinsic
def _float16_bits(typing: Any, value: Any) -> Any:
    """Returns the bits of a float32 in half precision, rounded to nearest, by one instruction."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), generate


@intrinsic
def _pointer(typing: Any, address: Any) -> Any:
    """Returns an address as a pointer to uint8."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.CPointer(types.uint8)(types.int64), generate


@njit(inline="always", **NUMBA_OPTIONS)
def _plane_row(plane: np.ndarray, row: int, left: int, length: int) -> np.ndarray:
    """Returns a part of a row of a plane, uint8 [length]. The plane is (address, bytes from row to row)."""
    return carray(_pointer(plane[0] + row * plane[1] + left), (length,))  # pyright: ignore[reportCallIssue]


@njit(inline="always", **NUMBA_OPTIONS)
def _channel(weights: tuple[Any, Any, Any, Any], y: np.float32, u: np.float32, v: np.float32) -> int:
    """Returns a channel of a pixel as the bits of a number in half precision."""
    y_weight, u_weight, v_weight, constant = weights
    return _float16_bits(y_weight * y + u_weight * u + v_weight * v + constant)  # pyright: ignore[reportCallIssue]


@njit(inline="always", **NUMBA_OPTIONS)
def _convert_row(
    y: np.ndarray, u: np.ndarray, v: np.ndarray, weights: np.ndarray, out: np.ndarray, t: int, r: int
) -> None:
    """Converts one row of each plane, [size], to row `r` of frame `t` in the three channels of the view."""
    red_weights = (weights[0, 0], weights[0, 1], weights[0, 2], weights[0, 3])
    green_weights = (weights[1, 0], weights[1, 1], weights[1, 2], weights[1, 3])
    blue_weights = (weights[2, 0], weights[2, 1], weights[2, 2], weights[2, 3])
    red, green, blue = out[0, t, r], out[1, t, r], out[2, t, r]
    whole_blocks = len(y) // BLOCK
    for block in range(whole_blocks):
        for i in range(BLOCK):
            x = np.uint64(block * BLOCK + i)
            luma, cb, cr = np.float32(y[x]), np.float32(u[x]), np.float32(v[x])
            red[x] = _channel(red_weights, luma, cb, cr)
            green[x] = _channel(green_weights, luma, cb, cr)
            blue[x] = _channel(blue_weights, luma, cb, cr)
    for x in range(whole_blocks * BLOCK, len(y)):
        luma, cb, cr = np.float32(y[x]), np.float32(u[x]), np.float32(v[x])
        red[x] = _channel(red_weights, luma, cb, cr)
        green[x] = _channel(green_weights, luma, cb, cr)
        blue[x] = _channel(blue_weights, luma, cb, cr)


@njit(inline="always", **NUMBA_OPTIONS)
def _upsample_chroma_row(near: np.ndarray, far: np.ndarray, flip: bool, mixed: np.ndarray, row: np.ndarray) -> None:
    """Makes a row of chroma at twice its size from the two rows that it lies between, times UPSAMPLED_SCALE.

    `mixed` is memory for the mixture of the two, with one more sample at either end.
    """
    half = len(near)
    if flip:
        for x in range(half):
            mirrored = np.uint64(half - 1 - x)
            mixed[x + 1] = NEAR_WEIGHT * near[mirrored] + far[mirrored]
    else:
        for x in range(half):
            mixed[x + 1] = NEAR_WEIGHT * near[x] + far[x]
    mixed[0], mixed[half + 1] = mixed[1], mixed[half]  # Pixels at the ends have one neighbour only.
    for x in range(half):
        row[2 * x] = NEAR_WEIGHT * mixed[x + 1] + mixed[x]
        row[2 * x + 1] = NEAR_WEIGHT * mixed[x + 1] + mixed[x + 2]


@compiled
def _convert_unscaled(
    planes: np.ndarray, weights: np.ndarray, top: int, left: int, flip: bool, out: np.ndarray
) -> None:
    size = out.shape[-1]
    half, chroma_top, chroma_left = size // 2, top // 2, left // 2
    mirrored, u, v = np.empty(size, np.uint8), np.empty(size, np.uint16), np.empty(size, np.uint16)
    mixed = np.empty(half + 2, np.uint16)
    for t in range(len(planes)):
        luma, blue, red = planes[t]
        for r in range(size):
            near = chroma_top + r // 2
            far = max(near - 1, chroma_top) if r % 2 == 0 else min(near + 1, chroma_top + half - 1)
            blue_near, blue_far = (_plane_row(blue, near, chroma_left, half), _plane_row(blue, far, chroma_left, half))
            red_near, red_far = (_plane_row(red, near, chroma_left, half), _plane_row(red, far, chroma_left, half))
            _upsample_chroma_row(blue_near, blue_far, flip, mixed, u)
            _upsample_chroma_row(red_near, red_far, flip, mixed, v)
            y = _plane_row(luma, top + r, left, size)
            if flip:
                for x in range(size):
                    mirrored[x] = y[np.uint64(size - 1 - x)]
                y = mirrored
            _convert_row(y, u, v, weights, out, t, r)


Taps: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""What `_filter_taps` returns for the rows of a plane, followed by the same for its columns."""


@njit(inline="always", **NUMBA_OPTIONS)
def _resize_row(
    plane: np.ndarray, top: int, left: int, r: int, taps: Taps, row_sum: np.ndarray, row: np.ndarray
) -> None:
    """Makes row `r` of the resized crop. `row_sum` is memory for the weighted sum of the rows that it is made of."""
    first_row, row_weights, first_column, column_weights = taps
    row_sum[:] = 0
    for k in range(len(row_weights)):
        weight, source = row_weights[k, r], _plane_row(plane, top + first_row[r] + k, left, len(row_sum))
        for x in range(len(row_sum)):
            row_sum[x] += weight * source[x]
    row[:] = 0
    for k in range(len(column_weights)):
        for x in range(len(row)):
            row[x] += column_weights[k, x] * row_sum[np.uint64(first_column[x] + k)]


@compiled
def _convert_resized(
    planes: np.ndarray,
    weights: np.ndarray,
    top: int,
    left: int,
    side: int,
    luma_taps: Taps,
    chroma_taps: Taps,
    out: np.ndarray,
) -> None:
    size = out.shape[-1]
    half, chroma_top, chroma_left = side // 2, top // 2, left // 2
    y, u, v = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    luma_sum, chroma_sum = np.empty(side, np.float32), np.empty(half, np.float32)
    for t in range(len(planes)):
        luma, blue, red = planes[t]
        for r in range(size):
            _resize_row(luma, top, left, r, luma_taps, luma_sum, y)
            _resize_row(blue, chroma_top, chroma_left, r, chroma_taps, chroma_sum, u)
            _resize_row(red, chroma_top, chroma_left, r, chroma_taps, chroma_sum, v)
            _convert_row(y, u, v, weights, out, t, r)
