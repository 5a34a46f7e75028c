"""Contrast of two views of a batch with each other (symmetric InfoNCE), where both sides learn, without ever forming
the [N, M] similarities.

Every sample is an anchor in both directions and a negative of every other sample, on other processes too. So the
gradient of a row has terms of its own loss and of the losses of all columns; the log-sum-exps of both directions, which
the forward pass keeps, give the weights of all of them, and each row gathers its gradient itself: no atomics, and
nothing but features, log-sums and weights is exchanged between processes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from cacl.kernels.contrast import (
    ELEMENTS,
    LARGEST_DIM,
    LN_2,
    LOG2_E,
    SMALL,
    Tiling,
    load_rows,
    multiprocessors,
    require_floating,
    scalar,
    splits_of,
    store_rows,
    tiling,
)
from cacl.kernels.dispatch import operation, widened


class SymmetricContrast(NamedTuple):
    """float32 [N]. The last two are for metrics and carry no gradient."""

    loss: Tensor
    similarity: Tensor
    """Of the two views of a sample."""
    max_negative_logit: Tensor
    """The largest f . s / T of a first view with the second view of any other sample; -inf if there is none."""


def symmetric_contrast(
    first: Tensor,
    second: Tensor,
    temperature: float | Tensor,
    *,
    gather: Callable[[Tensor], Tensor] = lambda x: x,
    rank_offset: int = 0,
) -> SymmetricContrast:
    """The mean over both directions of -log(e^(f_i . s_i / T) / sum_j e^(f_i . s_j / T)), for every sample i.

    first, second: [N, D] of one device and dtype (float32, bfloat16, float16, on a CPU also float64), any N, D up to
    512. temperature: a number, or a tensor there that holds one.

    gather: concatenates the rows of all processes, in their order; it is also called in the backward pass. place:
    where the rows of this process begin among them. j runs over the samples of all processes, and the gradients that
    come out are those of the sum of the losses of all processes with respect to the rows of this one. Gradients go to
    first, second and temperature; sums are float32. Radford et al., "Learning Transferable Visual Models From Natural
    Language Supervision" (2021), figure 3.

    Raises ValueError if shapes, dtypes or devices do not fit.
    """
    if first.ndim != 2 or first.shape != second.shape or not 0 < first.shape[1] <= LARGEST_DIM:
        raise ValueError(
            f"first {list(first.shape)}, second {list(second.shape)}: give two of [N, D] with D from 1 to {LARGEST_DIM}"
        )
    for what in ("dtype", "device"):
        if getattr(first, what) != getattr(second, what):
            raise ValueError(f"first {getattr(first, what)}, second {getattr(second, what)}: give one {what}")
    require_floating(first=first)
    return SymmetricContrast(*_Symmetric.apply(first, second, scalar(temperature, first), gather, rank_offset))


LOWEST = -1e30
"""In the place of the log-sum-exp of nothing."""


class _Symmetric(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        first: Tensor,
        second: Tensor,
        temperature: Tensor,
        gather: Callable[[Tensor], Tensor],
        rank_offset: int,
    ) -> Any:
        ctx.gather, ctx.rank_offset = gather, rank_offset
        of_first, max_negative_logit = _logsumexp(first, gather(second), temperature, rank_offset)
        of_second, _ = _logsumexp(second, gather(first), temperature, rank_offset)
        # A sample that is alone has -inf. From here on it must be finite: the weight of its own is e^-inf over this.
        of_first, of_second = of_first.clamp(min=LOWEST), of_second.clamp(min=LOWEST)
        similarity = (first.to(of_first.dtype) * second.to(of_first.dtype)).sum(1)
        positive = similarity / temperature
        loss = (F.softplus(of_first - positive) + F.softplus(of_second - positive)) / 2
        ctx.save_for_backward(first, second, temperature, positive, of_first, of_second)
        ctx.mark_non_differentiable(similarity, max_negative_logit)
        return loss, similarity, max_negative_logit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        first, second, temperature, positive, of_first, of_second = ctx.saved_tensors
        first_too, second_too, temperature_too, *_ = ctx.needs_input_grad
        half = gradients[0] / 2
        by_first, by_second = half * torch.sigmoid(of_first - positive), half * torch.sigmoid(of_second - positive)
        pull = ((by_first + by_second) / temperature)[:, None]
        forward, backward = torch.stack([of_first, by_first], 1), torch.stack([of_second, by_second], 1)
        d_first = d_second = d_temperature = None
        if first_too or temperature_too:
            exact = _gradient(first, ctx.gather(second), temperature, ctx.rank_offset, forward, ctx.gather(backward))
            exact = exact - pull * second
            d_first = exact.to(first.dtype) if first_too else None
            # Every similarity has one first view in it, and depends on T as on the inverse length of that.
            d_temperature = -(exact * first).sum() / temperature if temperature_too else None
        if second_too:
            d_second = _gradient(second, ctx.gather(first), temperature, ctx.rank_offset, backward, ctx.gather(forward))
            d_second = (d_second - pull * first).to(second.dtype)
        return d_first, d_second, d_temperature, None, None


# --- In torch


def logsumexp_reference(rows: Tensor, columns: Tensor, temperature: Tensor, rank_offset: int) -> tuple[Tensor, Tensor]:
    """log(sum_j e^(r_i . c_j / T)) and the largest r_i . c_j / T over all columns but one: row i's own is place + i."""
    logsumexp, max_negative_logit = _empty_logsumexp(rows, columns, temperature, rank_offset)
    for part in _parts(rows, columns):
        logits = _logits(rows, columns, temperature, rank_offset, part)
        logsumexp[part], max_negative_logit[part] = torch.logsumexp(logits, 1), logits.amax(1)
    return logsumexp, max_negative_logit


