"""Recall at k, recall by chance, average precision and bootstrap intervals against loops and enumerations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.metrics.pairwise import cosine_similarity

from cacl.evaluation import metrics
from cacl.evaluation.metrics import (
    average_precision_by_chance,
    average_precisions,
    bootstrap_interval,
    hits_at,
    recall_at,
    recall_by_chance,
)

# ------------------------------------------------------------------------------------------------------- recall


def random_features(rng: np.random.Generator, rows: int, dim: int = 12) -> np.ndarray:
    """Random float32 [rows, dim] of a few directions and any length.

    Four entries of a row are 1 or -1 times a power of two, so that cosines are exact in float32, and many are equal.
    """
    x = np.zeros((rows, dim), np.float32)
    for row in x:
        row[rng.choice(dim, 4, replace=False)] = rng.choice([-1, 1], 4)
    return x * np.exp2(rng.integers(-3, 4, (rows, 1))).astype(np.float32)


def random_labels(rng: np.random.Generator, rows: int, classes: int = 4) -> list[str]:
    return [f"class {number}" for number in rng.integers(0, classes, rows)]


def recall_by_loop(
    queries: np.ndarray, gallery: np.ndarray, wanted: Sequence[str], known: Sequence[str], k: int
) -> float:
    """Recall in float64: a gallery video is among the k nearest if fewer than k are nearer, or as near and earlier."""
    hits = 0
    for query, label in zip(queries.astype(np.float64), wanted, strict=True):
        length = math.sqrt(sum(query**2))
        cosines = [sum(query * video) / (length * math.sqrt(sum(video**2))) for video in gallery.astype(np.float64)]
        for j, cosine in enumerate(cosines):
            ahead = sum(other > cosine or (other == cosine and i < j) for i, other in enumerate(cosines))
            if known[j] == label and ahead < k:
                hits += 1
                break
    return hits / len(queries)


TOP_K = [1, 2, 5, 10, 20, 50]


@pytest.mark.parametrize(("queries", "gallery"), [(1, 1), (1, 30), (40, 7), (30, 30)])
def test_recall_with_ties_against_a_loop(queries: int, gallery: int) -> None:
    """A k beyond the gallery counts all of it."""
    rng = np.random.default_rng((queries, gallery))
    q, g = random_features(rng, queries), random_features(rng, gallery)
    wanted, known = random_labels(rng, queries), random_labels(rng, gallery)
    expected = [recall_by_loop(q, g, wanted, known, k) for k in TOP_K]
    assert recall_at(q, g, wanted, known, TOP_K) == expected
    assert recall_at(q, g, wanted, known, TOP_K[::-1]) == expected[::-1]
    assert [recall_at(q, g, wanted, known, [k]) for k in TOP_K] == [[value] for value in expected]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_recall_without_ties_against_a_loop(dtype: type) -> None:
    rng = np.random.default_rng(0)
    q, g = (rng.standard_normal((30, 5)).astype(dtype) for _ in range(2))
    wanted, known = random_labels(rng, 30, 6), random_labels(rng, 30, 6)
    expected = [recall_by_loop(q, g, wanted, known, k) for k in TOP_K]
    assert 0 < expected[0] < expected[-1]
    assert recall_at(q, g, wanted, known, TOP_K) == expected


def test_among_equally_near_ones_the_earlier_counts() -> None:
    query, gallery = np.ones((1, 4)), np.repeat([[1.0], [2.0], [0.5]], 4, axis=1)
    assert recall_at(query, gallery, ["b"], ["a", "b", "c"], [1, 2, 3]) == [0, 1, 1]
    assert recall_at(query, gallery, ["a"], ["a", "b", "c"], [1, 2, 3]) == [1, 1, 1]
    assert recall_at(query, gallery, ["d"], ["a", "b", "c"], [1, 2, 3]) == [0, 0, 0]


@pytest.mark.parametrize(
    ("queries", "gallery", "dim"), [(1, 15, 99), (1, 73, 72), (2, 11, 216), (3, 7, 217), (6, 73, 163), (7, 13, 487)]
)
def test_copies_of_a_video_are_equally_near(queries: int, gallery: int, dim: int) -> None:
    """The matrix product must not tell them apart, as it would where it rounds some columns in another way."""
    rng = np.random.default_rng((queries, gallery, dim))
    video = rng.standard_normal((1, dim))
    near, copies = video + 0.5 * rng.standard_normal((queries, dim)), video.repeat(gallery, 0)
    for position in range(gallery):
        known = ["other"] * position + ["right"] + ["other"] * (gallery - position - 1)
        recalls = recall_at(near, copies, ["right"] * queries, known, [max(1, position), position + 1])
        assert recalls == [float(position == 0), 1.0], f"the video at {position} does not have rank {position + 1}"


def test_videos_without_features_do_not_break_the_score() -> None:
    gallery = np.array([[0.0, 0.0], [1.0, 0.0]])
    assert recall_at(gallery, gallery, ["a", "b"], ["a", "b"], [1, 2]) == [1.0, 1.0]


def test_hits_are_the_recall_of_each_query() -> None:
    rng = np.random.default_rng(0)
    q, g, wanted, known = (
        random_features(rng, 9),
        random_features(rng, 30),
        random_labels(rng, 9),
        random_labels(rng, 30),
    )
    hits = hits_at(q, g, wanted, known, TOP_K)
    assert hits.shape == (9, len(TOP_K))
    for query in range(9):
        only = slice(query, query + 1)
        assert hits[query].tolist() == recall_at(q[only], g, wanted[only], known, TOP_K)


# --------------------------------------------------------------------------------------------- average precision


def average_precision_by_loop(query: np.ndarray, gallery: np.ndarray, wanted: str, known: Sequence[str]) -> float:
    """Sums precision times the growth of recall, as the definition of scikit-learn has it, one video at a time."""
    cosines = [query @ video / math.sqrt(query @ query) / math.sqrt(video @ video) for video in gallery.astype(float)]
    order = sorted(range(len(gallery)), key=lambda position: (-cosines[position], position))
    total = sum(label == wanted for label in known)
    score = found = 0.0
    for rank, position in enumerate(order, start=1):
        before = found
        found += known[position] == wanted
        score += (found - before) / max(1, total) * (found / rank)
    return score


@pytest.mark.parametrize(("queries", "gallery"), [(1, 1), (1, 30), (40, 7), (600, 30)])
def test_average_precision_with_ties_against_a_loop(queries: int, gallery: int) -> None:
    """Some labels are not in the gallery, and one is only there."""
    rng = np.random.default_rng((queries, gallery))
    q, g = random_features(rng, queries), random_features(rng, gallery)
    wanted, known = random_labels(rng, queries, 6), [*random_labels(rng, gallery - 1), "never wanted"]
    expected = [average_precision_by_loop(x, g, label, known) for x, label in zip(q.astype(float), wanted, strict=True)]
    np.testing.assert_allclose(average_precisions(q, g, wanted, known), expected, rtol=1e-12)


def test_average_precision_against_scikit_learn() -> None:
    """Without equally near videos, which scikit-learn takes as one step."""
    rng = np.random.default_rng(0)
    q, g = (rng.standard_normal((rows, 12)).astype(np.float32) for rows in (40, 500))
    wanted, known = random_labels(rng, 40), random_labels(rng, 500)
    cosines = cosine_similarity(q.astype(float), g.astype(float))
    expected = [
        average_precision_score([other == label for other in known], row)
        for label, row in zip(wanted, cosines, strict=True)
    ]
    np.testing.assert_allclose(average_precisions(q, g, wanted, known), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["SIMILARITY_ENTRIES", "GALLERY_ENTRIES", "SORTED_ENTRIES"])
@pytest.mark.parametrize("entries", [1, 100, 7 * 12])
def test_average_precision_does_not_depend_on_what_is_in_memory(
    name: str, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few queries, or a few of the 30 videos of 12 entries, at a time."""
    rng = np.random.default_rng(0)
    q, g = random_features(rng, 30), random_features(rng, 30)
    wanted, known = random_labels(rng, 30), random_labels(rng, 30)
    expected = average_precisions(q, g, wanted, known)
    monkeypatch.setattr(metrics, name, entries)
    assert average_precisions(q, g, wanted, known).tolist() == expected.tolist()


