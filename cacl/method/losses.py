"""The contrast of the four embeddings of a video, and the classification of the edit distance of its frame order.

Embeddings are unit vectors [B, D]: f from the CNN, t from the transformer; q has a gradient, k comes from the momentum
copies. From Guo et al., "Cross-Architecture Self-supervised Video Representation Learning", CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cacl.kernels.contrast import queue_contrast
from cacl.kernels.edit_distance import edit_distance_to_identity
from cacl.kernels.symmetric import symmetric_contrast


class Pair(NamedTuple):
    """A positive pair, and the embedding whose similarities to the queue are its negatives.

    Within a batch a pair has negatives of its own: both of its sides with those of other videos.
    """

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
    "official": (
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
    """contrast, order: the parts, before their weights; contrast/queue, contrast/batch: of both kinds of negatives,
    where both count; top1/<pair>, batch_top1/<pair>: share of anchors whose positive beats the whole queue, or the rest
    of the batch; similarity/<pair>: mean cosine of the positives; order_accuracy."""


def contrast_loss(
    embeddings: Mapping[str, Tensor],
    queue: Tensor,
    temperature: float,
    pairs: str,
    negatives: str = "queue",
    *,
    gather: Callable[[Tensor], Tensor] = lambda x: x,
    rank_offset: int = 0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over the pairs and the batch of -log(e^(p/T) / (e^(p/T) + sum_n e^(n/T))), and its metrics.

    p is the similarity of a pair; the other positives of a video are in no denominator. negatives: `queue`, where n are
    the similarities of the pair's anchor to the queue [K, D]; `batch`, those of each side of the pair to the other side
    of all other videos, averaged over the sides; `both`, the mean of the two losses. gather, place: see
    `symmetric_contrast`.
    """
    embeddings = {name: x.to(queue.dtype) for name, x in embeddings.items()}
    losses, metrics = {}, {}
    if negatives in ("queue", "both"):
        losses["queue"], metrics = _queue_loss(embeddings, queue, temperature, pairs)
    if negatives in ("batch", "both"):
        losses["batch"], of_batch = _batch_loss(embeddings, temperature, pairs, gather, rank_offset)
        metrics |= of_batch
    if len(losses) > 1:
        metrics |= {f"contrast/{name}": loss.detach() for name, loss in losses.items()}
    return torch.stack(list(losses.values())).mean(), metrics


def _queue_loss(
    embeddings: Mapping[str, Tensor], queue: Tensor, temperature: float, pairs: str
) -> tuple[Tensor, dict[str, Tensor]]:
    anchors: dict[str, list[Pair]] = {}
    for pair in PAIRS[pairs]:
        if pair.first == pair.negatives:
            anchors.setdefault(pair.first, []).append(pair)
    # All kinds of anchors, which have as many positives each, are rows of one call.
    positives = [torch.stack([embeddings[pair.second] for pair in own], 1) for own in anchors.values()]
    result = queue_contrast(torch.cat([embeddings[name] for name in anchors]), torch.cat(positives), queue, temperature)
    by_anchor = {name: [x.tensor_split(len(anchors))[number] for x in result] for number, name in enumerate(anchors)}
    losses, metrics = [], {}
    for pair in PAIRS[pairs]:
        loss, similarity, logsumexp, max_negative_logit = by_anchor[pair.negatives]
        if pair.first == pair.negatives:
            number = anchors[pair.first].index(pair)
            loss, similarity = loss[:, number], similarity[:, number]
        else:
            similarity = (embeddings[pair.first].float() * embeddings[pair.second].float()).sum(1)
            loss = F.softplus(logsumexp - similarity / temperature)
        losses.append(loss.mean())
        metrics |= _seen(pair, "top1", similarity.detach(), max_negative_logit, temperature)
    return torch.stack(losses).mean(), metrics


def _batch_loss(
    embeddings: Mapping[str, Tensor],
    temperature: float,
    pairs: str,
    gather: Callable[[Tensor], Tensor],
    rank_offset: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    losses, metrics = [], {}
    for pair in PAIRS[pairs]:
        first, second = embeddings[pair.first], embeddings[pair.second]
        loss, similarity, max_negative_logit = symmetric_contrast(
            first, second, temperature, gather=gather, rank_offset=rank_offset
        )
        losses.append(loss.mean())
        metrics |= _seen(pair, "batch_top1", similarity, max_negative_logit, temperature)
    return torch.stack(losses).mean(), metrics


def _seen(
    pair: Pair, top1: str, similarity: Tensor, max_negative_logit: Tensor, temperature: float
) -> dict[str, Tensor]:
    name = f"{pair.first}.{pair.second}"
    return {
        f"similarity/{name}": similarity.mean(),
        f"{top1}/{name}": (similarity / temperature >= max_negative_logit).float().mean(),
    }


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
