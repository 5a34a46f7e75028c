"""Scores of a retrieval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

QUERIES_AT_ONCE = 512


def recall_at(
    queries: np.ndarray,
    gallery: np.ndarray,
    query_labels: Sequence[str],
    gallery_labels: Sequence[str],
    ranks: Sequence[int],
) -> list[float]:
    """Share of queries with the right label among their k nearest in the gallery by cosine, for each k of `ranks`.

    queries: float [Q, D], gallery: float [G, D]. Among equally near ones the earlier counts as nearer. A k beyond the
    gallery counts all of it.
    """
    gallery = _unit(gallery)
    known = np.asarray(gallery_labels)
    depth = min(max(ranks), len(gallery))
    hits = np.zeros(depth)
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        stop = start + QUERIES_AT_ONCE
        # Rounded from float64, so that copies of a video are equally near wherever they stand in the gallery.
        similarity = (_unit(queries[start:stop]) @ gallery.T).astype(np.float32)
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :depth]
        right = known[nearest] == np.asarray(query_labels[start:stop])[:, None]
        hits += np.maximum.accumulate(right, axis=1).sum(0)
    return [float(hits[min(k, depth) - 1] / len(queries)) for k in ranks]


def recall_by_chance(query_labels: Sequence[str], gallery_labels: Sequence[str], ranks: Sequence[int]) -> list[float]:
    """What `recall_at` gives on average when the gallery is in random order: 1 - C(G - n, k) / C(G, k) per query,
    with n the number of gallery videos of its label."""
    names, counts = np.unique(np.asarray(gallery_labels), return_counts=True)
    matching = dict(zip(names.tolist(), counts.tolist(), strict=True))
    total = len(gallery_labels)
    recalls = []
    for k in ranks:
        misses = [_miss(total, matching.get(label, 0), min(k, total)) for label in query_labels]
        recalls.append(1 - float(np.mean(misses)))
    return recalls


def _miss(total: int, matching: int, k: int) -> float:
    """Probability that k of `total`, drawn without replacement, hold none of the matching ones."""
    drawn = np.arange(k)
    return float(np.prod(np.clip((total - matching - drawn) / (total - drawn), 0, None)))


def _unit(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
