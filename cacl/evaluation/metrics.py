"""The scores of a retrieval: recall at k, and what it would be by chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

QUERY_CHUNK_SIZE = 512
"""The number of queries that are compared with the gallery at once."""


def recall_at(
    queries: np.ndarray,
    gallery: np.ndarray,
    query_labels: Sequence[str],
    gallery_labels: Sequence[str],
    top_k: Sequence[int],
) -> list[float]:
    """Computes recall at k: the share of queries with their label among the k most similar videos of the gallery.

    Similarity is the cosine. Of videos that are equally similar, the earlier one in the gallery counts as nearer.

    Args:
        queries: Floats [Q, D], one feature per query.
        gallery: Floats [G, D], one feature per video of the gallery.
        query_labels: The Q labels of the queries.
        gallery_labels: The G labels of the gallery.
        top_k: The values of k. A k beyond G counts the whole gallery.

    Returns:
        The recall for each k, from 0 to 1.
    """
    gallery = _unit_rows(gallery)
    known_labels = np.asarray(gallery_labels)
    depth = min(max(top_k), len(gallery))
    hits = np.zeros(depth)
    for start in range(0, len(queries), QUERY_CHUNK_SIZE):
        stop = start + QUERY_CHUNK_SIZE
        # Rounded from float64, so that copies of a video are equally similar wherever they stand in the gallery.
        similarity = (_unit_rows(queries[start:stop]) @ gallery.T).astype(np.float32)
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :depth]
        matches = known_labels[nearest] == np.asarray(query_labels[start:stop])[:, None]
        hits += np.maximum.accumulate(matches, axis=1).sum(0)
    return [float(hits[min(k, depth) - 1] / len(queries)) for k in top_k]


def recall_by_chance(query_labels: Sequence[str], gallery_labels: Sequence[str], top_k: Sequence[int]) -> list[float]:
    """Computes the recall that `recall_at` gives on average when the gallery is in random order.

    For a query with n of the G gallery videos of its label it is 1 - C(G - n, k) / C(G, k).

    Args:
        query_labels: The labels of the queries.
        gallery_labels: The G labels of the gallery.
        top_k: The values of k. A k beyond G counts the whole gallery.

    Returns:
        The expected recall for each k, from 0 to 1.
    """
    names, counts = np.unique(np.asarray(gallery_labels), return_counts=True)
    matching = dict(zip(names.tolist(), counts.tolist(), strict=True))
    total = len(gallery_labels)
    recalls = []
    for k in top_k:
        misses = [_miss_probability(total, matching.get(label, 0), min(k, total)) for label in query_labels]
        recalls.append(1 - float(np.mean(misses)))
    return recalls


def _miss_probability(total: int, matching: int, k: int) -> float:
    """The probability that k of `total` videos, drawn without replacement, hold none of the matching ones."""
    drawn = np.arange(k)
    return float(np.prod(np.clip((total - matching - drawn) / (total - drawn), 0, None)))


def _unit_rows(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
