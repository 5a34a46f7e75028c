"""The scores of a retrieval: recall at k, average precision, what they are by chance, and how sure their means are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from cacl.evaluation.search import nearest, unit_rows

SIMILARITY_ENTRIES = 2**26
"""The number of similarities that `average_precisions` has in memory at once, or those of one query."""
GALLERY_ENTRIES = 2**22
"""The number of entries of the gallery that it has in memory as float64 at once."""
SORTED_ENTRIES = 2**22
"""The number of similarities that it sorts at once, or those of one query."""
DRAWN_ENTRIES = 2**20
"""The number of drawn values that `bootstrap_interval` has in memory at once, or those of one draw."""
RESAMPLES = 1000
"""The number of times that `bootstrap_interval` draws the queries anew."""
CONFIDENCE = 0.95
"""The share of the resampled means that an interval holds."""


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
        queries: Floats [Q, F], one feature per query.
        gallery: Floats [G, F], one feature per video of the gallery.
        query_labels: The Q labels of the queries.
        gallery_labels: The G labels of the gallery.
        top_k: The values of k. A k beyond G counts the whole gallery.

    Returns:
        The recall for each k, from 0 to 1.
    """
    return hits_at(queries, gallery, query_labels, gallery_labels, top_k).mean(0).tolist()


def hits_at(
    queries: np.ndarray,
    gallery: np.ndarray,
    query_labels: Sequence[str],
    gallery_labels: Sequence[str],
    top_k: Sequence[int],
    device: str | torch.device = "cpu",
) -> np.ndarray:
    """Tells for every query whether its label is among the k most similar videos of the gallery.

    Args:
        queries: As for `recall_at`, which is the mean over the queries.
        gallery: As for `recall_at`, like everything up to `top_k`. It may be memory-mapped.
        query_labels: The Q labels of the queries.
        gallery_labels: The G labels of the gallery.
        top_k: The values of k.
        device: The device that searches.

    Returns:
        Booleans [Q, K], one column for each k.
    """
    found, _ = nearest(queries, gallery, max(top_k), device)
    return hits_among(found, query_labels, gallery_labels, top_k)


def hits_among(
    found: np.ndarray, query_labels: Sequence[str], gallery_labels: Sequence[str], top_k: Sequence[int]
) -> np.ndarray:
    """Does what `hits_at` does with the nearest videos, where these are known.

    Args:
        found: The positions of the nearest videos in the gallery, int64 [Q, N], the nearest first. N is at least the
            largest k, or G.
        query_labels: The Q labels of the queries.
        gallery_labels: The G labels of the gallery.
        top_k: The values of k.

    Returns:
        Booleans [Q, K], one column for each k.
    """
    matches = np.asarray(gallery_labels)[found] == np.asarray(query_labels)[:, None]
    hits = np.maximum.accumulate(matches, axis=1)
    return hits[:, [min(k, hits.shape[1]) - 1 for k in top_k]]


