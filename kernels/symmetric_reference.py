"""The symmetric contrast in torch: the readable form of what the kernels compute, and what runs on a CPU.

x_ij = r_i . c_j / T are the logits of rows and columns. The column of the same sample as row i is number
rank_offset + i, and is left out of all sums.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cacl.kernels.common import CPU_CHUNK_LOGITS


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


def row_chunks(rows: Tensor, columns: Tensor) -> list[slice]:
    """Divides the rows into those taken at a time: on a CPU as many as keep their logits in the cache."""
    at_once = max(1, CPU_CHUNK_LOGITS // max(1, len(columns)) if rows.is_cpu else len(rows))
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
