"""Action recognition on frozen features: what simple classifiers make of them.

A video has evenly spaced clips, cropped at the centre, and the mean of their features stands for it: of their vectors,
or of their tokens, position by position. A classifier chooses its settings on the validation videos, and where there
are none on some that are drawn of the training videos. It then learns from the training and the validation videos with
these settings, and each test video is classified once. The test videos decide nothing. Beside the trained encoders
stand the same ones untrained, and baselines that look at nothing but pixels or the format of the file.

A fine-tuned network classifies on its own: what it makes of the test videos becomes a `Classification` by
`Classification.of_scores`, like everything else here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from cacl import distributed
from cacl.checkpoints.encoders import EncoderWeights
from cacl.config import Config
from cacl.evaluation import baselines, features
from cacl.evaluation.accuracy import accuracy_by_class, confusion_matrix, true_class_ranks
from cacl.evaluation.attentive_probe import attentive_scores, attentive_settings
from cacl.evaluation.feature_points import evaluated_features
from cacl.evaluation.linear_probe import linear_scores, linear_settings
from cacl.evaluation.metrics import bootstrap_interval
from cacl.evaluation.nearest_neighbors import knn_scores, knn_settings
from cacl.evaluation.videos import check_fixed_keys, scan_videos, video_labels, videos_of_split
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.validation_split import with_validation
from cacl.reporting.console import Console

log = logging.getLogger(__name__)


class Classifier(NamedTuple):
    """A way to classify videos by their features."""

    title: str
    """Its name for people."""
    settings: Callable[[int], Sequence[Mapping[str, float]]]
    """A function of the number of training videos: the settings to choose from. The first of equally good ones wins."""
    scores: Callable[..., Iterator[np.ndarray]]
    """A function (features, train, classes, queries, settings, device) of the features of all videos, the positions of
    the training videos, their classes, and the positions of Q videos. It yields scores [Q, C] for each setting."""
    takes_tokens: bool = False
    """Whether the features of encoders that it takes are their tokens, [V, N, F], and not vectors, [V, F]."""


CLASSIFIERS = {
    "knn": Classifier("k-NN", knn_settings, knn_scores),
    "linear": Classifier("linear probe", linear_settings, linear_scores),
    "attentive": Classifier("attentive probe", attentive_settings, attentive_scores, takes_tokens=True),
}
"""The classifiers by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """The videos that a classifier learns from, chooses its settings on and is judged by: positions in a catalog."""

    train: list[int]
    validation: list[int]
    test: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """How well test videos are classified. Accuracies are from 0 to 1."""

    top1: float
    """The share of videos whose class is guessed first."""
    top1_interval: tuple[float, float]
    """The bounds of `top1`, by the bootstrap over videos."""
    top5: float
    """The share of videos whose class is among the first five guesses."""
    top5_interval: tuple[float, float]
    """The bounds of `top5`."""
    mean_per_class: float
    """The mean, over the classes of the test videos, of the share that is guessed first."""
    per_class: dict[str, float]
    """These shares by class."""
    confusion: np.ndarray
    """int64 [C, C]: how many videos of the class of the row are taken for the class of the column."""
    guesses: np.ndarray
    """int64 [V]: the class that is guessed first for each video."""
    confidences: np.ndarray
    """float64 [V]: the probabilities of these guesses."""

    @classmethod
    def of_scores(
        cls,
        scores: np.ndarray,
        true_classes: np.ndarray,
        classes: Sequence[str],
        probabilities: np.ndarray | None = None,
    ) -> Classification:
        """Judges the scores of the classes.

        Args:
            scores: Floats [V, C], the scores of each test video; -inf for a class that is never guessed.
            true_classes: Integers [V], the true classes.
            classes: The names of the C classes.
            probabilities: Floats [V, C], the probabilities of the classes; None takes the softmax of the scores.

        Returns:
            The accuracies.
        """
        ranks = true_class_ranks(scores, true_classes)
        by_class = accuracy_by_class(ranks == 0, true_classes, len(classes))
        hits = np.stack([ranks == 0, ranks < 5], 1)
        low, high = bootstrap_interval(hits)
        guesses = scores.argmax(1)
        if probabilities is None:
            probabilities = torch.from_numpy(np.asarray(scores, np.float64)).softmax(1).numpy()
        return cls(
            top1=float(hits[:, 0].mean()),
            top1_interval=(float(low[0]), float(high[0])),
            top5=float(hits[:, 1].mean()),
            top5_interval=(float(low[1]), float(high[1])),
            mean_per_class=float(np.nanmean(by_class)),
            per_class={name: float(value) for name, value in zip(classes, by_class, strict=True) if value == value},
            confusion=confusion_matrix(scores, true_classes),
            guesses=guesses,
            confidences=probabilities[np.arange(len(scores)), guesses],
        )

    @classmethod
    def of_majority(cls, counts: np.ndarray, true_classes: np.ndarray, classes: Sequence[str]) -> Classification:
        """Judges what takes no look at the videos, and guesses the most frequent classes.

        Args:
            counts: Integers [C], the number of videos of each class to learn from.
            true_classes: As for `of_scores`, like what follows.
            classes: The names of the classes.

        Returns:
            The accuracies.
        """
        with np.errstate(divide="ignore"):
            return cls.of_scores(np.log(counts)[None].repeat(len(true_classes), 0), true_classes, classes)

    def to_json(self) -> dict[str, Any]:
        """Returns the accuracies as values that JSON can hold."""
        return {
            "top1": self.top1,
            "top1_interval": list(self.top1_interval),
            "top5": self.top5,
            "top5_interval": list(self.top5_interval),
            "mean_per_class": self.mean_per_class,
            "per_class": self.per_class,
            "confusion": self.confusion.tolist(),
        }


