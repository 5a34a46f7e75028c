"""The symmetric contrast on a CPU, for a process that has all samples: both directions from one power of each logit.

Rows are dealt to threads, each of which goes through its share on its own, some rows at a time. The weights of both
directions, u_i e^(x_ij - a_i) + v_j e^(x_ij - b_j), are e^(x_ij) (u_i e^(-a_i) + v_j e^(-b_j)). No largest logit is
subtracted first. That would go beyond float32 where log-sum-exps are far from 0, and there the reference computes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import reduce

import torch
from torch import Tensor

from cacl.kernels.symmetric_reference import gradients_reference, logsumexps_reference
from cacl.kernels.threads import map_in_threads

LOG2_E = math.log2(math.e)
"""Makes logits of which powers of 2 are powers of e. torch computes them in a third of the time."""
CHUNK_LOGITS = 2**20
"""How many logits a thread has memory for (4 MiB)."""
MAX_LOGSUMEXP = 64
"""The log-sum-exps up to which, and down to minus which, powers of logits and weights stay far inside of float32."""


def logsumexps_cpu(first: Tensor, second: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Computes what `logsumexps_reference` does, with the same arguments and results."""
    dtype = torch.promote_types(first.dtype, torch.float32)
    scaled, columns = first.to(dtype) / temperature, second.to(dtype)

    def scan(share: slice) -> tuple[Tensor, Tensor, Tensor]:
        part = scaled[share]
        (row_sum, max_logit), column_sum = part.new_empty(2, len(part)), part.new_zeros(len(columns))
        for chunk, logits, _ in _chunks(part, columns, share.start):
            torch.amax(logits, 1, out=max_logit[chunk])
            torch.sum(logits.mul_(LOG2_E).exp2_(), 1, out=row_sum[chunk])
            column_sum += logits.sum(0)
        return row_sum, column_sum, max_logit

    row_sums, column_sums, max_logits = zip(*map_in_threads(scan, _shares(scaled, columns)), strict=True)
    row_lse, column_lse = torch.cat(row_sums).log_(), reduce(torch.add, column_sums).log_()
    if not _are_moderate(row_lse, column_lse):
        return logsumexps_reference(first, second, temperature)
    return row_lse, column_lse, torch.cat(max_logits)


def gradients_cpu(
    first: Tensor,
    second: Tensor,
    temperature: Tensor,
    first_stats: Tensor,
    second_stats: Tensor,
    needs_first: bool,
    needs_second: bool,
) -> tuple[Tensor, Tensor]:
    """Computes what `gradients_reference` does, with the same arguments and results."""
    (row_lse, row_weight), (column_lse, column_weight) = first_stats.T, second_stats.T
    if not _are_moderate(row_lse, column_lse):
        return gradients_reference(first, second, temperature, first_stats, second_stats, needs_first, needs_second)
    rows, columns = first.to(row_lse.dtype), second.to(row_lse.dtype)
    scaled = rows * (LOG2_E / temperature)
    row_weight, column_weight = row_weight / row_lse.exp(), column_weight / column_lse.exp()

    def gather(share: slice) -> tuple[Tensor, Tensor]:
        part, part_weight = rows[share], row_weight[share, None]
        d_first = torch.empty_like(part if needs_first else part[:0])
        d_second = torch.zeros_like(columns if needs_second else columns[:0])
        for chunk, logits, weights in _chunks(scaled[share], columns, share.start):
            p = logits.exp2_().mul_(torch.add(part_weight[chunk], column_weight, out=weights))
            if needs_first:
                torch.mm(p, columns, out=d_first[chunk])
            if needs_second:
                d_second.addmm_(p.T, part[chunk])
        return d_first, d_second

    d_firsts, d_seconds = zip(*map_in_threads(gather, _shares(scaled, columns)), strict=True)
    return torch.cat(d_firsts).div_(temperature), reduce(torch.add, d_seconds).div_(temperature)


def _are_moderate(*logsumexps: Tensor) -> bool:
    return all(bool((x.abs() <= MAX_LOGSUMEXP).all()) for x in logsumexps)


def _shares(rows: Tensor, columns: Tensor) -> list[slice]:
    """Deals the rows to as many threads as torch has, unless a thread can take them all at a time."""
    threads = max(1, min(torch.get_num_threads(), math.ceil(len(rows) / _rows_at_once(columns))))
    size = max(1, math.ceil(len(rows) / threads))
    return [slice(first, first + size) for first in range(0, max(1, len(rows)), size)]


def _rows_at_once(columns: Tensor) -> int:
    """Tells how many rows fill two tensors of logits."""
    return max(1, CHUNK_LOGITS // 2 // max(1, len(columns)))


def _chunks(scaled: Tensor, columns: Tensor, first_row: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yields some rows of a share, their logits, and memory for as many numbers. The next rows overwrite both."""
    at_once = min(len(scaled), _rows_at_once(columns))
    memory = scaled.new_empty(2, at_once, len(columns))
    for start in range(0, len(scaled), max(1, at_once)):
        chunk = slice(start, start + at_once)
        logits, spare = memory[:, : len(scaled[chunk])]
        torch.mm(scaled[chunk], columns.T, out=logits).diagonal(first_row + start).fill_(float("-inf"))
        yield chunk, logits, spare
