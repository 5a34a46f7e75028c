"""`cacl eval retrieval`: does the nearest training video of a test video share its label?

Protocol of Guo et al. (CVPR 2022): ten evenly spaced clips per video, centre crop, the mean of their features, cosine
similarity; a test video queries the training videos (or a validation video does, where settings are still chosen).
Beside the trained encoders stand the same ones untrained, and baselines that look at nothing but pixels or the format
of the file, so that nobody fools themselves.
"""

from __future__ import annotations

from collections import Counter
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
from cacl.clips import VideoRecord
from cacl.config import Config
from cacl.errors import DataError, UsageError
from cacl.evaluation import features
from cacl.evaluation.features import FeatureOf
from cacl.evaluation.metrics import recall_at, recall_by_chance
from cacl.loaders.backends.select import build_backend, choose_backend
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.scan import scan
from cacl.reporting.console import Console, log_catalog

RANKS = (1, 5, 10, 20, 50)

FIXED = ("model.", "clip.frames", "contrast.pairs")
"""Keys that an evaluation cannot set anew."""

SPLITS = {"test": "test", "val": "validation", "train": "training"}
"""Names of splits, as people say them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTable:
    """Recall of every feature for one way of labelling the videos."""

    label: str
    classes: int
    query_split: Literal["test", "val"]
    queries: int
    gallery: int
    """Training videos."""
    rows: dict[str, list[float]]
    """By feature, for each of RANKS."""

    def to_json(self) -> dict[str, Any]:
        recalls = {
            name: {f"R@{k}": value for k, value in zip(RANKS, row, strict=True)} for name, row in self.rows.items()
        }
        return {
            "label": self.label,
            "classes": self.classes,
            "query_split": self.query_split,
            "queries": self.queries,
            "gallery": self.gallery,
            "recall": recalls,
        }


def retrieval(
    weights: EncoderWeights,
    config: Config,
    labels: Sequence[str],
    folder: Path,
    query_split: Literal["test", "val"] = "test",
) -> list[LabelTable]:
    """One table per label. `config` is that of the checkpoint, with the data to evaluate on.

    Args:
        labels: `label`, or the name of any other column of the data set's lists.
        folder: Where feature arrays are kept; they are of all videos, whatever their split.
        query_split: The split whose videos query those of the training split.
    """
    fixed = [line for line in configuration.differences(weights.config, config) if line.startswith(FIXED)]
    if fixed:
        raise UsageError(f"the weights decide {'; '.join(fixed)}: leave that as it is")
    with distributed.process_group(config.train.device) as device, Console(enabled=distributed.rank() == 0) as report:
        with distributed.main_first():
            catalog = scan(config.data, min_frames=config.clip.frames, progress=partial(report.progress, "scanning"))
        catalog.check(config.data.max_rejected)
        log_catalog(catalog)
        query, gallery = _positions(catalog, query_split), _positions(catalog, "train")
        columns = {label: _column(catalog, label, query, gallery) for label in labels}
        arrays = _features(weights, config, catalog, device, folder, report)
        report.say(protocol(config))
    arrays = {"size and length": _size_and_length(catalog.videos), **arrays}
    return [
        LabelTable(
            label=label,
            classes=len({column[i] for i in gallery}),
            query_split=query_split,
            queries=len(query),
            gallery=len(gallery),
            rows=_recalls(column, arrays, query, gallery),
        )
        for label, column in columns.items()
    ]


def protocol(config: Config) -> str:
    """One line that says by which keys the clips are not those of the release of Guo et al. (CVPR 2022)."""
    released = {
        "clip.stride": 2,
        "augment.resize": (128, 171),
        "retrieval.clips_per_video": 10,
        "retrieval.clip_starts": "official",
    }
    released |= {"clip.frames": 16, "clip.size": 112, "augment.crop": (0.875, 0.875)}
    sections = configuration.to_dict(config)
    leaves = {
        f"{name}.{key}": value for name in ("clip", "augment", "retrieval") for key, value in sections[name].items()
    }
    other = [key for key, value in released.items() if leaves[key] != value]
    return f"clips as in the release of the method, but for {', '.join(other) or 'nothing'}: see docs/official.md"


def _features(
    weights: EncoderWeights, config: Config, catalog: Catalog, device: torch.device, folder: Path, report: Console
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
        wanted, catalog, backend, config, device, folder / key, lambda done, all: report.progress("features", done, all)
    )
    if distributed.rank() == 0:
        features.finish(folder / key)
    return arrays


def _feature_functions(weights: EncoderWeights, config: Config, device: torch.device) -> dict[str, FeatureOf]:
    functions: dict[str, FeatureOf] = {"mean frame": features.mean_frame, "frame difference": features.frame_difference}
    for which in weights.names:
        torch.manual_seed(config.seed)
        functions[f"{which}, untrained"] = features.feature_of(weights.build_untrained(which).to(device))
        functions[f"{which}, trained"] = features.feature_of(weights.build(which).to(device))
    return functions


def _recalls(
    column: Sequence[str], arrays: dict[str, np.ndarray], query: Sequence[int], gallery: Sequence[int]
) -> dict[str, list[float]]:
    query_labels, gallery_labels = [column[i] for i in query], [column[i] for i in gallery]
    rows = {"chance": recall_by_chance(query_labels, gallery_labels, RANKS)}
    for name, array in arrays.items():
        rows[name] = recall_at(array[query], array[gallery], query_labels, gallery_labels, RANKS)
    return rows


def _size_and_length(videos: Sequence[VideoRecord]) -> np.ndarray:
    """A baseline that sees no pixel: width, height and frame count, standardised."""
    values = np.array([(video.width, video.height, video.frames) for video in videos], np.float64)
    spread = values.std(0)
    standard = (values - values.mean(0)) / np.where(spread > 0, spread, 1)
    # A constant beside them lets the cosine tell near from far along a ray.
    return np.column_stack([standard, np.ones(len(values))])


def _positions(catalog: Catalog, split: str) -> list[int]:
    """The videos of a split, as positions in the catalog."""
    found = [i for i, video in enumerate(catalog.videos) if video.split == split]
    if not found:
        there = Counter(video.split for video in catalog.videos if video.split)
        other = {"test": "val", "val": "test"}.get(split, "")
        if there[other]:
            way_out = f"--queries {other} takes the {there[other]} {SPLITS[other]} videos"
        elif there:
            way_out = f"there are {', '.join(sorted(there))}: tell its videos by a list or a folder"
        else:
            way_out = "use a layout with splits, or hold some videos out with --set data.test_share=0.25"
        raise DataError(
            f"{catalog.root}: no usable video belongs to the {SPLITS[split]} split, and retrieval needs it; {way_out}"
        )
    return found


def _column(catalog: Catalog, label: str, query: Sequence[int], gallery: Sequence[int]) -> list[str]:
    """The label of each video; those that neither query nor are queried need none."""
    values = [video.label if label == "label" else video.attributes.get(label) for video in catalog.videos]
    if not any(values):
        known = sorted({name for video in catalog.videos for name in video.attributes})
        raise DataError(
            f"{catalog.root}: its videos have no {label!r}; "
            + (f"--label takes one of {', '.join(known)}" if known else "retrieval needs labelled videos")
        )
    for positions in (query, gallery):
        missing = [catalog.videos[i] for i in positions if not values[i]]
        if missing:
            split = SPLITS[missing[0].split or ""]
            way_out = "; --queries val takes the validation videos" if split == "test" else ""
            raise DataError(
                f"{catalog.root}: {len(missing)} of {len(positions)} {split} videos have no {label!r}, "
                f"{missing[0].path} among them{way_out}"
            )
    return [value or "" for value in values]