@torch.no_grad()
def average_precisions(
    queries: np.ndarray,
    gallery: np.ndarray,
    query_labels: Sequence[str],
    gallery_labels: Sequence[str],
    device: str | torch.device = "cpu",
) -> np.ndarray:
    """Computes the average precision of every query, over the whole gallery in the order of its similarity.

    It is the mean, over the gallery videos of the label of the query, of the share of that label among all videos up to
    this one. Of equally similar videos the earlier one in the gallery comes first, as for `recall_at`; scikit-learn's
    `average_precision_score` would count all of them as one step. A label that the gallery does not have gives 0.

    Args:
        queries: As for `recall_at`; the mean over the queries is the mean average precision.
        gallery: As for `recall_at`. A memory-mapped array is read once for some of the queries after the other.
        query_labels: The Q labels of the queries.
        gallery_labels: The G labels of the gallery.
        device: The device that sorts.

    Returns:
        float64 [Q], from 0 to 1.
    """
    number_of = {label: number for number, label in enumerate(sorted({*query_labels, *gallery_labels}))}
    wanted, known = (
        torch.tensor([number_of[label] for label in labels], device=device) for labels in (query_labels, gallery_labels)
    )
    results = []
    for rows in _slices(len(queries), SIMILARITY_ENTRIES // len(gallery)):
        exact_queries = unit_rows(queries[rows], device)
        similarities = torch.empty(len(exact_queries), len(gallery), device=device)
        for part in _slices(len(gallery), GALLERY_ENTRIES // gallery.shape[1]):
            similarities[:, part] = (exact_queries @ unit_rows(gallery[part], device).T).float()
        for few in _slices(len(similarities), SORTED_ENTRIES // len(gallery)):
            order = similarities[few].sort(dim=1, descending=True, stable=True).indices
            results.append(_average_precisions(known[order] == wanted[rows][few, None]))
    return torch.cat(results).cpu().numpy()


def _average_precisions(matches: Tensor) -> Tensor:
    """The average precisions, float64 [Q], of videos in their order that have the label or not: booleans [Q, G]."""
    ranks = torch.arange(1, matches.shape[1] + 1, device=matches.device)
    precisions = matches.cumsum(1) / ranks.double()
    return (precisions * matches).sum(1) / matches.sum(1).clamp(min=1)


def _slices(count: int, step: int) -> Iterator[slice]:
    """Divides `count` things into slices of `step` of them, at least one."""
    return (slice(start, start + max(1, step)) for start in range(0, count, max(1, step)))


def bootstrap_interval(
    values: np.ndarray, seed: int = 0, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> tuple[np.ndarray, np.ndarray]:
    """Computes an interval for the mean over videos by the percentile bootstrap (Efron, 1979).

    Videos are drawn with replacement, as many as there are, again and again. The interval holds the middle of the means
    that this gives. It tells how much the choice of the videos matters, and nothing of another training.

    Args:
        values: Numbers [N, ...], one row for each of N videos.
        seed: The seed of the draws. The same seed draws the same videos, so that two features can be compared.
        resamples: The number of draws of N videos.
        confidence: The share of the means that lie between the two ends.

    Returns:
        The lower and the upper end, floats [...]. They are linear between the two nearest of the sorted means.
    """
    count = len(values)
    # The bits are Philox 4x64-10, which numpy keeps for ever, unlike what Generator.integers makes of them.
    bits = np.random.Philox(key=seed)
    means = np.empty((resamples, *values.shape[1:]))
    for rows in _slices(resamples, DRAWN_ENTRIES // max(1, values.size)):
        drawn = (bits.random_raw((len(means[rows]), count)) >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)
        means[rows] = values[drawn.astype(np.int64)].mean(1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high


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


def average_precision_by_chance(query_labels: Sequence[str], gallery_labels: Sequence[str]) -> float:
    """Computes the mean average precision when the gallery is in random order.

    For a query with n of the G gallery videos of its label it is the mean over the ranks r = 1 to G of
    (1 + (r - 1) (n - 1) / (G - 1)) / r: the video at rank r is of the label with probability n / G, and then each video
    before it with probability (n - 1) / (G - 1).

    Args:
        query_labels: The labels of the queries.
        gallery_labels: The G labels of the gallery.

    Returns:
        The expected mean average precision, from 0 to 1.
    """
    counts, total = Counter(gallery_labels), len(gallery_labels)
    ranks = np.arange(1, total + 1)
    expected = {
        label: float(np.mean((1 + (ranks - 1) * (count - 1) / max(1, total - 1)) / ranks))
        for label, count in counts.items()
    }
    return float(np.mean([expected.get(label, 0.0) for label in query_labels]))


def _miss_probability(total: int, matching: int, k: int) -> float:
    """The probability that k of `total` videos, drawn without replacement, hold none of the matching ones."""
    drawn = np.arange(k)
    return float(np.prod(np.clip((total - matching - drawn) / (total - drawn), 0, None)))
