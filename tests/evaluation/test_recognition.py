"""Who may decide what in a recognition: settings are chosen on validation videos, and test videos decide nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from cacl.clips import VideoRecord
from cacl.errors import DataError
from cacl.evaluation.recognition import CLASSIFIERS, Classification, Division, _result, divide
from cacl.loaders.catalog.catalog import Catalog

CPU = torch.device("cpu")
CLASSES = ["a", "b", "c"]


def catalog(splits: list[str], labels: list[str]) -> Catalog:
    videos = tuple(
        VideoRecord(
            path=f"{number}.mp4",
            frames=8,
            declared_frames=8,
            rate=25.0,
            width=32,
            height=24,
            codec="h264",
            label=label or None,
            split=split,
        )
        for number, (split, label) in enumerate(zip(splits, labels, strict=True))
    )
    return Catalog(root=Path("/set"), layout="csv", videos=videos, rejected=(), missing=())


def test_validation_videos_are_those_of_the_set() -> None:
    labels = ["a", "b", "a", "", "a", "b"]
    division, is_drawn = divide(catalog(["train", "train", "val", "val", "test", "test"], labels), "label", "test", 0.5)
    assert (division, is_drawn) == (Division(train=[0, 1], validation=[2], test=[4, 5]), False)


@pytest.mark.parametrize("split", ["test", "val"])
def test_validation_videos_are_drawn_of_the_training_videos_alone(split: Literal["test", "val"]) -> None:
    """Those of the split `val` cannot be chosen on while they are judged themselves."""
    splits = ["train"] * 40 + [split] * 10
    labels = ["a", "b"] * 25
    division, is_drawn = divide(catalog(splits, labels), "label", split, 0.2)
    assert is_drawn
    assert sorted(division.train + division.validation) == list(range(40))
    assert 2 <= len(division.validation) <= 16
    assert {labels[i] for i in division.validation} == {labels[i] for i in division.train} == {"a", "b"}
    assert division.test == list(range(40, 50))


def test_nothing_can_be_drawn_of_classes_of_one() -> None:
    labels = ["a", "b", "c", "a"]
    with pytest.raises(DataError, match=r"^/set: no class of 'label' has two training videos"):
        divide(catalog(["train", "train", "train", "test"], labels), "label", "test", 0.2)


def problem(name: str) -> tuple[np.ndarray, np.ndarray, Division]:
    """Features of 90 videos that tell a little of three classes. Where a classifier takes tokens, one of four does."""
    rng = np.random.default_rng(0)
    numbers = np.arange(90) % 3
    features = rng.standard_normal((90, 5)) + 0.8 * rng.standard_normal((3, 5))[numbers]
    if CLASSIFIERS[name].takes_tokens:
        features = np.concatenate([features[:, None], rng.standard_normal((90, 3, 5))], 1)
    return features, numbers, Division(train=[*range(40)], validation=[*range(40, 60)], test=[*range(60, 90)])


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_test_videos_decide_nothing(name: str) -> None:
    """Whatever their features and classes are, setting and accuracy on the validation videos are the same, and a video
    is guessed as it would be alone."""
    features, numbers, division = problem(name)
    found = _result(CLASSIFIERS[name], features, numbers, CLASSES, division, CPU)
    others, relabelled = features.copy(), numbers.copy()
    others[61:], relabelled[61:] = 100.0, 0
    again = _result(CLASSIFIERS[name], others, relabelled, CLASSES, division, CPU)
    assert (again.setting, again.validation_top1) == (found.setting, found.validation_top1)
    alone = Division(train=division.train, validation=division.validation, test=[60])
    one = _result(CLASSIFIERS[name], features, numbers, CLASSES, alone, CPU)
    assert one.classification.confusion.sum() == 1
    assert (one.classification.confusion <= found.classification.confusion).all()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_setting_is_the_first_of_the_best(name: str) -> None:
    features, numbers, division = problem(name)
    classifier = CLASSIFIERS[name]
    settings = classifier.settings(40)
    accuracies = []
    for setting in settings:  # one at a time
        (scores,) = classifier.scores(features, division.train, numbers[:40], division.validation, [setting], CPU)
        accuracies.append((scores.argmax(1) == numbers[40:60]).mean())
    assert min(accuracies) < max(accuracies)
    found = _result(classifier, features, numbers, CLASSES, division, CPU)
    assert found.validation_top1 == max(accuracies)
    assert found.setting == settings[accuracies.index(max(accuracies))]  # all three classes are among the first five


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_chosen_setting_learns_from_validation_videos_too(name: str) -> None:
    """One class is seen in validation videos only."""
    features, numbers, division = problem(name)
    numbers = np.where((numbers == 2) & (np.arange(90) < 40), 0, numbers)
    features[numbers == 2] += 10
    found = _result(CLASSIFIERS[name], features, numbers, CLASSES, division, CPU)
    assert found.classification.per_class["c"] == 1


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_class_that_nobody_could_learn_is_never_guessed(name: str) -> None:
    features, numbers, division = problem(name)
    numbers = np.where((numbers == 1) & (np.arange(90) < 60), 0, numbers)
    found = _result(CLASSIFIERS[name], features, numbers, CLASSES, division, CPU).classification
    assert found.per_class["b"] == 0
    assert not found.confusion[:, 1].any()
    assert found.top5 == pytest.approx(2 / 3)  # a third of the videos are of this class


def test_accuracies_of_scores_by_hand() -> None:
    scores = np.array([[3, 2, 1.0], [3, 2, 1], [1, 2, 3], [-np.inf, 0, -1]])
    found = Classification.of_scores(scores, np.array([0, 1, 2, 0]), CLASSES)
    assert (found.top1, found.top5) == (0.5, 0.75)
    assert found.per_class == {"a": 0.5, "b": 0, "c": 1}
    assert found.mean_per_class == 0.5
    assert found.confusion.tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert 0 <= found.top1_interval[0] < 0.5 < found.top1_interval[1] <= 1
    assert found.guesses.tolist() == [0, 0, 2, 1]
    sure = np.exp(3) / np.exp([1, 2, 3]).sum()
    np.testing.assert_allclose(found.confidences, [sure, sure, sure, 1 / (1 + np.exp(-1))])


def test_probabilities_that_are_known_are_the_confidences() -> None:
    probabilities = np.array([[0.2, 0.5, 0.3], [0.6, 0.0, 0.4]])
    found = Classification.of_scores(probabilities, np.array([1, 2]), CLASSES, probabilities)
    assert (found.guesses.tolist(), found.confidences.tolist()) == ([1, 0], [0.5, 0.6])


def test_the_majority_is_as_sure_as_it_is_frequent() -> None:
    found = Classification.of_majority(np.array([1, 3, 0]), np.array([1, 0, 2]), CLASSES)
    assert (found.top1, found.top5) == (1 / 3, 2 / 3)  # nobody guesses the class without videos
    assert found.guesses.tolist() == [1, 1, 1]
    np.testing.assert_allclose(found.confidences, 3 / 4)
