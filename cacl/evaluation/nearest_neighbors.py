"""k-NN: the nearest training videos of a video vote for its class, the nearer the more.

The vote is that of Wu et al. (CVPR 2018, section 3.4) and of DINO (Caron et al., ICCV 2021): a neighbour whose feature
has the cosine s weighs exp(s / T), with a temperature T.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from cacl.evaluation.search import nearest

NEIGHBORS = (1, 2, 5, 10, 20, 50, 100, 200)
"""The numbers k of neighbours that are tried, as far as there are so many videos."""
TEMPERATURES = (0.02, 0.07, 0.2, 1.0)
"""The temperatures T that are tried."""


def knn_settings(num_videos: int) -> list[dict[str, float]]:
    """Returns the settings that are tried, with fewer neighbours first.

    Args:
        num_videos: The number of videos among which the neighbours are.
    """
    return [{"k": k, "T": temperature} for k in NEIGHBORS if k <= num_videos for temperature in TEMPERATURES]


def knn_scores(
    features: np.ndarray,
    train: Sequence[int],
    classes: np.ndarray,
    queries: Sequence[int],
    settings: Sequence[Mapping[str, float]],
    device: str | torch.device = "cpu",
) -> Iterator[np.ndarray]:
    """Classifies videos by the votes of their nearest neighbours, which are searched once for all settings.

    Args:
        features: Floats [V, F], the features of all videos.
        train: The positions of the videos to learn from.
        classes: Integers, the classes of these, each from 0 to C - 1 at least once.
        queries: The positions of the Q videos to classify.
        settings: The settings, each with `k` and `T`.
        device: The device that searches.

    Yields:
        For each setting the logarithm of the votes, float64 [Q, C]; -inf for a class that has none.
    """
    num_classes, largest_k = int(classes.max()) + 1, int(max(setting["k"] for setting in settings))
    positions, similarities = nearest(features[queries], features[train], largest_k, device)
    for setting in settings:
        k = int(setting["k"])
        yield vote(similarities[:, :k], classes[positions[:, :k]], num_classes, setting["T"])


def vote(similarities: np.ndarray, classes: np.ndarray, num_classes: int, temperature: float) -> np.ndarray:
    """Sums the votes of neighbours.

    Args:
        similarities: Floats [Q, k], the cosines of the neighbours of each video.
        classes: Integers [Q, k], their classes.
        num_classes: C, the number of classes.
        temperature: T, by which the cosines are divided.

    Returns:
        The logarithm of the votes, float64 [Q, C]; -inf for a class that has none.
    """
    exponents = similarities.astype(np.float64) / temperature
    largest = exponents.max(1, keepdims=True)
    votes = np.zeros((len(exponents), num_classes))
    np.add.at(votes, (np.arange(len(exponents))[:, None], classes), np.exp(exponents - largest))
    with np.errstate(divide="ignore"):
        return np.log(votes) + largest
