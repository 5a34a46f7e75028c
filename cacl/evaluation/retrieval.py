"""Video retrieval: does the nearest training video of a test video share its label?

The protocol is that of Guo et al. (CVPR 2022). A video has ten evenly spaced clips, cropped at the centre, and the mean
of their features is compared by cosine similarity. The test videos query the training videos, or the validation videos
do where settings are still being chosen. Beside the trained encoders stand the same ones untrained, and baselines that
look at nothing but pixels or the format of the file, so that a result is not mistaken for more than it is.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from cacl import config as configuration
from cacl import distributed
from cacl.checkpoints.encoders import EncoderWeights
from cacl.config import Config
from cacl.evaluation import baselines, features
from cacl.evaluation.features import FeatureFunction
from cacl.evaluation.metrics import recall_at, recall_by_chance
from cacl.evaluation.videos import check_fixed_keys, scan_videos, video_labels, videos_of_split
from cacl.reporting.console import Console

log = logging.getLogger(__name__)

TOP_K = (1, 5, 10, 20, 50)
"""The values of k for which recall at k is computed."""

OFFICIAL_CLIPS = {
    "clip.stride": 2,
    "augment.resize": (128, 171),
    "retrieval.clips_per_video": 10,
    "retrieval.clip_starts": "official",
    "clip.frames": 16,
    "clip.size": 112,
    "augment.crop": (0.875, 0.875),
}
"""The keys that decide the clips, with the values that the release of Guo et al. (CVPR 2022) has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalTable:
    """The recall of every feature, with the videos labelled in one way."""

    label: str
    """The name of the labelling: `label`, or another column of the data set's lists."""
    num_classes: int
    """The number of different labels in the gallery."""
    query_split: Literal["test", "val"]
    """The split whose videos query."""
    num_queries: int
    """The number of videos that query."""
    num_gallery: int
    """The number of training videos, which are queried."""
    recalls: dict[str, list[float]]
    """The recall at each k of `TOP_K`, from 0 to 1, by name of the feature."""

    def to_json(self) -> dict[str, Any]:
        """Returns the table as values that JSON can hold."""
        recalls = {
            name: {f"R@{k}": value for k, value in zip(TOP_K, values, strict=True)}
            for name, values in self.recalls.items()
        }
        return {
            "label": self.label,
            "classes": self.num_classes,
            "query_split": self.query_split,
            "queries": self.num_queries,
            "gallery": self.num_gallery,
            "recall": recalls,
        }


def evaluate_retrieval(
    weights: EncoderWeights,
    config: Config,
    labels: Sequence[str],
    folder: Path,
    query_split: Literal["test", "val"] = "test",
) -> list[RetrievalTable]:
    """Evaluates trained encoders by video retrieval.

    Args:
        weights: The trained encoders.
        config: The configuration that came with the weights, with the data to evaluate on.
        labels: The labellings to evaluate by: `label`, or the names of other columns of the data set's lists.
        folder: The folder that keeps the features. They are those of all videos, whatever their split.
        query_split: The split whose videos query those of the training split.

    Returns:
        One table for each of `labels`.

    Raises:
        UsageError: The configuration differs from that of the weights in a key that the weights decide.
        DataError: A video cannot be loaded, or a split or a label is missing.
    """
    check_fixed_keys(weights, config)
    with distributed.process_group(config.train.device) as device, Console(enabled=distributed.rank() == 0) as console:
        catalog = scan_videos(config, console)
        queries, gallery = videos_of_split(catalog, query_split), videos_of_split(catalog, "train")
        labels_by_name = {label: video_labels(catalog, label, queries, gallery) for label in labels}
        functions = _feature_functions(weights, config, device)
        on_progress = partial(console.progress, "features")
        arrays = features.video_features(functions, weights.digest, config, catalog, device, folder, on_progress)
        log.info(describe_protocol(config))
    arrays = {"size and length": baselines.size_and_length(catalog.videos), **arrays}
    return [
        RetrievalTable(
            label=label,
            num_classes=len({video_labels[video] for video in gallery}),
            query_split=query_split,
            num_queries=len(queries),
            num_gallery=len(gallery),
            recalls=_recalls(video_labels, arrays, queries, gallery),
        )
        for label, video_labels in labels_by_name.items()
    ]


def describe_protocol(config: Config) -> str:
    """Describes how the clips differ from those of the release of Guo et al. (CVPR 2022).

    Args:
        config: The configuration of the evaluation.

    Returns:
        One line that names the keys whose values differ.
    """
    sections = configuration.to_dict(config)
    leaves = {
        f"{name}.{key}": value for name in ("clip", "augment", "retrieval") for key, value in sections[name].items()
    }
    other = [key for key, value in OFFICIAL_CLIPS.items() if leaves[key] != value]
    return f"clips as in the release of the method, but for {', '.join(other) or 'nothing'}: see docs/official.md"


def _feature_functions(weights: EncoderWeights, config: Config, device: torch.device) -> dict[str, FeatureFunction]:
    functions: dict[str, FeatureFunction] = {
        "mean frame": baselines.mean_frame,
        "frame difference": baselines.frame_difference,
    }
    for which in weights.names:
        torch.manual_seed(config.seed)
        functions[f"{which}, untrained"] = features.encoder_feature(weights.build_untrained(which).to(device))
        functions[f"{which}, trained"] = features.encoder_feature(weights.build(which).to(device))
    return functions


def _recalls(
    labels: Sequence[str], arrays: dict[str, np.ndarray], queries: Sequence[int], gallery: Sequence[int]
) -> dict[str, list[float]]:
    query_labels, gallery_labels = [labels[video] for video in queries], [labels[video] for video in gallery]
    recalls = {"chance": recall_by_chance(query_labels, gallery_labels, TOP_K)}
    for name, array in arrays.items():
        recalls[name] = recall_at(array[queries], array[gallery], query_labels, gallery_labels, TOP_K)
    return recalls
