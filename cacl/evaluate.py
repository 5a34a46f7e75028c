"""`cacl eval retrieval`: does the nearest training video of a test video share its label?

Protocol of Guo et al. (CVPR 2022): ten evenly spaced clips per video, centre crop, the mean of their features, cosine
similarity; a test video queries the training videos. Beside the trained encoders stand the same ones untrained, and
baselines that look at nothing but pixels or the format of the file, so that nobody fools themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cacl import config as configuration
from cacl import distributed, features
from cacl.checkpoint import EncoderWeights
from cacl.clips import VideoRecord
from cacl.config import Config
from cacl.errors import DataError, UsageError
from cacl.features import FeatureOf
from cacl.loaders.build import build_backend, choose_backend
from cacl.loaders.catalog import Catalog, scan
from cacl.metrics import recall_at, recall_by_chance
from cacl.report import Report

RANKS = (1, 5, 10, 20, 50)

FIXED = ("model.", "clip.frames", "contrast.pairs")
"""Keys that an evaluation cannot set anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTable:
    """Recall of every feature for one way of labelling the videos."""

    label: str
    classes: int
    queries: int
    gallery: int
    rows: dict[str, list[float]]
    """By feature, for each of RANKS."""

    def to_json(self) -> dict[str, Any]:
        recalls = {
            name: {f"R@{k}": value for k, value in zip(RANKS, row, strict=True)} for name, row in self.rows.items()
        }
        return {
            "label": self.label,
            "classes": self.classes,
            "queries": self.queries,
            "gallery": self.gallery,
            "recall": recalls,
        }


def retrieval(weights: EncoderWeights, config: Config, labels: Sequence[str], folder: Path) -> list[LabelTable]:
    """One table per label. `config` is that of the checkpoint, with the data to evaluate on.

    labels: `label`, or the name of any other column of the data set's CSV. folder: where feature arrays are kept.
    """
    fixed = [line for line in configuration.differences(weights.config, config) if line.startswith(FIXED)]
    if fixed:
        raise UsageError(f"the weights decide {'; '.join(fixed)}: leave that as it is")
    with distributed.process_group(config.train.device) as device, Report(enabled=distributed.rank() == 0) as report:
        with distributed.main_first():
            catalog = scan(config.data, min_frames=config.clip.frames, report=report.scanned)
        catalog.check(config.data.max_rejected)
        report.rejected(catalog)
        columns = {label: _column(catalog, label) for label in labels}
        query, gallery = _split(catalog)
        arrays = _features(weights, config, catalog, device, folder, report)
    arrays = {"size and length": _size_and_length(catalog.videos), **arrays}
    return [_table(label, column, arrays, query, gallery) for label, column in columns.items()]


def _features(
    weights: EncoderWeights, config: Config, catalog: Catalog, device: torch.device, folder: Path, report: Report
) -> dict[str, np.ndarray]:
    """The arrays of all features, extracted now or before."""
    choice = choose_backend(config.loader, device)
    wanted = _feature_functions(weights, config, device)
    key = features.key_of(weights.digest, catalog, config, choice.name)
    known = features.cached(folder / key, list(wanted))
    if known is not None:
        report.say(f"features of an earlier evaluation, from {folder / key}")
        return known
    report.say(f"loader: {choice.name}, {choice.reason}")
    backend = build_backend(choice.name, catalog, config, device, distributed.local_world())
    arrays = features.extract(
        wanted, catalog, backend, config, device, folder / key, lambda done, all: report.advance("features", done, all)
    )
    if distributed.rank() == 0:
        features.finish(folder / key)
    return arrays


def _feature_functions(weights: EncoderWeights, config: Config, device: torch.device) -> dict[str, FeatureOf]:
    functions: dict[str, FeatureOf] = {"mean frame": features.mean_frame, "frame difference": features.frame_difference}
    for which in weights.names:
        torch.manual_seed(config.seed)
        functions[f"{which}, untrained"] = features.feature_of(weights.untrained(which).to(device))
        functions[f"{which}, trained"] = features.feature_of(weights.build(which).to(device))
    return functions


def _table(
    label: str, column: Sequence[str], arrays: dict[str, np.ndarray], query: Sequence[int], gallery: Sequence[int]
) -> LabelTable:
    query_labels, gallery_labels = [column[i] for i in query], [column[i] for i in gallery]
    rows = {"chance": recall_by_chance(query_labels, gallery_labels, RANKS)}
    for name, array in arrays.items():
        rows[name] = recall_at(array[query], array[gallery], query_labels, gallery_labels, RANKS)
    return LabelTable(
        label=label, classes=len(set(gallery_labels)), queries=len(query), gallery=len(gallery), rows=rows
    )


def _size_and_length(videos: Sequence[VideoRecord]) -> np.ndarray:
    """A baseline that sees no pixel: width, height and frame count, standardised."""
    values = np.array([(video.width, video.height, video.frames) for video in videos], np.float64)
    spread = values.std(0)
    standard = (values - values.mean(0)) / np.where(spread > 0, spread, 1)
    # A constant beside them lets the cosine tell near from far along a ray.
    return np.column_stack([standard, np.ones(len(values))])


def _split(catalog: Catalog) -> tuple[list[int], list[int]]:
    """(test videos, training videos), as positions in the catalog."""
    positions = {split: [i for i, v in enumerate(catalog.videos) if v.split == split] for split in ("test", "train")}
    for split, found in positions.items():
        if not found:
            raise DataError(
                f"{catalog.root}: no usable video belongs to the {split} split, and retrieval needs both; use a layout "
                "with splits, or hold some videos out with --set data.test_share=0.25"
            )
    return positions["test"], positions["train"]


def _column(catalog: Catalog, label: str) -> list[str]:
    values = [video.label if label == "label" else video.attributes.get(label) for video in catalog.videos]
    if not any(values):
        known = sorted({name for video in catalog.videos for name in video.attributes})
        raise DataError(
            f"{catalog.root}: its videos have no {label!r}; "
            + (f"--label takes one of {', '.join(known)}" if known else "retrieval needs labelled videos")
        )
    missing = [video.path for video, value in zip(catalog.videos, values, strict=True) if video.split and not value]
    if missing:
        raise DataError(f"{catalog.root}: {len(missing)} videos have no {label!r}, {missing[0]} among them")
    return [value or "" for value in values]
