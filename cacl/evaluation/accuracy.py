"""What a classification is worth: top-k accuracy, mean accuracy per class, and which classes are taken for which."""

from __future__ import annotations

import numpy as np

NEVER_GUESSED = np.iinfo(np.int64).max
"""The rank of a class that is not guessed, which is among the first k for no k."""


def true_class_ranks(scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Computes how many classes are guessed before the true one.

    The class of the highest score is the first guess. Of equal scores, that of the earlier class counts as higher. A
    class whose score is -inf is never guessed.

    Args:
        scores: Floats [V, C], a score of each class for each of the V videos.
        classes: Integers [V], the true classes.

    Returns:
        int64 [V]: 0 where the first guess is right, and `NEVER_GUESSED` where the true class is not guessed at all.
    """
    rows = np.arange(len(scores))
    true_scores = scores[rows, classes][:, None]
    earlier = np.arange(scores.shape[1]) < classes[:, None]
    ranks = ((scores > true_scores) | ((scores == true_scores) & earlier)).sum(1)
    return np.where(np.isneginf(true_scores[:, 0]), NEVER_GUESSED, ranks)


def accuracy_by_class(hits: np.ndarray, classes: np.ndarray, num_classes: int) -> np.ndarray:
    """Computes the share of hits among the videos of each class.

    Args:
        hits: Booleans [V], whether each video is classified rightly.
        classes: Integers [V], the true classes.
        num_classes: C, the number of classes.

    Returns:
        float64 [C], from 0 to 1; NaN for a class without videos. The mean per class leaves such classes out.
    """
    counts = np.bincount(classes, minlength=num_classes)
    with np.errstate(invalid="ignore"):
        return np.bincount(classes, weights=hits, minlength=num_classes) / counts


def confusion_matrix(scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Counts which classes are taken for which.

    Args:
        scores: Floats [V, C], a score of each class for each video. The first of the highest is the guess.
        classes: Integers [V], the true classes.

    Returns:
        int64 [C, C]: how many videos of the class of the row are taken for the class of the column.
    """
    num_classes = scores.shape[1]
    pairs = classes * num_classes + scores.argmax(1)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
