"""The edit distance of frame orders on a CPU, compiled by numba.

The steps are those of `edit_distance_reference`. A few rows at a time go through them side by side, so that one
instruction computes several, and nothing but orders and distances leaves the innermost cache.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from torch import Tensor

from cacl.kernels.compiled import NUMBA_OPTIONS, compiled
from cacl.kernels.edit_distance_reference import horizontal_differences, vertical_differences

ROWS_AT_ONCE = 64
"""The rows that are taken at a time. Their words, for each of up to 64 symbols, fit in the innermost cache."""


def to_identity_cpu(order: Tensor) -> Tensor:
    """Computes the distance of each order to 0, 1, ..., L - 1.

    Args:
        order: Permutations of 0..L-1, uint8 [B, L] with L from 1 to 64.

    Returns:
        The distances, uint8 [B].
    """
    batch, length = order.shape
    word = next(dtype for dtype in (np.int16, np.int32, np.int64) if length <= 8 * dtype().itemsize)
    matches, (vp, vn) = np.empty((length, ROWS_AT_ONCE), word), np.empty((2, ROWS_AT_ONCE), word)
    distance = order.new_empty(batch)
    _to_identity(order.contiguous().numpy(), matches, vp, vn, distance.numpy())
    return distance


_horizontal_differences = njit(horizontal_differences.fn, inline="always", **NUMBA_OPTIONS)
_vertical_differences = njit(vertical_differences.fn, inline="always", **NUMBA_OPTIONS)

ONE = np.int64(1)


@compiled
def _to_identity(order: np.ndarray, matches: np.ndarray, vp: np.ndarray, vn: np.ndarray, distance: np.ndarray) -> None:
    """Computes uint8 [B] distances of uint8 [B, L] orders.

    `matches` is memory for the match masks of some rows, [L, ROWS_AT_ONCE], and `vp` and `vn` for their words,
    [ROWS_AT_ONCE]. Numba computes in 64 bits whatever their width, and cuts off what does not fit.
    """
    batch, length = order.shape
    for start in range(0, batch, ROWS_AT_ONCE):
        rows = min(ROWS_AT_ONCE, batch - start)
        for row in range(rows):
            for column in range(length):
                matches[column, row] = ONE << np.int64(order[start + row, column])
        vp[:] = -1
        vn[:] = 0
        for column in range(length):
            match = matches[column]
            for row in range(rows):
                d0, hp, hn = _horizontal_differences(match[row], vp[row], vn[row])
                vp[row], vn[row] = _vertical_differences(d0, hp + hp | ONE, hn + hn)
        for row in range(rows):
            cell = length  # of the last column, from the first row to the last
            for bit in range(length):
                cell += ((vp[row] >> bit) & ONE) - ((vn[row] >> bit) & ONE)
            distance[start + row] = cell
