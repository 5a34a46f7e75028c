"""Exact search for the most similar rows of a gallery: in chunks, on any device, and without sorting the gallery."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cacl.errors import DataError

CHUNK_ENTRIES = 2**24
"""The number of entries of the gallery, and of similarities, that are in memory at once."""
QUERY_CHUNK_SIZE = 1024
"""The largest number of queries whose similarities are computed at once."""
BLOCK_SIZE = 1024
"""The number of rows of the gallery in one matrix product, whose operands and result a cache can hold."""
SHARING_QUERIES = {"cpu": 16, "cuda": 256}
"""The number of queries that are compared in float64 with the same rows, by device. A row that one of them needs is
compared with all of them: more queries are fewer steps, and more comparisons that nobody needs."""


@torch.no_grad()
def nearest(
    queries: np.ndarray,
    gallery: np.ndarray,
    k: int,
    device: str | torch.device = "cpu",
    *,
    chunk_entries: int = CHUNK_ENTRIES,
    query_chunk_size: int = QUERY_CHUNK_SIZE,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k most similar rows of a gallery for every query.

    Similarity is the cosine, computed in float64 and rounded to float32, so that copies of a row are equally similar
    wherever they stand. Of rows that are equally similar, the earlier one counts as nearer. The sizes of the chunks
    change the time and the memory, and not the result.

    All similarities are first computed in float32, and only rows that may be among the k nearest are compared in
    float64 and sorted: those that are not below the k-th nearest so far by more than float32 can be wrong. In the first
    chunk the k-th largest of the maxima over groups of rows takes its place, which the k-th nearest cannot be below.

    Args:
        queries: Floats [Q, F].
        gallery: Floats [G, F]. A memory-mapped array is read chunk by chunk.
        k: The number of rows to find for each query. A k beyond G finds all of the gallery.
        device: The device that computes.
        chunk_entries: The number of entries of the gallery, and of similarities, that are in memory at once.
        query_chunk_size: The largest number of queries whose similarities are computed at once.

    Returns:
        The positions in the gallery, int64 [Q, min(k, G)], the nearest first, and their similarities, float32 of the
        same shape.

    Raises:
        DataError: A feature is not finite.
    """
    k, device = min(k, len(gallery)), torch.device(device)
    similarities = torch.full((len(queries), k), -torch.inf, device=device)
    positions = torch.zeros(len(queries), k, dtype=torch.int64, device=device)
    exact_queries = unit_rows(queries, device)
    rounded_queries = exact_queries.float()
    block_size = min(BLOCK_SIZE, len(gallery))
    blocks = max(1, chunk_entries // (block_size * max(query_chunk_size, gallery.shape[1])))
    # Memory that is used again need not be cleared by the system, which would take as long as a tenth of the products.
    memory = torch.empty(blocks * min(query_chunk_size, len(queries)) * block_size, device=device)
    for first in range(0, len(gallery), blocks * block_size):
        chunk = gallery[first : first + blocks * block_size]
        candidates = _blocks(chunk, block_size, device)  # [b, n, F]
        for start in range(0, len(queries), query_chunk_size):
            rows = slice(start, start + query_chunk_size)
            wanted = rounded_queries[rows]
            shape = (len(candidates), len(wanted), block_size)
            products = memory[: math.prod(shape)].view(shape)
            for block, product in zip(candidates, products, strict=True):
                torch.mm(wanted, block.T, out=product)
            products[-1, :, block_size - (-len(chunk) % block_size) :] = -torch.inf
            _merge(similarities[rows], positions[rows], products, exact_queries[rows], chunk, first)
    return positions.cpu().numpy(), similarities.cpu().numpy()


def unit_rows(x: np.ndarray, device: str | torch.device = "cpu") -> Tensor:
    """Brings every row to length 1. Rows of zeros stay what they are.

    Args:
        x: Floats [N, F].
        device: The device of the result.

    Returns:
        float64 [N, F].

    Raises:
        DataError: An entry is not finite.
    """
    rows = torch.from_numpy(np.array(x)).to(device, torch.float64)
    return rows.div_(_lengths(rows))


def _lengths(rows: Tensor) -> Tensor:
    """What rows [N, F] are divided by to bring them to length 1, float64 [N, 1]."""
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=torch.float64)
    if not lengths.isfinite().all():
        raise DataError("a feature is not finite: the weights of its encoder have diverged")
    return lengths.clamp_(min=1e-12)


def _blocks(chunk: np.ndarray, block_size: int, device: torch.device) -> Tensor:
    """The rows of a chunk of the gallery with length 1, in blocks, float32 [b, n, F]. The last one ends with zeros."""
    rows = torch.from_numpy(np.array(chunk, np.result_type(chunk, np.float32))).to(device)
    rows = rows.mul_(_lengths(rows).reciprocal_().to(rows.dtype)).float()
    missing = -len(rows) % block_size
    rows = F.pad(rows, (0, 0, 0, missing)) if missing else rows
    return rows.view(-1, block_size, rows.shape[1])


def _merge(
    similarities: Tensor, positions: Tensor, products: Tensor, queries: Tensor, chunk: np.ndarray, first: int
) -> None:
    """Takes a chunk of the gallery among the k nearest so far, which it changes.

    Args:
        similarities: The similarities of the k nearest before this chunk, float32 [q, k], from high to low, and -inf
            where there are fewer.
        positions: Where these stand in the gallery, int64 [q, k].
        products: The similarities with the blocks of the chunk as float32 computes them, [b, q, n], and -inf beyond its
            end.
        queries: float64 [q, F].
        chunk: Floats [c, F].
        first: Where the chunk begins in the gallery.
    """
    k, block_size = similarities.shape[1], products.shape[2]
    maxima = products.amax(0)  # a group has one row of each block
    bounds = similarities[:, -1:]
    if first == 0 and block_size >= k:
        bounds = maxima.topk(k, dim=1).values[:, -1:]
    # A sum of F products of rows that are rounded themselves is wrong by at most F + 8 times 2^-24. Two are compared.
    bounds = bounds - 2 * (queries.shape[1] + 8) * 2.0**-24
    hopeful = maxima >= bounds
    step = SHARING_QUERIES[products.device.type]
    for rows in (slice(start, start + step) for start in range(0, len(queries), step)):
        groups = hopeful[rows].any(0).nonzero()[:, 0]
        which, group = (products[:, rows].index_select(2, groups) >= bounds[rows]).any(1).nonzero(as_tuple=True)
        columns = which * block_size + groups[group]  # ascending
        columns = columns[columns < len(chunk)]
        if not len(columns):
            continue
        found = (queries[rows] @ unit_rows(chunk[columns.cpu().numpy()], queries.device).T).float()
        merged = torch.cat([similarities[rows], found], 1)
        # Whoever is earlier in the gallery is earlier here among equals, and stays so.
        similarities[rows], kept = (x[:, :k] for x in merged.sort(dim=1, descending=True, stable=True))
        everywhere = torch.cat([positions[rows], (first + columns).expand(len(found), -1)], 1)
        positions[rows] = everywhere.gather(1, kept)
