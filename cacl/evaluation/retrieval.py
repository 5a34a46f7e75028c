"""Video retrieval: does the nearest training video of a test video share its label?

The protocol is that of Guo et al. (CVPR 2022). A video has ten evenly spaced clips, cropped at the centre, and the mean
of their features is compared by cosine similarity. The test videos query the training videos, or the validation videos
do where settings are still being chosen. Beside the trained encoders stand the same ones untrained, and baselines that
look at nothing but pixels or the format of the file, so that a result is not mistaken for more than it is.

With groups, each group of videos queries all the others: leave one group out. The gallery can be another data set.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from cacl import config as configuration
from cacl import distributed
from cacl.checkpoints.encoders import EncoderWeights
from cacl.config import Config
from cacl.errors import DataError
from cacl.evaluation import baselines, features
from cacl.evaluation.feature_points import evaluated_features
from cacl.evaluation.metrics import (
    CONFIDENCE,
    RESAMPLES,
    average_precision_by_chance,
    average_precisions,
    bootstrap_interval,
    hits_among,
    recall_by_chance,
)
from cacl.evaluation.search import nearest
from cacl.evaluation.videos import check_fixed_keys, scan_videos, video_labels, videos_of_split
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.combined_catalog import combine
from cacl.reporting.console import Console

log = logging.getLogger(__name__)

NAMED_LABELS = 3
"""An error message names this many labels."""

TOP_K = (1, 5, 10, 20, 50)
"""The values of k for which recall at k is computed."""

OFFICIAL_CLIP = (16, 2, 112)
"""Frames, stride and size of a clip in the release of Guo et al. (CVPR 2022)."""
OFFICIAL_CLIPS = {
    "augment.resize": (128, 171),
    "augment.crop": (0.875, 0.875),
    "retrieval.clips_per_video": 10,
    "retrieval.clip_starts": "official",
}
"""The other keys that decide the clips, with the values that the release has."""

NEIGHBORS = 5
"""The number of nearest videos that a result has of each query."""

SCORES = (*(f"R@{k}" for k in TOP_K), "mAP")
"""The names of the scores of a feature, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureScores:
    """The scores of one feature, from 0 to 1, in the order of `SCORES`."""

    means: list[float]
    """The means over the queries."""
    intervals: list[tuple[float, float]] | None
    """The 95 % intervals of the means by the bootstrap over the queries. Chance has none."""
    by_class: dict[str, list[float]] | None
    """The means over the queries of each label. Chance has none."""
    of_queries: np.ndarray | None = field(default=None, compare=False)
    """The scores of each query, float64 [Q, len(SCORES)]. Chance has none."""
    neighbors: np.ndarray | None = field(default=None, compare=False)
    """The nearest videos of each query, the nearest first: positions in the catalog, int64 [Q, NEIGHBORS], and -1 where
    the gallery has no more. Chance has none."""
    similarities: np.ndarray | None = field(default=None, compare=False)
    """Their similarities, float32 [Q, NEIGHBORS], and NaN where there is no video. Chance has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalTable:
    """The scores of every feature, with the videos labelled in one way."""

    label: str
    """The name of the labelling: `label`, or another column of the data set's lists."""
    num_classes: int
    """The number of different labels in the gallery."""
    query_split: Literal["test", "val"] | None
    """The split whose videos query. None if every group of videos queries all the others."""
    groups: str | None
    """The column whose values are the groups, or None."""
    gallery: str | None
    """The root of the data set that is queried. None if it is that of the queries."""
    num_folds: int
    """The number of groups, or 1."""
    num_gallery: int
    """The number of videos that are queried: the training videos, or all with groups, each of which is then queried by
    the other groups."""
    scores: dict[str, FeatureScores]
    """The scores by name of the feature."""
    catalog: Catalog = field(compare=False)
    """All videos, whether they query, are queried, or neither."""
    labels: Sequence[str]
    """The labels of all videos of the catalog; "" where a video that is not needed has none."""
    queries: Sequence[int]
    """The positions of the videos that query in the catalog, in the order of `FeatureScores.of_queries`."""

    @property
    def num_queries(self) -> int:
        """The number of videos that query."""
        return len(self.queries)

    @property
    def query_paths(self) -> tuple[str, ...]:
        """The paths of the videos that query, in the order of `queries`."""
        return tuple(self.catalog.videos[video].path for video in self.queries)

    def to_json(self) -> dict[str, Any]:
        """Returns the table as values that JSON can hold."""
        values = {name: dict(zip(SCORES, scores.means, strict=True)) for name, scores in self.scores.items()}
        return {
            "label": self.label,
            "classes": self.num_classes,
            "query_split": self.query_split,
            "groups": self.groups,
            "gallery_root": self.gallery,
            "folds": self.num_folds,
            "queries": self.num_queries,
            "gallery": self.num_gallery,
            "recall": {
                name: {score: value for score, value in found.items() if score != "mAP"}
                for name, found in values.items()
            },
            "mean_average_precision": {name: found["mAP"] for name, found in values.items()},
            "intervals": {
                name: dict(zip(SCORES, map(list, scores.intervals), strict=True))
                for name, scores in self.scores.items()
                if scores.intervals
            },
            "bootstrap": {"resamples": RESAMPLES, "confidence": CONFIDENCE},
            "by_class": {
                name: {label: dict(zip(SCORES, found, strict=True)) for label, found in scores.by_class.items()}
                for name, scores in self.scores.items()
                if scores.by_class
            },
        }