class Result(NamedTuple):
    """What a classifier makes of a feature."""

    setting: Mapping[str, float]
    """The setting that was chosen; empty where there is nothing to choose."""
    validation_top1: float | None
    """The share of validation videos that this setting guesses first; None where there is nothing to choose."""
    classification: Classification
    """How well the test videos are classified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecognitionTable:
    """What one classifier makes of every feature, with the videos labelled in one way."""

    label: str
    """The name of the labelling: `label`, or another column of the data set's lists."""
    classifier: str
    """The classifier, a key of `CLASSIFIERS`."""
    split: Literal["test", "val"]
    """The split whose videos are classified."""
    validation_is_drawn: bool
    """Whether the validation videos were drawn of the training videos."""
    num_train: int
    """The number of videos to learn from while settings are chosen."""
    num_validation: int
    """The number of videos that settings are chosen on."""
    num_test: int
    """The number of videos that are classified."""
    classes: list[str]
    """The names of the C classes, in the order of the rows and columns of confusion matrices."""
    chance: tuple[float, float]
    """Top-1, which is also the mean per class, and top-5 of a guess among the classes of the training videos."""
    results: dict[str, Result]
    """The results by name of the feature, and `majority`, which guesses the most frequent classes."""
    catalog: Catalog = field(compare=False)
    """The videos that are classified, in the order of `Classification.guesses`."""

    def to_json(self) -> dict[str, Any]:
        """Returns the table as values that JSON can hold."""
        top1, top5 = self.chance
        return {
            "label": self.label,
            "classifier": self.classifier,
            "split": self.split,
            "validation": "drawn from training" if self.validation_is_drawn else "val",
            "videos": {"train": self.num_train, "validation": self.num_validation, "test": self.num_test},
            "classes": self.classes,
            "chance": {"top1": top1, "top5": top5, "mean_per_class": top1},
            "results": {
                name: {
                    "setting": dict(result.setting),
                    "validation_top1": result.validation_top1,
                    **result.classification.to_json(),
                }
                for name, result in self.results.items()
            },
        }


def evaluate_recognition(
    weights: EncoderWeights,
    config: Config,
    labels: Sequence[str],
    folder: Path,
    classifiers: Sequence[str] = tuple(CLASSIFIERS),
    split: Literal["test", "val"] = "test",
    points: Sequence[str] = ("vector",),
) -> list[RecognitionTable]:
    """Evaluates trained encoders by classifiers on their features.

    All ranks compute features, and rank 0 alone classifies.

    Args:
        weights: The trained encoders.
        config: The configuration that came with the weights, with the data to evaluate on.
        labels: The labellings to evaluate by: `label`, or the names of other columns of the data set's lists.
        folder: The folder that keeps the features. They are those of all videos, whatever their split.
        classifiers: The classifiers, keys of `CLASSIFIERS`.
        split: The split whose videos are classified.
        points: Where the features are taken from the encoders, as `FEATURE_POINTS` names it. A classifier that takes
            tokens does without them.

    Returns:
        One table for each of `labels` and `classifiers`; on other ranks than 0 none.

    Raises:
        UsageError: The configuration differs from that of the weights in a key that the weights decide, or the encoders
            have no such feature.
        DataError: A video cannot be loaded, a split or a label is missing, or no setting can be chosen.
    """
    check_fixed_keys(weights, config)
    with distributed.process_group(config.train.device) as device, Console(enabled=distributed.rank() == 0) as console:
        catalog = scan_videos(config, console)
        test, train = videos_of_split(catalog, split), videos_of_split(catalog, "train")
        labels_by_name = {label: video_labels(catalog, label, test, train) for label in labels}
        divisions = {label: divide(catalog, label, split, config.recognition.val_share) for label in labels}
        on_progress = partial(console.progress, "features")
        takes_tokens = {CLASSIFIERS[name].takes_tokens for name in classifiers}
        points = points if False in takes_tokens else ()
        functions = evaluated_features(weights, config, device, points, tokens=True in takes_tokens)
        arrays = features.video_features(functions, weights.digest, config, catalog, device, folder, on_progress)
        arrays = {"size and length": baselines.size_and_length(catalog.videos), **arrays}
        if distributed.rank() > 0:
            return []
        return [
            _table(
                label,
                labels_by_name[label],
                name,
                split,
                *divisions[label],
                _taken_by(name, arrays),
                catalog.of_split(split),
                device,
            )
            for label in labels
            for name in classifiers
        ]


