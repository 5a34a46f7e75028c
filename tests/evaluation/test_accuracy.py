"""Accuracies against loops and sorting."""

from __future__ import annotations

import numpy as np
import pytest

from cacl.evaluation.accuracy import NEVER_GUESSED, accuracy_by_class, confusion_matrix, true_class_ranks


def random_scores(seed: int, videos: int = 200, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Scores of few values, so that many are equal, and some that are -inf."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (videos, classes)).astype(float)
    scores[scores == 0] = -np.inf
    scores[np.arange(videos), rng.integers(0, classes, videos)] = 2
    return scores, rng.integers(0, classes, videos)


@pytest.mark.parametrize("seed", range(5))
def test_ranks_against_sorting(seed: int) -> None:
    scores, classes = random_scores(seed)
    for row, true_class, rank in zip(scores, classes, true_class_ranks(scores, classes), strict=True):
        guesses = sorted((c for c in range(7) if row[c] > -np.inf), key=lambda c: (-row[c], c))
        assert rank == (guesses.index(true_class) if true_class in guesses else NEVER_GUESSED)


def test_confusions_against_a_loop() -> None:
    scores, classes = random_scores(0)
    counts = np.zeros((7, 7), int)
    for row, true_class in zip(scores, classes, strict=True):
        counts[true_class, list(row).index(max(row))] += 1
    found = confusion_matrix(scores, classes)
    assert found.tolist() == counts.tolist()
    hits = true_class_ranks(scores, classes) == 0
    assert hits.sum() == np.trace(found)
    np.testing.assert_allclose(accuracy_by_class(hits, classes, 7), np.diag(found) / found.sum(1))


def test_a_class_without_videos_has_no_accuracy() -> None:
    found = accuracy_by_class(np.array([True, False, True]), np.array([0, 0, 2]), 3)
    np.testing.assert_array_equal(found, [0.5, np.nan, 1])
