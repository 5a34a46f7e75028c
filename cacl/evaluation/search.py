"""Exact search for the most similar rows of a gallery: in blocks, on any device, and without sorting the gallery."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cacl.errors import DataError

BLOCK_SIZES = {"cpu": (1024, 1024), "cuda": (4096, 8192)}
"""The numbers of queries and of rows of the gallery in one matrix product, by device. On a CPU its operands and its
result fit into a cache, and on a GPU it is large beside the time that it takes to start it."""
GROUP_SIZE = 64
"""The number of neighbouring rows of the gallery whose largest similarity is looked at first."""
PAIR_ENTRIES = 2**17
"""The number of entries of queries that are multiplied with entries of rows at once where only some pairs count."""
DENSE_SHARE = 1 / 64
"""The share of the pairs of queries and rows beyond which a matrix product of all pairs takes less time."""


@torch.no_grad()
def nearest(
    queries: np.ndarray,
    gallery: np.ndarray,
    k: int,
    device: str | torch.device = "cpu",
    *,
    block_sizes: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k most similar rows of a gallery for every query.

    Similarity is the cosine, computed in float64 and rounded to float32, so that copies of a row are equally similar
    wherever they stand. Of rows that are equally similar, the earlier one counts as nearer. The sizes of the blocks
    change the time and the memory, and not the result.

    All similarities are first computed in float32, and only rows that may be among the k nearest are compared in
    float64 and sorted: those that are not below the k-th nearest so far by more than float32 can be wrong. In the first
    block of the gallery the k-th largest similarity in float32 takes its place.

    Args:
        queries: Floats [Q, F].
        gallery: Floats [G, F]. A memory-mapped array is read block by block.
        k: The number of rows to find for each query. A k beyond G finds all of the gallery.
        device: The device that computes.
        block_sizes: The numbers of queries and of rows of the gallery in one matrix product, of `BLOCK_SIZES` if None.

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
    num_queries, num_rows = block_sizes or BLOCK_SIZES[device.type]
    # Memory that is used again need not be cleared by the system, which would take as long as a tenth of the products.
    memory = torch.empty(num_queries * (num_rows + GROUP_SIZE), device=device)
    for first in range(0, len(gallery), num_rows):
        rows = unit_rows(gallery[first : first + num_rows], device)
        rounded_rows = F.pad(rows.float(), (0, 0, 0, -len(rows) % GROUP_SIZE))
        for start in range(0, len(queries), num_queries):
            block = slice(start, start + num_queries)
            wanted = rounded_queries[block]
            products = memory[: len(wanted) * len(rounded_rows)].view(len(wanted), len(rounded_rows))
            torch.mm(wanted, rounded_rows.T, out=products)
            products[:, len(rows) :] = -torch.inf
            _merge(similarities[block], positions[block], products, exact_queries[block], rows, first)
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
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    if not lengths.isfinite().all():
        raise DataError("a feature is not finite: the weights of its encoder have diverged")
    return rows.div_(lengths.clamp_(min=1e-12))


def _merge(
    similarities: Tensor, positions: Tensor, products: Tensor, queries: Tensor, rows: Tensor, first: int
) -> None:
    """Takes a block of the gallery among the k nearest so far, which it changes.

    Args:
        similarities: The similarities of the k nearest before this block, float32 [q, k], from high to low, and -inf
            where there are fewer.
        positions: Where these stand in the gallery, int64 [q, k].
        products: The similarities with the rows of the block as float32 computes them, [q, n], and -inf beyond its
            end, up to a multiple of `GROUP_SIZE`.
        queries: float64 [q, F].
        rows: The rows of the block with length 1, float64 [r, F].
        first: Where the block begins in the gallery.
    """
    k = similarities.shape[1]
    bounds = similarities[:, -1:]
    if first == 0 and len(rows) >= k:
        bounds = products.topk(k, dim=1).values[:, -1:]
    # A sum of F products of rows that are rounded themselves is wrong by at most F + 8 times 2^-24. Two are compared.
    bounds = (bounds - 2 * (queries.shape[1] + 8) * 2.0**-24).clamp_(min=-2)  # below all cosines, and above -inf
    query, row = _at_least(bounds, products)
    found = _exact_similarities(queries, rows, query, row)
    nearer = found > similarities[query, -1]  # Of equals, those of earlier blocks stay.
    query, row, found = query[nearer], row[nearer], found[nearer]
    if not len(query):
        return
    # One line for each query that has found something: the k nearest so far, and then what it found, in its order.
    changed, line, counts = query.unique_consecutive(return_inverse=True, return_counts=True)
    place = k + torch.arange(len(query), device=query.device) - (counts.cumsum(0) - counts)[line]
    merged = similarities.new_full((len(changed), k + int(counts.max())), -torch.inf)
    merged[:, :k] = similarities[changed]
    merged[line, place] = found
    merged, order = merged.sort(dim=1, descending=True, stable=True)
    everywhere = positions.new_zeros(merged.shape)
    everywhere[:, :k] = positions[changed]
    everywhere[line, place] = first + row
    similarities[changed] = merged[:, :k]
    positions[changed] = everywhere.gather(1, order[:, :k])


def _at_least(bounds: Tensor, products: Tensor) -> tuple[Tensor, Tensor]:
    """Finds the entries of products [q, n] that are at least the bound of their query, [q, 1]: query by query."""
    groups = products.view(len(products), -1, GROUP_SIZE)
    which, group = (groups.amax(2) >= bounds).nonzero(as_tuple=True)
    number, member = (groups[which, group] >= bounds[which]).nonzero(as_tuple=True)
    return which[number], group[number] * GROUP_SIZE + member


def _exact_similarities(queries: Tensor, rows: Tensor, query: Tensor, row: Tensor) -> Tensor:
    """The similarities of pairs of queries float64 [q, F] and rows [r, F], rounded: float32 [pairs]."""
    if len(query) > DENSE_SHARE * len(queries) * len(rows):
        return (queries @ rows.T)[query, row].float()
    pairs = zip(*(x.split(max(1, PAIR_ENTRIES // queries.shape[1])) for x in (query, row)), strict=True)
    return torch.cat([queries[q].mul_(rows[r]).sum(1) for q, r in pairs]).float()
