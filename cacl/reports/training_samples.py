"""Some clips of a training step as the network sees them, and what it makes of their order."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from cacl.clips import ClipBatch
from cacl.kernels.edit_distance import edit_distance_to_identity
from cacl.loaders.catalog.catalog import Catalog
from cacl.method.losses import order_distances
from cacl.reports.previews import view_strips
from cacl.training.train_state import TrainState

SAMPLES = 6
"""The number of clips that are shown; a smaller batch has fewer."""
ORDER = "order"
"""The name of the loss whose head predicts distances."""
TOGETHER = 16
"""The number of clips that the network predicts together."""


class Sample(NamedTuple):
    """A clip."""

    path: str
    label: str | None
    strips: dict[str, str]
    """Its strips, as `view_strips` returns them."""
    distance: int
    """The edit distance of the shuffled copy to the true order."""
    predicted: int | None
    """What the network takes it for; None where it does not learn the order."""


class Samples(NamedTuple):
    """The clips of a step, and how well the distances of its whole batch are predicted."""

    step: int
    clips: list[Sample]
    batch_size: int
    """The number of clips of the batch on this rank."""
    mean_error: float | None
    """The mean distance between prediction and truth over the batch; None where nothing is predicted."""
    constant_error: float
    """The same, if the median of the true distances were predicted for all clips."""


def take_samples(state: TrainState, catalog: Catalog, batch: ClipBatch) -> Samples:
    """Takes the first clips of a batch.

    Args:
        state: The state of the run, which stays as it is.
        catalog: The training videos.
        batch: The clips of this rank.
    """
    distances = edit_distance_to_identity(batch.order).long().cpu()
    predicted = predict_distances(state, batch)
    clips = []
    for row, video in enumerate(batch.video[:SAMPLES].tolist()):
        record = catalog.videos[video]
        guess = None if predicted is None else int(predicted[row])
        clips.append(Sample(record.path, record.label, view_strips(batch, row), int(distances[row]), guess))
    constant = (distances - distances.median()).abs().double().mean()
    error = None if predicted is None else float((distances - predicted).abs().double().mean())
    return Samples(state.step, clips, len(batch), error, float(constant))


@torch.no_grad()
def predict_distances(state: TrainState, batch: ClipBatch) -> Tensor | None:
    """Predicts the edit distances of the shuffled copies, in evaluation mode.

    A copy of the encoder does so, without the compiler and without the other ranks, and draws nothing at random: of the
    run, neither a weight nor a statistic of batch norm changes.

    Args:
        state: The state of the run.
        batch: The clips of this rank.

    Returns:
        The distances, int64 [B] on the CPU; None where the run does not learn the order.
    """
    if ORDER not in state.model.losses:
        return None
    query = copy.deepcopy(state.model.query).eval()
    query.keep_heads_of(ORDER)  # and the encoder that it stands on
    classes = []
    for clips, order in zip(batch.query.split(TOGETHER), batch.order.split(TOGETHER), strict=True):
        with state.autocast():
            logits = query(clips.to(state.device).float(), order.to(state.device))[ORDER]["cnn"]
        classes.append(logits.argmax(1).cpu())
    return order_distances(torch.cat(classes))