class Fold(NamedTuple):
    """Which videos query which, as positions in the catalog."""

    queries: list[int]
    gallery: list[int]


def evaluate_retrieval(
    weights: EncoderWeights,
    config: Config,
    labels: Sequence[str],
    folder: Path,
    query_split: Literal["test", "val"] = "test",
    *,
    groups: str | None = None,
    gallery: str | None = None,
    points: Sequence[str] = ("published",),
) -> list[RetrievalTable]:
    """Evaluates trained encoders by video retrieval.

    Args:
        weights: The trained encoders.
        config: The configuration that came with the weights, with the data to evaluate on.
        labels: The labellings to evaluate by: `label`, or the names of other columns of the data set's lists.
        folder: The folder that keeps the features. They are those of all videos, whatever their split.
        query_split: The split whose videos query those of the training split.
        groups: A column of the data set's lists. The videos of each of its values query all other videos, whatever
            their split, and the scores are means over all videos. None: the splits say which videos query which.
        gallery: The root of another data set. Its training videos are queried, or all where nothing is said of splits.
        points: The features of the encoders to evaluate, of `FEATURE_POINTS`.

    Returns:
        One table for each of `labels`.

    Raises:
        UsageError: The configuration sets a key that the weights decide, or the encoders have no such feature.
        DataError: A video cannot be loaded, or a split, a group, a label, or a label that both sides have is missing.
    """
    check_fixed_keys(weights, config)
    with distributed.process_group(config.train.device) as device, Console(enabled=distributed.rank() == 0) as console:
        catalog = scan_videos(config, console, gallery)
        folds = _other_gallery(catalog, query_split) if gallery else _folds(catalog, query_split, groups)
        queries, known = (sorted({video for fold in folds for video in fold[which]}) for which in (0, 1))
        labels_by_name = {label: video_labels(catalog, label, queries, known) for label in labels}
        _check_common(labels_by_name, queries, known)
        functions = evaluated_features(weights, config, device, points)
        on_progress = partial(console.progress, "features")
        arrays = features.video_features(functions, weights.digest, config, catalog, device, folder, on_progress)
        _log_protocol(config)
        arrays = {"size and length": baselines.size_and_length(catalog.videos), **arrays}
        return [
            RetrievalTable(
                label=label,
                num_classes=len({found[video] for video in known}),
                query_split=None if groups else query_split,
                groups=groups,
                gallery=gallery,
                num_folds=len(folds),
                num_gallery=len(known),
                scores=_scores(found, arrays, folds, config.seed, device),
                catalog=catalog,
                labels=found,
                queries=[video for fold in folds for video in fold.queries],
            )
            for label, found in labels_by_name.items()
        ]


def _log_protocol(config: Config) -> None:
    """Logs how the clips differ from those of the release, if they are of the same frames, stride and size."""
    if (config.clip.frames, config.clip.stride, config.clip.size) == OFFICIAL_CLIP:
        log.info(describe_protocol(config))


def describe_protocol(config: Config) -> str:
    """Describes how the clips differ from those of the release of Guo et al. (CVPR 2022).

    Args:
        config: The configuration of an evaluation whose clips have the frames, stride and size of the release. Others
            are not compared with it.

    Returns:
        One line that names the keys whose values differ.
    """
    sections = configuration.to_dict(config)
    leaves = {
        f"{name}.{key}": value for name in ("clip", "augment", "retrieval") for key, value in sections[name].items()
    }
    other = [key for key, value in OFFICIAL_CLIPS.items() if leaves[key] != value]
    return f"clips as in the release of the method, but for {', '.join(other) or 'nothing'}: see docs/official.md"


