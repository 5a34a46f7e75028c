"""The symmetric contrast in torch: the readable form of what the kernels compute.

x_ij = r_i . c_j / T are the logits of rows and columns. The column of the same sample as row i is number
rank_offset + i, and is left out of all sums.
"""

from __future__ import annotations

import torch
from torch import Tensor

CPU_CHUNK_LOGITS = 2**22
"""How many logits are computed at a time on a CPU (16 MiB). Smaller chunks would stay nearer to the processor, but the
threads of torch wait for each other after every step, which takes long on cores that a loader keeps busy too."""


def logsumexp_reference(rows: Tensor, columns: Tensor, temperature: Tensor, rank_offset: int) -> tuple[Tensor, Tensor]:
    """Computes log(sum_j e^(x_ij)) and the largest x_ij of every row over all columns but the row's own.

    Args:
        rows: The rows of this process, [N, D].
        columns: The columns of all processes, [M, D].
        temperature: The temperature T, without dimensions.
        rank_offset: The number of the column that belongs to the first row.

    Returns:
        The log-sum-exps and the largest logits, float32 [N], or float64 if the embeddings are float64.
    """
    logsumexp, max_logit = empty_logsumexp(rows, columns, temperature, rank_offset)
    for chunk in row_chunks(rows, columns):
        logits = _other_logits(rows, columns, temperature, rank_offset, chunk)
        logsumexp[chunk], max_logit[chunk] = torch.logsumexp(logits, 1), logits.amax(1)
    return logsumexp, max_logit


def gradient_reference(
    rows: Tensor, columns: Tensor, temperature: Tensor, rank_offset: int, row_stats: Tensor, column_stats: Tensor
) -> Tensor:
    """Computes sum_j (u_i e^(x_ij - a_i) + v_j e^(x_ij - b_j)) c_j / T over all columns but the row's own.

    Args:
        rows: The rows of this process, [N, D].
        columns: The columns of all processes, [M, D].
        temperature: The temperature T, without dimensions.
        rank_offset: The number of the column that belongs to the first row.
        row_stats: The log-sum-exp a_i and the weight u_i of every row, [N, 2].
        column_stats: The log-sum-exp b_j and the weight v_j of every column, [M, 2].

    Returns:
        The gradient of the rows, [N, D], in the dtype of the stats.
    """
    gradient = empty_gradient(rows, columns, temperature, rank_offset, row_stats, column_stats)
    column_lse, column_weight = column_stats.unbind(1)
    for chunk in row_chunks(rows, columns):
        logits = _other_logits(rows, columns, temperature, rank_offset, chunk)
        row_lse, row_weight = row_stats[chunk].unbind(1)
        p = row_weight[:, None] * (logits - row_lse[:, None]).exp()
        p += column_weight * (logits - column_lse).exp()
        gradient[chunk] = p @ columns.to(p.dtype) / temperature
    return gradient


def logsumexps_reference(first: Tensor, second: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Computes the log-sum-exps of both directions, and the largest logits of the first, where no process has others.

    Args:
        first: The first views, the rows, [N, D].
        second: The second views, the columns, [N, D].
        temperature: The temperature T, without dimensions.

    Returns:
        log(sum_j e^(x_ij)) of every row, log(sum_i e^(x_ij)) of every column, and the largest x_ij of every row:
        float32 [N], or float64 if the embeddings are float64.
    """
    first_lse, max_logit = logsumexp_reference(first, second, temperature, 0)
    return first_lse, logsumexp_reference(second, first, temperature, 0)[0], max_logit


def gradients_reference(
    first: Tensor,
    second: Tensor,
    temperature: Tensor,
    first_stats: Tensor,
    second_stats: Tensor,
    needs_first: bool,
    needs_second: bool,
) -> tuple[Tensor, Tensor]:
    """Computes what `gradient_reference` does for both views, where no process has others.

    Args:
        first: The first views, the rows, [N, D].
        second: The second views, the columns, [N, D].
        temperature: The temperature T, without dimensions.
        first_stats: The log-sum-exp a_i and the weight u_i of every row, [N, 2].
        second_stats: The log-sum-exp b_j and the weight v_j of every column, [N, 2].
        needs_first: Whether the gradient of the first views is wanted.
        needs_second: Whether the gradient of the second views is wanted.

    Returns:
        The gradients of both, [N, D] in the dtype of the stats, or without rows where it is not wanted.
    """
    d_first, d_second = empty_gradients(
        first, second, temperature, first_stats, second_stats, needs_first, needs_second
    )
    if needs_first:
        d_first = gradient_reference(first, second, temperature, 0, first_stats, second_stats)
    if needs_second:
        d_second = gradient_reference(second, first, temperature, 0, second_stats, first_stats)
    return d_first, d_second


def row_chunks(rows: Tensor, columns: Tensor) -> list[slice]:
    """Divides the rows into those taken at a time: on a CPU as many as fill two tensors of logits."""
    at_once = max(1, CPU_CHUNK_LOGITS // 2 // max(1, len(columns)) if rows.is_cpu else len(rows))
    return [slice(first, first + at_once) for first in range(0, len(rows), at_once)]


def _other_logits(rows: Tensor, columns: Tensor, temperature: Tensor, rank_offset: int, chunk: slice) -> Tensor:
    dtype = torch.promote_types(rows.dtype, torch.float32)
    logits = (rows[chunk].to(dtype) / temperature) @ columns.to(dtype).T
    logits.diagonal(rank_offset + chunk.start).fill_(float("-inf"))
    return logits


def empty_logsumexp(rows: Tensor, columns: Tensor, temperature: Tensor, rank_offset: int) -> tuple[Tensor, Tensor]:
    """Makes empty tensors for what `logsumexp_reference` returns."""
    dtype = torch.promote_types(rows.dtype, torch.float32)
    return rows.new_empty(rows.shape[0], dtype=dtype), rows.new_empty(rows.shape[0], dtype=dtype)


def empty_gradient(
    rows: Tensor, columns: Tensor, temperature: Tensor, rank_offset: int, row_stats: Tensor, column_stats: Tensor
) -> Tensor:
    """Makes an empty tensor for what `gradient_reference` returns."""
    return rows.new_empty(rows.shape, dtype=row_stats.dtype)


def empty_logsumexps(first: Tensor, second: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Makes empty tensors for what `logsumexps_reference` returns."""
    first_lse, max_logit = empty_logsumexp(first, second, temperature, 0)
    return first_lse, torch.empty_like(first_lse), max_logit


def empty_gradients(
    first: Tensor,
    second: Tensor,
    temperature: Tensor,
    first_stats: Tensor,
    second_stats: Tensor,
    needs_first: bool,
    needs_second: bool,
) -> tuple[Tensor, Tensor]:
    """Makes empty tensors for what `gradients_reference` returns."""
    n, dim = first.shape
    d_first = first.new_empty(n if needs_first else 0, dim, dtype=first_stats.dtype)
    return d_first, first.new_empty(n if needs_second else 0, dim, dtype=first_stats.dtype)
