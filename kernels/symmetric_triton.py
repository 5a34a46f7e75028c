"""The symmetric contrast in Triton: its kernels and their launches.

In the kernels m and l are what they are in flash attention: the running maximum of the logits, and the sum of the
weights relative to it. Logits are in base 2. A row and a column with the same number among the samples of all
processes are the two views of one sample; this column is called the row's own, and is left out.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from cacl.kernels.common import (
    FLOAT32_PRECISION,
    LN_2,
    LOG2_E,
    Grid,
    Tile,
    add_weighted_columns,
    contrast_tile,
    dot_columns,
    grid_of,
    load_slices,
    needs_widening,
    store_slice,
    zero_slices,
)
from cacl.kernels.symmetric_reference import empty_gradient, empty_gradients, empty_logsumexp

# --- Kernels


@triton.jit
def _other_logits(
    a,
    columns,
    start,
    columns_left,
    own,
    scale,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_SLICES: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Computes a tile of logits in base 2, -inf outside and for each row's own column: [BLOCK_N, BLOCK_K]."""
    column = tl.arange(0, BLOCK_K)
    products = dot_columns(a, columns, column, columns_left, D, BLOCK_N, BLOCK_K, BLOCK_D, NUM_SLICES, PRECISION, WIDEN)
    other = (column[None, :] < columns_left) & (start + column[None, :] != own[:, None])
    return tl.where(other, products * scale, float("-inf"))


