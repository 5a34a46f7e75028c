"""k-NN against loops over videos, and against scikit-learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from cacl.evaluation.nearest_neighbors import NEIGHBORS, TEMPERATURES, knn_scores, knn_settings

CLASSES = 5


def videos(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of 60 videos with their classes, and of 20 more; some features lie there twice."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((60, 6)).astype(np.float32)
    features[50:] = 3 * features[:10]
    return features, rng.integers(0, CLASSES, 60), rng.standard_normal((20, 6)).astype(np.float32)


def votes_by_loop(
    features: np.ndarray, classes: np.ndarray, query: np.ndarray, k: int, temperature: float
) -> list[float]:
    cosines = []
    for position, feature in enumerate(features.astype(float)):
        cosine = float(np.float32(feature @ query / math.sqrt(feature @ feature) / math.sqrt(query @ query)))
        cosines.append((-cosine, position))
    votes = [0.0] * CLASSES
    for negative, position in sorted(cosines)[:k]:
        votes[classes[position]] += math.exp(-negative / temperature)
    return votes


@pytest.mark.parametrize("seed", range(3))
def test_votes_against_a_loop(seed: int) -> None:
    features, classes, queries = videos(seed)
    settings, both = knn_settings(60), np.concatenate([queries, features])
    found = knn_scores(both, range(20, 80), classes, range(20), settings)
    for setting, scores in zip(settings, found, strict=True):
        k, temperature = int(setting["k"]), setting["T"]
        expected = [votes_by_loop(features, classes, query.astype(float), k, temperature) for query in queries]
        np.testing.assert_allclose(np.exp(scores), expected, rtol=1e-4, err_msg=str(setting))


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.02), (20, 0.2), (50, 1.0)])
def test_votes_against_scikit_learn(k: int, temperature: float) -> None:
    features, classes, queries = videos(0)
    features, classes = features[:50], classes[:50]  # without those that lie there twice
    options: dict[str, Any] = {"weights": lambda distances: np.exp((1 - distances) / temperature)}
    other = KNeighborsClassifier(k, metric="cosine", **options)
    expected = other.fit(features.astype(float), classes).predict_proba(queries.astype(float))
    both = np.concatenate([features, queries])
    (scores,) = knn_scores(both, range(50), classes, range(50, 70), [{"k": k, "T": temperature}])
    votes = np.exp(scores - scores.max(1, keepdims=True))
    np.testing.assert_allclose(votes / votes.sum(1, keepdims=True), expected, atol=1e-5)


def test_classes_without_a_neighbour_have_no_vote() -> None:
    features, classes, queries = videos(0)
    both = np.concatenate([features, queries])
    (scores,) = knn_scores(both, range(60), classes, range(60, 80), [{"k": 2, "T": 0.07}])
    assert (np.isneginf(scores).sum(1) >= CLASSES - 2).all()
    assert not np.isnan(scores).any()


def test_settings_need_as_many_videos_as_neighbours() -> None:
    assert {int(setting["k"]) for setting in knn_settings(60)} == {1, 2, 5, 10, 20, 50}
    assert len(knn_settings(1000)) == len(NEIGHBORS) * len(TEMPERATURES)
    assert knn_settings(1)