def gradient_reference(
    rows: Tensor, columns: Tensor, temperature: Tensor, rank_offset: int, of_rows: Tensor, of_columns: Tensor
) -> Tensor:
    """sum_j (u_i e^(x_ij - a_i) + v_j e^(x_ij - b_j)) c_j / T with x_ij = r_i . c_j / T, [N, D]; without row i's own.

    of_rows: [N, 2], (a, u): log-sum-exps and weights of the rows; of_columns: [M, 2], (b, v).
    """
    gradient = _empty_gradient(rows, columns, temperature, rank_offset, of_rows, of_columns)
    column_logsumexp, column_weight = of_columns.unbind(1)
    for part in _parts(rows, columns):
        logits = _logits(rows, columns, temperature, rank_offset, part)
        row_logsumexp, row_weight = of_rows[part].unbind(1)
        weights = row_weight[:, None] * (logits - row_logsumexp[:, None]).exp()
        weights += column_weight * (logits - column_logsumexp).exp()
        gradient[part] = weights @ columns.to(weights.dtype) / temperature
    return gradient


def _parts(rows: Tensor, columns: Tensor) -> list[slice]:
    """Rows at a time: on a CPU as many as keep their similarities in the cache."""
    at_once = max(1, ELEMENTS // max(1, len(columns)) if rows.is_cpu else len(rows))
    return [slice(first, first + at_once) for first in range(0, len(rows), at_once)]


def _logits(rows: Tensor, columns: Tensor, temperature: Tensor, rank_offset: int, part: slice) -> Tensor:
    dtype = torch.promote_types(rows.dtype, torch.float32)
    logits = (rows[part].to(dtype) / temperature) @ columns.to(dtype).T
    logits.diagonal(rank_offset + part.start).fill_(float("-inf"))
    return logits


# --- In Triton


@triton.jit
def _similarities(
    a,
    columns,
    first,
    left,
    own,
    scale,
    D: tl.constexpr,
    SLICE: tl.constexpr,
    SLICES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """A tile of logits in base 2, -inf outside and for each row's own column."""
    rank_offset = tl.arange(0, COLUMNS)
    logits = tl.zeros((ROWS, COLUMNS), tl.float32)
    for i in tl.static_range(SLICES):
        b = load_rows(columns, rank_offset, left, i * SLICE, D, SLICE, WIDEN)
        logits = tl.dot(a[i], tl.trans(b), logits, input_precision=PRECISION)
    other = (rank_offset[None, :] < left) & (first + rank_offset[None, :] != own[:, None])
    return tl.where(other, logits * scale, float("-inf"))


@triton.jit
def logsumexp_kernel(
    rows,
    columns,
    temperature,
    logsumexp,
    max_negative_logit,
    n,
    m,
    columns_of_split,
    rank_offset,
    D: tl.constexpr,
    SLICE: tl.constexpr,
    SLICES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """For a block of rows and a part of the columns: both outputs are [splits, N]."""
    block, split = tl.program_id(0).to(tl.int64) * ROWS, tl.program_id(1).to(tl.int64)
    row = tl.arange(0, ROWS)
    remaining = (n - block).to(tl.int32)
    begin = split * columns_of_split
    count = tl.minimum(columns_of_split, m - begin).to(tl.int32)
    own = (rank_offset + block - begin).to(tl.int32) + row
    scale = LOG2_E / tl.load(temperature)
    a = ()
    for i in tl.static_range(SLICES):
        a = a + (load_rows(rows + block * D, row, remaining, i * SLICE, D, SLICE, WIDEN),)
    best = tl.full((ROWS,), float("-inf"), tl.float32)
    weight = tl.zeros((ROWS,), tl.float32)
    for first in range(0, count, COLUMNS):
        part, left = columns + (begin + first) * D, count - first
        logits = _similarities(a, part, first, left, own, scale, D, SLICE, SLICES, ROWS, COLUMNS, PRECISION, WIDEN)
        before, best = best, tl.maximum(best, tl.max(logits, 1))
        shift = tl.where(best == float("-inf"), 0.0, best)  # a row may have met nothing but its own column
        weight = weight * tl.exp2(before - shift) + tl.sum(tl.exp2(logits - shift[:, None]), 1)
    out = split * n + block + row
    tl.store(logsumexp + out, (best + tl.log2(tl.where(weight > 0, weight, 1.0))) * LN_2, mask=row < remaining)
    tl.store(max_negative_logit + out, best * LN_2, mask=row < remaining)


@triton.jit
def gradient_kernel(
    rows,
    columns,
    temperature,
    largest,
    of_rows,
    of_columns,
    gradient,
    n,
    m,
    columns_of_split,
    rank_offset,
    D: tl.constexpr,
    SLICE: tl.constexpr,
    SLICES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """For a block of rows and a part of the columns: its share of the gradient, [splits, N, D].

    largest: of all weights. They are divided by it, since half precision knows nothing as small as 1 / N of a softmax.
    Two of them add up to 2 then, and many small ones count as well: so half precision gets them times 2**14 too.
    """
    block, split = tl.program_id(0).to(tl.int64) * ROWS, tl.program_id(1).to(tl.int64)
    row, place_of_column = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    remaining = (n - block).to(tl.int32)
    begin = split * columns_of_split
    count = tl.minimum(columns_of_split, m - begin).to(tl.int32)
    own = (rank_offset + block - begin).to(tl.int32) + row
    inverse = 1.0 / tl.load(temperature)
    unit = tl.load(largest)
    finer = 16384.0 if columns.dtype.element_ty == tl.float16 else 1.0
    of_row = of_rows + (block + row) * 2
    row_logsumexp = tl.load(of_row, mask=row < remaining, other=0.0) * LOG2_E
    row_weight = tl.load(of_row + 1, mask=row < remaining, other=0.0) / unit * finer
    a = ()
    sums = ()
    for i in tl.static_range(SLICES):
        a = a + (load_rows(rows + block * D, row, remaining, i * SLICE, D, SLICE, WIDEN),)
        sums = sums + (tl.zeros((ROWS, SLICE), tl.float32),)
    for first in range(0, count, COLUMNS):
        part, left = columns + (begin + first) * D, count - first
        logits = _similarities(
            a, part, first, left, own, inverse * LOG2_E, D, SLICE, SLICES, ROWS, COLUMNS, PRECISION, WIDEN
        )
        of_column = of_columns + (begin + first + place_of_column) * 2
        column_logsumexp = tl.load(of_column, mask=place_of_column < left, other=0.0) * LOG2_E
        column_weight = tl.load(of_column + 1, mask=place_of_column < left, other=0.0) / unit * finer
        weights = row_weight[:, None] * tl.exp2(logits - row_logsumexp[:, None])
        weights += column_weight[None, :] * tl.exp2(logits - column_logsumexp[None, :])
        updated = ()
        for i in tl.static_range(SLICES):
            b = load_rows(part, place_of_column, left, i * SLICE, D, SLICE, WIDEN)
            updated = updated + (tl.dot(weights.to(b.dtype), b, sums[i], input_precision=PRECISION),)
        sums = updated
    for i in tl.static_range(SLICES):
        out = gradient + (split * n + block) * D
        store_rows(out, sums[i] * (inverse * unit / finer), row, remaining, i * SLICE, D, SLICE)


# Tiles as elsewhere, where they fit into the registers of all GPUs: tests/kernels/test_compiled_symmetric.py.


def logsumexp_tiling(d: int, dtype: torch.dtype) -> Tiling:
    tile = tiling(d, dtype)
    if dtype != torch.float32:
        return tile
    return Tiling(32, 64, min(tile.slice, 32), 8, 3) if d <= 128 else Tiling(16, 32, 64, 8, 2)


def gradient_tiling(d: int, dtype: torch.dtype) -> Tiling:
    tile = tiling(d, dtype)
    if d <= 256:
        return tile
    return tile._replace(slice=128) if dtype == torch.float32 else Tiling(32, 64, 64, 8, 2)


class _Launch:
    """What the launches of both kernels have in common: a block of rows and a part of the columns for each program."""

    def __init__(self, rows: Tensor, columns: Tensor, tile: Tiling) -> None:
        (n, d), m = rows.shape, len(columns)
        blocks, tiles = triton.cdiv(n, tile.rows), triton.cdiv(m, tile.keys)
        columns_of_split = triton.cdiv(tiles, splits_of(blocks, tiles, multiprocessors(rows.device))) * tile.keys
        self.splits = triton.cdiv(m, columns_of_split)
        self.grid = (blocks, self.splits)
        self.sizes = (n, m, columns_of_split)
        self.options: dict[str, Any] = {
            "D": d,
            "SLICE": tile.slice,
            "SLICES": triton.cdiv(d, tile.slice),
            "ROWS": tile.rows,
            "COLUMNS": tile.keys,
            "PRECISION": "tf32x3",
            "WIDEN": widened(rows),
            "num_warps": tile.warps,
            "num_stages": tile.stages,
            "enable_fp_fusion": True,
        }


def _logsumexp_kernel(rows: Tensor, columns: Tensor, temperature: Tensor, rank_offset: int) -> tuple[Tensor, Tensor]:
    if len(rows) == 0:
        return _empty_logsumexp(rows, columns, temperature, rank_offset)
    launch = _Launch(rows, columns, logsumexp_tiling(rows.shape[1], rows.dtype))
    logsumexp, max_negative_logit = rows.new_empty(2, launch.splits, len(rows), dtype=torch.float32).unbind()
    logsumexp_kernel[launch.grid](
        rows.contiguous(),
        columns.contiguous(),
        temperature,
        logsumexp,
        max_negative_logit,
        *launch.sizes,
        rank_offset,
        **launch.options,
    )
    return torch.logsumexp(logsumexp, 0), max_negative_logit.amax(0)


def _gradient_kernel(
    rows: Tensor, columns: Tensor, temperature: Tensor, rank_offset: int, of_rows: Tensor, of_columns: Tensor
) -> Tensor:
    if len(rows) == 0:
        return _empty_gradient(rows, columns, temperature, rank_offset, of_rows, of_columns)
    launch = _Launch(rows, columns, gradient_tiling(rows.shape[1], rows.dtype))
    parts = rows.new_empty(launch.splits, *rows.shape, dtype=torch.float32)
    largest = torch.maximum(of_rows[:, 1].abs().amax(), of_columns[:, 1].abs().amax()).clamp(min=TINY)
    gradient_kernel[launch.grid](
        rows.contiguous(),
        columns.contiguous(),
        temperature,
        largest,
        of_rows.contiguous(),
        of_columns.contiguous(),
        parts,
        *launch.sizes,
        rank_offset,
        **launch.options,
    )
    return parts.sum(0)


TINY = torch.finfo(torch.float32).tiny
"""The largest weight is divided by, and may be 0."""


# --- Registered


def _empty_logsumexp(rows: Tensor, columns: Tensor, temperature: Tensor, rank_offset: int) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(rows.dtype, torch.float32)
    return rows.new_empty(rows.shape[0], dtype=dtype), rows.new_empty(rows.shape[0], dtype=dtype)


def _empty_gradient(
    rows: Tensor, columns: Tensor, temperature: Tensor, rank_offset: int, of_rows: Tensor, of_columns: Tensor
) -> Tensor:
    return rows.new_empty(rows.shape, dtype=of_rows.dtype)


def _small(rows: Tensor, columns: Tensor, *_: Any) -> bool:
    return len(rows) * len(columns) < SMALL


_logsumexp = operation(
    "batch_logsumexp(Tensor rows, Tensor columns, Tensor temperature, int place) -> (Tensor, Tensor)",
    reference=logsumexp_reference,
    kernel=_logsumexp_kernel,
    shapes=_empty_logsumexp,
    small=_small,
)
_gradient = operation(
    "batch_gradient(Tensor rows, Tensor columns, Tensor temperature, int place, Tensor of_rows, Tensor of_columns)"
    " -> Tensor",
    reference=gradient_reference,
    kernel=_gradient_kernel,
    shapes=_empty_gradient,
    small=_small,
)