@triton.jit
def logsumexp_kernel(
    rows,
    columns,
    temperature,
    logsumexp,
    max_logit,
    n_rows,
    n_columns,
    columns_per_split,
    rank_offset,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_SLICES: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Computes the log-sum-exps and the largest logits of a block of rows over a split of the columns.

    rows is [N, D] and columns [M, D] of the same dtype. Both results are float32 [splits, N].
    """
    first_row, split = tl.program_id(0).to(tl.int64) * BLOCK_N, tl.program_id(1).to(tl.int64)
    row = tl.arange(0, BLOCK_N)
    rows_left = (n_rows - first_row).to(tl.int32)
    first_column = split * columns_per_split
    count = tl.minimum(columns_per_split, n_columns - first_column).to(tl.int32)
    own = (rank_offset + first_row - first_column).to(tl.int32) + row  # [BLOCK_N]
    scale = LOG2_E / tl.load(temperature)
    a = load_slices(rows + first_row * D, row, rows_left, D, BLOCK_D, NUM_SLICES, WIDEN)  # [BLOCK_N, BLOCK_D] each
    m = tl.full((BLOCK_N,), float("-inf"), tl.float32)  # [BLOCK_N]
    l = tl.zeros((BLOCK_N,), tl.float32)  # [BLOCK_N]
    for start in range(0, count, BLOCK_K):
        tile_columns, columns_left = columns + (first_column + start) * D, count - start
        logits = _other_logits(
            a, tile_columns, start, columns_left, own, scale, D, BLOCK_D, NUM_SLICES, BLOCK_N, BLOCK_K, PRECISION, WIDEN
        )
        m_before, m = m, tl.maximum(m, tl.max(logits, 1))
        shift = tl.where(m == float("-inf"), 0.0, m)  # A row may have met nothing but its own column.
        l = l * tl.exp2(m_before - shift) + tl.sum(tl.exp2(logits - shift[:, None]), 1)
    out = split * n_rows + first_row + row
    tl.store(logsumexp + out, (m + tl.log2(tl.where(l > 0, l, 1.0))) * LN_2, mask=row < rows_left)
    tl.store(max_logit + out, m * LN_2, mask=row < rows_left)


@triton.jit
def gradient_kernel(
    rows,
    columns,
    temperature,
    max_weight,
    row_stats,
    column_stats,
    gradient,
    n_rows,
    n_columns,
    columns_per_split,
    rank_offset,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_SLICES: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Computes the share of a split of the columns in the gradient of a block of rows.

    rows is [N, D] and columns [M, D] of the same dtype. row_stats, float32 [N, 2], and column_stats, float32 [M, 2],
    hold log-sum-exps and weights. gradient is float32 [splits, N, D].

    All weights are divided by `max_weight`, the largest of them, since half precision knows nothing as small as 1 / N
    of a softmax. Two of them then add up to 2, and many small ones count as well, so half precision gets them times
    2**14 too.
    """
    first_row, split = tl.program_id(0).to(tl.int64) * BLOCK_N, tl.program_id(1).to(tl.int64)
    row, column = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    rows_left = (n_rows - first_row).to(tl.int32)
    first_column = split * columns_per_split
    count = tl.minimum(columns_per_split, n_columns - first_column).to(tl.int32)
    own = (rank_offset + first_row - first_column).to(tl.int32) + row  # [BLOCK_N]
    inverse = 1.0 / tl.load(temperature)
    largest_weight = tl.load(max_weight)
    half_scale = 16384.0 if columns.dtype.element_ty == tl.float16 else 1.0
    row_lse, row_weight = _load_stats(
        row_stats, first_row, row, rows_left, largest_weight, half_scale
    )  # [BLOCK_N] each
    a = load_slices(rows + first_row * D, row, rows_left, D, BLOCK_D, NUM_SLICES, WIDEN)  # [BLOCK_N, BLOCK_D] each
    acc = zero_slices(BLOCK_N, BLOCK_D, NUM_SLICES)  # [BLOCK_N, BLOCK_D] each
    for start in range(0, count, BLOCK_K):
        tile_columns, columns_left, scale = columns + (first_column + start) * D, count - start, inverse * LOG2_E
        logits = _other_logits(
            a, tile_columns, start, columns_left, own, scale, D, BLOCK_D, NUM_SLICES, BLOCK_N, BLOCK_K, PRECISION, WIDEN
        )
        column_lse, column_weight = _load_stats(
            column_stats, first_column + start, column, columns_left, largest_weight, half_scale
        )  # [BLOCK_K] each
        p = row_weight[:, None] * tl.exp2(logits - row_lse[:, None])  # [BLOCK_N, BLOCK_K]
        p += column_weight[None, :] * tl.exp2(logits - column_lse[None, :])
        acc = add_weighted_columns(acc, p, tile_columns, column, columns_left, D, BLOCK_D, NUM_SLICES, PRECISION, WIDEN)
    out = gradient + (split * n_rows + first_row) * D
    for i in tl.static_range(NUM_SLICES):
        store_slice(out, acc[i] * (inverse * largest_weight / half_scale), row, rows_left, i * BLOCK_D, D, BLOCK_D)


@triton.jit
def _load_stats(stats, first, number, remaining, largest_weight, half_scale):
    """Loads log-sum-exps, in base 2, and weights, in units of the largest, of rows or columns from stats [n, 2]."""
    at = stats + (first + number) * 2
    lse = tl.load(at, mask=number < remaining, other=0.0) * LOG2_E
    return lse, tl.load(at + 1, mask=number < remaining, other=0.0) / largest_weight * half_scale


# --- Tiles: as for the queue, where they fit into the registers of all GPUs (tests/kernels/test_compiled_symmetric.py)


def logsumexp_tile(dim: int, dtype: torch.dtype) -> Tile:
    """Chooses the tile of `logsumexp_kernel` for D dimensions of this dtype."""
    tile = contrast_tile(dim, dtype)
    if dtype != torch.float32:
        return tile
    return Tile(32, 64, min(tile.block_d, 32), 8, 3) if dim <= 128 else Tile(16, 32, 64, 8, 2)


def gradient_tile(dim: int, dtype: torch.dtype) -> Tile:
    """Chooses the tile of `gradient_kernel` for D dimensions of this dtype."""
    tile = contrast_tile(dim, dtype)
    if dim <= 256:
        return tile
    return tile._replace(block_d=128) if dtype == torch.float32 else Tile(32, 64, 64, 8, 2)


# --- Launches


def common_arguments(rows: Tensor, columns: Tensor, tile: Tile) -> tuple[Grid, dict[str, Any]]:
    """Computes what the launches of both kernels have in common.

    Args:
        rows: The rows, [N, D], N at least 1.
        columns: The columns, [M, D], M at least 1.
        tile: The tile of the kernel.

    Returns:
        The grid, and the sizes, constants and options of the launch by name.
    """
    (n, d), m = rows.shape, len(columns)
    grid = grid_of(n, m, tile, rows.device)
    arguments: dict[str, Any] = {
        "n_rows": n,
        "n_columns": m,
        "columns_per_split": grid.columns_per_split,
        "D": d,
        "BLOCK_D": tile.block_d,
        "NUM_SLICES": triton.cdiv(d, tile.block_d),
        "BLOCK_N": tile.block_n,
        "BLOCK_K": tile.block_k,
        "PRECISION": FLOAT32_PRECISION,
        "WIDEN": needs_widening(rows),
        "num_warps": tile.num_warps,
        "num_stages": tile.num_stages,
        "enable_fp_fusion": True,
    }
    return grid, arguments


def launch_logsumexp(rows: Tensor, columns: Tensor, temperature: Tensor, rank_offset: int) -> tuple[Tensor, Tensor]:
    """Launches `logsumexp_kernel`; arguments and results are those of `logsumexp_reference`."""
    if len(rows) == 0:
        return empty_logsumexp(rows, columns, temperature, rank_offset)
    grid, arguments = common_arguments(rows, columns, logsumexp_tile(rows.shape[1], rows.dtype))
    logsumexp, max_logit = rows.new_empty(2, grid.splits, len(rows), dtype=torch.float32).unbind()
    logsumexp_kernel[grid.blocks, grid.splits](
        rows=rows.contiguous(),
        columns=columns.contiguous(),
        temperature=temperature,
        logsumexp=logsumexp,
        max_logit=max_logit,
        rank_offset=rank_offset,
        **arguments,
    )
    return torch.logsumexp(logsumexp, 0), max_logit.amax(0)


SMALLEST_WEIGHT = torch.finfo(torch.float32).tiny
"""The least that weights are divided by, since the largest of them may be 0."""


def launch_gradient(
    rows: Tensor, columns: Tensor, temperature: Tensor, rank_offset: int, row_stats: Tensor, column_stats: Tensor
) -> Tensor:
    """Launches `gradient_kernel`; arguments and results are those of `gradient_reference`."""
    if len(rows) == 0:
        return empty_gradient(rows, columns, temperature, rank_offset, row_stats, column_stats)
    grid, arguments = common_arguments(rows, columns, gradient_tile(rows.shape[1], rows.dtype))
    shares = rows.new_empty(grid.splits, *rows.shape, dtype=torch.float32)
    max_weight = torch.maximum(row_stats[:, 1].abs().amax(), column_stats[:, 1].abs().amax())
    gradient_kernel[grid.blocks, grid.splits](
        rows=rows.contiguous(),
        columns=columns.contiguous(),
        temperature=temperature,
        max_weight=max_weight.clamp(min=SMALLEST_WEIGHT),
        row_stats=row_stats.contiguous(),
        column_stats=column_stats.contiguous(),
        gradient=shares,
        rank_offset=rank_offset,
        **arguments,
    )
    return shares.sum(0)


# A kernel gathers what belongs to its rows, so that both directions are two launches.


def launch_logsumexps(first: Tensor, second: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Launches `logsumexp_kernel` for both directions; arguments and results are those of `logsumexps_reference`."""
    first_lse, max_logit = launch_logsumexp(first, second, temperature, 0)
    return first_lse, launch_logsumexp(second, first, temperature, 0)[0], max_logit


def launch_gradients(
    first: Tensor,
    second: Tensor,
    temperature: Tensor,
    first_stats: Tensor,
    second_stats: Tensor,
    needs_first: bool,
    needs_second: bool,
) -> tuple[Tensor, Tensor]:
    """Launches `gradient_kernel` for both views; arguments and results are those of `gradients_reference`."""
    d_first, d_second = empty_gradients(
        first, second, temperature, first_stats, second_stats, needs_first, needs_second
    )
    if needs_first:
        d_first = launch_gradient(first, second, temperature, 0, first_stats, second_stats)
    if needs_second:
        d_second = launch_gradient(second, first, temperature, 0, second_stats, first_stats)
    return d_first, d_second
