"""The contrast of the four embeddings of a video, and the classification of the edit distance of its frame order.

Embeddings are unit vectors [B, D]: f from the CNN, t from the transformer; q has a gradient, k comes from the momentum
copies. From Guo et al., "Cross-Architecture Self-supervised Video Representation Learning", CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cacl.kernels.contrast import queue_logsumexp
from cacl.kernels.edit_distance import edit_distance_to_identity


class Pair(NamedTuple):
    """A positive pair, and the embedding whose similarities to the queue are its negatives."""

    first: str
    second: str
    negatives: str


PAIRS: Mapping[str, tuple[Pair, ...]] = {
    # Each query anchor against both keys, with its own negatives.
    "cross": (
        Pair("f_q", "f_k", "f_q"),
        Pair("f_q", "t_k", "f_q"),
        Pair("t_q", "f_k", "t_q"),
        Pair("t_q", "t_k", "t_q"),
    ),
    # As released: every pair is contrasted with the negatives of the CNN's query, t_q . t_k included.
    "authors": (
        Pair("f_q", "f_k", "f_q"),
        Pair("f_q", "t_q", "f_q"),
        Pair("f_q", "t_k", "f_q"),
        Pair("t_q", "t_k", "f_q"),
    ),
    # Both architectures, each on its own: what the pairs across them add shows beside it.
    "within": (Pair("f_q", "f_k", "f_q"), Pair("t_q", "t_k", "t_q")),
    "cnn": (Pair("f_q", "f_k", "f_q"),),
    "transformer": (Pair("t_q", "t_k", "t_q"),),
    "none": (),
}


def encoders_of(pairs: str, order_weight: float) -> tuple[bool, bool]:
    """Whether these pairs and the order task need (the CNN, the transformer)."""
    names = {name for pair in PAIRS[pairs] for name in pair}
    return order_weight > 0 or any(name[0] == "f" for name in names), any(name[0] == "t" for name in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class LossParts:
    """Scalars of one step; only `total` carries a gradient."""

    total: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """contrast, order: the parts, before their weights; top1/<pair>: share of anchors whose positive beats the whole
    queue; similarity/<pair>: mean cosine of the positives; order_accuracy."""


def contrast_loss(
    embeddings: Mapping[str, Tensor], queue: Tensor, temperature: float, pairs: str
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over the pairs and the batch of -log(e^(p/T) / (e^(p/T) + sum_n e^(n/T))), and its metrics.

    p is the similarity of a pair, n those of its anchor to the queue [K, D]; the other positives of a video are in no
    denominator.
    """
    anchors = dict.fromkeys(pair.negatives for pair in PAIRS[pairs])
    negatives = {name: queue_logsumexp(embeddings[name], queue, temperature) for name in anchors}
    losses, metrics = [], {}
    for pair in PAIRS[pairs]:
        logsumexp, highest = negatives[pair.negatives]
        similarity = (embeddings[pair.first].float() * embeddings[pair.second].float()).sum(1)
        losses.append(F.softplus(logsumexp - similarity / temperature).mean())
        name = f"{pair.first}.{pair.second}"
        metrics[f"similarity/{name}"] = similarity.detach().mean()
        metrics[f"top1/{name}"] = (similarity.detach() / temperature >= highest).float().mean()
    return torch.stack(losses).mean(), metrics


def order_classes(order: Tensor) -> Tensor:
    """int64 [B]: max(D - 1, 0) with D the edit distance of the order [B, T] to the true one.

    D = 1 cannot occur between permutations, so class 0 is the true order, and there are T classes.
    """
    return (edit_distance_to_identity(order).long() - 1).clamp(min=0)


def order_loss(logits: Tensor, order: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of logits [B, T] with the classes of the orders [B, T], and the accuracy."""
    classes = order_classes(order)
    accuracy = (logits.detach().argmax(1) == classes).float().mean()
    return F.cross_entropy(logits.float(), classes), {"order_accuracy": accuracy}
