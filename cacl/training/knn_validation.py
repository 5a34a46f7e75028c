"""How well the encoders of a training without labels do on labelled videos during the run, by nearest neighbours.

The labels decide nothing of what is learnt: encoders are copied, and nothing but the copies sees these videos.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import torch

from cacl import distributed
from cacl.clips import Failure
from cacl.errors import DataError
from cacl.evaluation.features import feature_vector
from cacl.evaluation.nearest_neighbors import knn_scores
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.clip_loader import ClipLoader
from cacl.training.checkpointer import Checkpointer
from cacl.training.train_state import TrainState
from cacl.training.validation import account_for, share_batch_statistics

SETTING = {"k": 20, "T": 0.07}
"""The number of neighbours and the temperature of their votes, those of DINO (Caron et al., ICCV 2021)."""


class LabelledVideos(NamedTuple):
    """The videos that have one of the labels."""

    train: list[int]
    """The positions in the catalog of those that vote."""
    val: list[int]
    """The positions of those that are classified."""
    classes: np.ndarray
    """int64: the class of every video of the catalog, and -1 where it has none."""


class KnnValidation:
    """Classifies the videos of the split `val` by their nearest neighbours in the split `train`. All ranks call it.

    The feature of a video is the feature vector of its middle clip, as `cacl eval recognition` takes it.
    """

    def __init__(self, state: TrainState, catalog: Catalog) -> None:
        """Loads nothing yet.

        Args:
            state: The state of the run, as its steps leave it.
            catalog: All videos of the data set.

        Raises:
            DataError: One of the splits has no video with one of the labels.
        """
        self.state, self.every = state, state.config.knn.every
        self.videos = {column: _labelled_videos(catalog, column) for column in state.config.knn.labels}
        self.positions = sorted({i for videos in self.videos.values() for i in videos.train + videos.val})
        self.loader = ClipLoader.from_config(
            state.config,
            catalog=catalog,
            views=1,
            split=None,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
            device=state.device,
        )
        self.videos_named: set[int] = set()

    def due(self, step: int) -> bool:
        """Returns whether there is a score after this step."""
        return step % self.every == 0 or step == self.state.num_steps

    def run(self, checkpointer: Checkpointer) -> dict[str, float]:
        """Scores the encoders, and leaves them as they are.

        Args:
            checkpointer: What saves states, which a score gives no reason to.

        Returns:
            The share of videos that are classified rightly, by encoder and label, such as `knn_accuracy/cnn.label`.

        Raises:
            DataError: A clip cannot be loaded and `loader.on_failure` is "fail", or none of a split can.
        """
        own, failures = self._features()
        account_for(failures, self.videos_named, self.loader)
        features = {
            name: {position: row for part in parts for position, row in part[name].items()}
            for parts in [distributed.all_gather_objects(own)]
            for name in own
        }
        return {
            f"knn_accuracy/{name}.{column}": self._accuracy(rows, videos)
            for name, rows in features.items()
            for column, videos in self.videos.items()
        }

    @torch.no_grad()
    def _features(self) -> tuple[dict[str, dict[int, np.ndarray]], list[Failure]]:
        """Returns the features of the videos of this rank, by encoder and position, and the clips that did not load."""
        query, device = self.state.model.query, self.state.device
        encoders = {
            name: copy.deepcopy(encoder).eval()
            for name, encoder in (("cnn", query.cnn), ("transformer", query.transformer))
            if encoder is not None
        }
        for encoder in encoders.values():
            share_batch_statistics(encoder)
        functions = {name: feature_vector(encoder) for name, encoder in encoders.items()}
        features: dict[str, dict[int, np.ndarray]] = {name: {} for name in functions}
        failures: list[Failure] = []
        for batch in self.loader.evaluation(1, self.positions[self.loader.rank :: self.loader.world_size]):
            failures += batch.failures
            if not len(batch):
                continue
            clips, order = batch.views[0].to(device).float(), batch.order.to(device)
            for name, function in functions.items():
                with self.state.autocast():
                    rows = function(clips, order).cpu().numpy()
                features[name] |= zip(batch.video.tolist(), rows, strict=True)
        return features, failures

    def _accuracy(self, features: dict[int, np.ndarray], videos: LabelledVideos) -> float:
        """The share of validation videos that are classified rightly, among those whose clip was loaded."""
        train, val = ([i for i in part if i in features] for part in (videos.train, videos.val))
        if not train or not val:
            split = "val" if train else "train"
            raise DataError(
                f"{self.loader.catalog.root}: no labelled video of {split} can be loaded any more; mend them"
            )
        array = np.stack([features[i] for i in train + val])
        known, classes = np.unique(videos.classes[train], return_inverse=True)
        rows = range(len(train)), range(len(train), len(array))
        (votes,) = knn_scores(array, rows[0], classes, rows[1], [SETTING], self.state.device)
        return float((known[votes.argmax(1)] == videos.classes[val]).mean())


def _labelled_videos(catalog: Catalog, column: str) -> LabelledVideos:
    try:
        names = catalog.classes(column)
    except DataError as error:
        raise DataError(f"knn.labels: {error}; knn.every = 0 asks for none") from None
    number_of = {name: number for number, name in enumerate(names)}
    classes = np.array([number_of.get(video.label_in(column) or "", -1) for video in catalog.videos])
    splits = [video.split for video in catalog.videos]
    train, val = (
        [i for i, split in enumerate(splits) if split == wanted and classes[i] >= 0] for wanted in ("train", "val")
    )
    for split, found in (("train", train), ("val", val)):
        if not found:
            raise DataError(
                f"{catalog.root}: knn.every is set, and no video of the split {split} has a {column!r}: tell some by a "
                "list or a folder, or set knn.every = 0"
            )
    return LabelledVideos(train, val, classes)