def _folds(catalog: Catalog, query_split: str, groups: str | None) -> list[Fold]:
    if groups is None:
        return [Fold(videos_of_split(catalog, query_split), videos_of_split(catalog, "train"))]
    everyone = list(range(len(catalog.videos)))
    group_of = video_labels(catalog, groups, everyone, everyone)
    if len(set(group_of)) < 2:
        raise DataError(f"{catalog.root}: all videos have the same {groups!r}; --groups needs a column with two values")
    return [
        Fold([i for i in everyone if group_of[i] == group], [i for i in everyone if group_of[i] != group])
        for group in sorted(set(group_of))
    ]


def _other_gallery(catalog: Catalog, query_split: str) -> list[Fold]:
    """The videos of a split query the training videos of the last root, or all where it says nothing of splits."""
    *own, other = catalog.parts
    asking = combine(own, [1.0] * len(own))
    found = videos_of_split(other, "train") if other.has_splits else range(len(other.videos))
    return [Fold(videos_of_split(asking, query_split), [len(asking.videos) + video for video in found])]


def _check_common(labels_by_name: dict[str, list[str]], queries: Sequence[int], gallery: Sequence[int]) -> None:
    """Checks that some label of the queries is in the gallery, too, and tells how many are not."""
    for label, found in labels_by_name.items():
        wanted, known = ({found[video] for video in videos} for videos in (queries, gallery))
        if wanted.isdisjoint(known):
            of_queries, of_gallery = (", ".join(sorted(names)[:NAMED_LABELS]) for names in (wanted, known))
            raise DataError(
                f"--label {label}: the {len(wanted)} labels of the queries ({of_queries}) and the {len(known)} of the "
                f"gallery ({of_gallery}) have nothing in common; --label takes another column of the lists"
            )
        if missing := len(wanted - known):
            log.info(f"note: {missing} of {len(wanted)} labels of the queries are not in the gallery: they score 0")


def _scores(
    labels: Sequence[str], arrays: dict[str, np.ndarray], folds: Sequence[Fold], seed: int, device: torch.device
) -> dict[str, FeatureScores]:
    """The scores of all features by name, each over the queries of all folds together, and those of chance."""
    of_folds = [([labels[i] for i in fold.queries], [labels[i] for i in fold.gallery]) for fold in folds]
    chance = [
        [*recall_by_chance(*pair, TOP_K), average_precision_by_chance(*pair)]  # of one fold
        for pair in of_folds
    ]
    weights = [len(fold.queries) for fold in folds]
    scores = {
        "chance": FeatureScores(
            means=np.average(chance, axis=0, weights=weights).tolist(), intervals=None, by_class=None
        )
    }
    query_labels = np.concatenate([wanted for wanted, _ in of_folds])
    for name, array in arrays.items():
        parts = [_query_scores(array, fold, *pair, device) for fold, pair in zip(folds, of_folds, strict=True)]
        values, neighbors, similarities = (np.concatenate(found) for found in zip(*parts, strict=True))
        low, high = bootstrap_interval(values, seed)
        scores[name] = FeatureScores(
            means=values.mean(0).tolist(),
            intervals=list(zip(low.tolist(), high.tolist(), strict=True)),
            by_class={str(label): values[query_labels == label].mean(0).tolist() for label in np.unique(query_labels)},
            of_queries=values,
            neighbors=neighbors,
            similarities=similarities,
        )
    return scores


def _query_scores(
    array: np.ndarray, fold: Fold, query_labels: list[str], gallery_labels: list[str], device: torch.device
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The scores of each query, float64 [Q, len(SCORES)], its neighbours in the catalog, and their similarities."""
    queries, gallery = array[fold.queries], array[fold.gallery]
    found, similarities = nearest(queries, gallery, max(*TOP_K, NEIGHBORS), device)
    hits = hits_among(found, query_labels, gallery_labels, TOP_K)
    precisions = average_precisions(queries, gallery, query_labels, gallery_labels, device)
    missing = ((0, 0), (0, max(0, NEIGHBORS - found.shape[1])))
    return (
        np.column_stack([hits, precisions]),
        np.pad(np.array(fold.gallery)[found[:, :NEIGHBORS]], missing, constant_values=-1),
        np.pad(similarities[:, :NEIGHBORS], missing, constant_values=np.nan),
    )