def test_average_precision_by_hand() -> None:
    """The videos of the label have the ranks 1, 3 and 4 of 5."""
    gallery = np.array([[1, 0.1], [1, 0.2], [1, 0.3], [1, 0.4], [1, 0.5]])
    found = average_precisions(np.array([[1.0, 0], [1, 0]]), gallery, ["a", "none"], list("abaab"))
    np.testing.assert_allclose(found, [(1 + 2 / 3 + 3 / 4) / 3, 0], rtol=1e-15)


@pytest.mark.parametrize("known", ["a", "b", "ab", "aab", "abbcc", "aaaaaa", "abcabc"])
def test_average_precision_by_chance_against_every_order(known: str) -> None:
    wanted = ["a", "a", "b", "d"]
    gallery = np.column_stack([np.ones(len(known)), np.arange(len(known))])
    scores = [
        average_precisions(np.tile([1.0, 0], (4, 1)), gallery, wanted, o).mean() for o in itertools.permutations(known)
    ]
    assert average_precision_by_chance(wanted, list(known)) == pytest.approx(np.mean(scores), abs=1e-12)


# --------------------------------------------------------------------------------------------- bootstrap intervals


def test_bootstrap_of_two_videos_is_binomial() -> None:
    """The mean of two draws is 0, 1/2 or 1 in a quarter, a half and a quarter of the resamples."""
    values = np.array([0.0, 1.0])
    for confidence, ends in ((0.45, (0.5, 0.5)), (0.55, (0, 1))):  # a quarter of the resamples lies below 1/2
        assert bootstrap_interval(values, resamples=20_000, confidence=confidence) == ends