def divide(catalog: Catalog, label: str, split: Literal["test", "val"], val_share: float) -> tuple[Division, bool]:
    """Chooses the validation videos: those of the split `val` that have a label, unless that split is judged itself.

    Args:
        catalog: The videos of the data set.
        label: `label`, or the name of another column of the lists of the data set.
        split: The split whose videos are classified.
        val_share: The share of each class that is drawn of the training videos where there are no others.

    Returns:
        The division, and whether the validation videos were drawn of the training videos.

    Raises:
        DataError: No validation video can be drawn.
    """
    train, test = videos_of_split(catalog, "train"), videos_of_split(catalog, split)
    if split == "test":
        validation = [i for i, video in enumerate(catalog.videos) if video.split == "val" and video.label_in(label)]
        if validation:
            return Division(train=train, validation=validation, test=test), False
    divided = with_validation(catalog.of_split("train"), label, val_share)
    validation = [i for i, video in zip(train, divided.videos, strict=True) if video.split == "val"]
    return Division(train=sorted({*train} - {*validation}), validation=validation, test=test), True


def _taken_by(classifier: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The features that a classifier takes: all baselines, and either the tokens of the encoders or the others."""
    tokens, of_all = CLASSIFIERS[classifier].takes_tokens, ("size and length", *baselines.BASELINES_OF_CLIPS)
    return {name: array for name, array in arrays.items() if name in of_all or (array.ndim == 3) == tokens}


def _table(
    label: str,
    labels: Sequence[str],
    classifier: str,
    split: Literal["test", "val"],
    division: Division,
    validation_is_drawn: bool,
    arrays: Mapping[str, np.ndarray],
    catalog: Catalog,
    device: torch.device,
) -> RecognitionTable:
    learnt = division.train + division.validation
    classes = sorted({labels[i] for i in learnt + division.test})
    number_of = {name: number for number, name in enumerate(classes)}
    numbers = np.array([number_of.get(name, -1) for name in labels])
    counts = np.bincount(numbers[learnt], minlength=len(classes))
    majority = Classification.of_majority(counts, numbers[division.test], classes)
    results = {"majority": Result({}, None, majority)}
    for name, array in arrays.items():
        results[name] = _result(CLASSIFIERS[classifier], array, numbers, classes, division, device)
    known = int(np.count_nonzero(counts))
    return RecognitionTable(
        label=label,
        classifier=classifier,
        split=split,
        validation_is_drawn=validation_is_drawn,
        num_train=len(division.train),
        num_validation=len(division.validation),
        num_test=len(division.test),
        classes=classes,
        chance=(1 / known, min(5, known) / known),
        results=results,
        catalog=catalog,
    )


def _result(
    classifier: Classifier,
    array: np.ndarray,
    numbers: np.ndarray,
    classes: Sequence[str],
    division: Division,
    device: torch.device,
) -> Result:
    """Chooses the setting on the validation videos, learns from them too, and classifies the test videos."""

    def scores(train: list[int], queries: list[int], settings: Sequence[Mapping[str, float]]) -> Iterator[np.ndarray]:
        known, train_classes = np.unique(numbers[train], return_inverse=True)
        for found in classifier.scores(array, train, train_classes, queries, settings, device):
            whole = np.full((len(queries), len(classes)), -np.inf)  # a class that was never seen is never guessed
            whole[:, known] = found
            yield whole

    settings = classifier.settings(len(division.train))
    ranks = [
        true_class_ranks(found, numbers[division.validation])
        for found in scores(division.train, division.validation, settings)
    ]
    quality = [((rank == 0).mean(), (rank < 5).mean()) for rank in ranks]
    best = max(range(len(settings)), key=quality.__getitem__)  # the first of equal ones
    (found,) = scores(division.train + division.validation, division.test, [settings[best]])
    classification = Classification.of_scores(found, numbers[division.test], classes)
    return Result(settings[best], float(quality[best][0]), classification)