def test_bootstrap_has_the_quantiles_of_the_binomial_distribution() -> None:
    """The sum of N draws from hits and misses is binomial, whose quantiles scipy would give, too."""
    count, hits, resamples = 37, 26, 20_000
    values = np.arange(count) < hits
    low, high = bootstrap_interval(np.stack([values, ~values], 1), resamples=resamples)
    p = hits / count
    cumulative = np.cumsum([math.comb(count, n) * p**n * (1 - p) ** (count - n) for n in range(count + 1)])
    expected = [np.searchsorted(cumulative, 0.025) / count, np.searchsorted(cumulative, 0.975) / count]
    np.testing.assert_allclose([low[0], high[0]], expected, atol=1e-12)
    np.testing.assert_allclose([low[1], high[1]], [1 - high[0], 1 - low[0]], atol=1e-12)  # the same videos are drawn


@pytest.mark.parametrize("entries", [1, 15, metrics.DRAWN_ENTRIES])
def test_bootstrap_draws_the_same_videos_for_the_same_seed_for_ever(
    entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One draw, three of them, or all are in memory at once."""
    monkeypatch.setattr(metrics, "DRAWN_ENTRIES", entries)
    values = np.arange(5.0)
    ends = [bootstrap_interval(values, seed, resamples=10) for seed in (0, 0, 1)]
    assert ends[0] == ends[1]
    assert ends[0] != ends[2]
    draws = [[int(word) >> 32 for word in np.random.Philox(key=0).random_raw(50)][n * 5 : n * 5 + 5] for n in range(10)]
    means = [np.mean([word * 5 // 2**32 for word in draw]) for draw in draws]
    np.testing.assert_allclose(ends[0], np.quantile(means, [0.025, 0.975]), rtol=1e-14)


# --------------------------------------------------------------------------------------------- recall by chance


@pytest.mark.parametrize("known", ["a", "b", "ab", "aab", "abbcc", "aaaaaa", "abcabc"])
def test_recall_by_chance_against_every_order(known: str) -> None:
    ranks, wanted = [1, 2, 3, 5, 9], ["a", "a", "b", "d"]
    orders = list(itertools.permutations(known))
    for k, recall in zip(ranks, recall_by_chance(wanted, list(known), ranks), strict=True):
        hits = sum(label in order[:k] for order in orders for label in wanted)
        assert recall == pytest.approx(hits / len(orders) / len(wanted), abs=1e-12)


def test_recall_by_chance_is_the_mean_of_recall_at() -> None:
    """The features know nothing here, and the mean over many draws agrees within four standard errors."""
    rng = np.random.default_rng(1)
    wanted, known, ranks, repeats = random_labels(rng, 20, 9), random_labels(rng, 40, 9), [1, 5, 20, 39], 400
    seen = np.array(
        [
            recall_at(rng.standard_normal((20, 6)), rng.standard_normal((40, 6)), wanted, known, ranks)
            for _ in range(repeats)
        ]
    )
    error = seen.std(0, ddof=1) / math.sqrt(repeats)
    assert (np.abs(seen.mean(0) - recall_by_chance(wanted, known, ranks)) <= 4 * error + 1e-12).all()


def test_recall_by_chance_of_large_galleries_is_binomial() -> None:
    """UCF101 has 9537 training videos, 94 of which are of one class."""
    known = ["a"] * 94 + ["b"] * (9537 - 94)
    expected = [1 - math.comb(9537 - 94, k) / math.comb(9537, k) for k in TOP_K]
    np.testing.assert_allclose(recall_by_chance(["a"], known, TOP_K), expected, rtol=1e-10)
