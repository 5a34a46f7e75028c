"""What a loss is, and the two of the method: the contrast of embeddings, and the classification of the frame order.

Both are those of Guo et al., "Cross-Architecture Self-supervised Video Representation Learning", CVPR 2022.
`cacl.method.pairs` says which embeddings there are and which pairs of them attract each other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cacl import distributed
from cacl.clips import ClipBatch
from cacl.config import Config
from cacl.kernels.contrast import queue_contrast
from cacl.kernels.edit_distance import edit_distance_to_identity
from cacl.kernels.symmetric import symmetric_contrast
from cacl.method.pairs import Embedding, Pair, check_pairs, encoders_in
from cacl.models.heads import ContrastHead, OrderDifferenceHead, OrderHead
from cacl.registry import PAIRS


@dataclass(frozen=True, slots=True, kw_only=True)
class LossParts:
    """The scalars of one step, and the embeddings behind them. Only `total` carries a gradient."""

    total: Tensor
    """The weighted sum of the losses, a scalar."""
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """Scalars by name. `<pair>` is "anchor.positive", as in "cnn_query.transformer_key".

    Every loss stands under its own name, before it is weighted, such as `contrast` and `order`.
    `contrast/queue` and `contrast/batch` are the contrast by kind of negatives. They are there if both kinds count.
    `similarity/<pair>` is the mean cosine of the two sides of the pair.
    `top1/<pair>` is the share of videos whose two sides are at least as similar to each other as the queue anchor is to
    any key of the queue.
    `batch_top1/<pair>` is the share of videos whose anchor is at least as similar to its own positive as to any other
    positive of the batch.
    `contrast/reversed` is the contrast with clips played backwards, before it is weighted and added to `contrast`. It
    is there if it counts.
    `reversed_top1/<pair>` is the share of videos whose anchor is at least as similar to the positive as to the backward
    clip.
    `order_accuracy` is the share of clips whose class of frame orders is predicted."""
    embeddings: Mapping[Embedding, Tensor] = field(default_factory=dict)
    """Unit vectors [B, D]: the queries and keys of the contrast, of this rank's clips. There are none without it."""


class LossState(NamedTuple):
    """What a loss may look at besides what its heads give."""

    batch: ClipBatch
    """The clips of this rank."""
    keys: Mapping[str, Tensor]
    """float32 [B, D] by encoder, unit vectors without a gradient: what the momentum copies make of the key views. There
    are none where the contrast has no weight."""
    reversed_keys: Mapping[str, Tensor]
    """The same of the key views played backwards. There are none where `contrast.reversed_weight` is 0."""
    queue: Tensor
    """float32 [K, D], unit vectors: the keys of earlier videos."""
    counts: Sequence[int]
    """The number of clips of each rank."""


class Loss(Protocol):
    """A loss: heads on the features of encoders, and a function of what these heads give."""

    encoders: Collection[str]
    """The encoders that it has a head on: `cnn`, `transformer`, or both."""
    compares_maps: bool
    """Whether its head on the CNN takes two lists of feature maps, those of all stages [B, C, T', H', W'] for the clip
    and those for its shuffled copy, in place of features. A loss need not have this attribute, which is then False."""

    def make_head(self, num_features: int) -> nn.Module:
        """Makes the head for one of the encoders.

        Args:
            num_features: The length of what the head gets. Of a CNN these are the features of the clip and of its
                shuffled copy, concatenated, and twice as long as `num_features` of the encoder. With `compares_maps` it
                is the number of channels and frames of the maps: the sum of C * T' over the stages.

        Returns:
            A module that takes features [B, num_features], or what `compares_maps` says, and is trained.
        """
        ...

    def __call__(self, outputs: Mapping[str, Tensor], state: LossState) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the loss of a batch.

        Args:
            outputs: What the heads give for the query views, by encoder, each [B, ...].
            state: What else there is.

        Returns:
            The loss of this rank's clips, a scalar with a gradient, and what is logged beside it, scalars by name.
        """
        ...


class ContrastLoss:
    """The contrast of the chosen pairs of embeddings, as `contrast_loss` computes it.

    Args:
        config: The configuration of the run, whose section `contrast` says which pairs, negatives and temperature.
    """

    def __init__(self, config: Config) -> None:
        self._config = config.contrast
        self._embedding_dim = config.model.embedding_dim
        self._pairs: Sequence[Pair] = PAIRS.load(config.contrast.pairs)
        check_pairs(config.contrast.pairs, self._pairs)
        self.encoders, self.compares_maps = encoders_in(self._pairs), False

    def make_head(self, num_features: int) -> ContrastHead:
        """Makes the head that embeds the features of an encoder."""
        return ContrastHead(num_features, self._embedding_dim)

    def __call__(self, outputs: Mapping[str, Tensor], state: LossState) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the loss of a batch; see `Loss`."""
        queries = {Embedding(encoder, "query"): embedding for encoder, embedding in outputs.items()}
        keys = {Embedding(encoder, "key"): embedding for encoder, embedding in state.keys.items()}
        loss, metrics = contrast_loss(
            queries | keys,
            state.queue,
            self._config.temperature,
            self._pairs,
            self._config.negatives,
            cross_weight=self._config.cross_weight,
            gather=partial(distributed.all_gather, counts=state.counts),
            rank_offset=sum(state.counts[: distributed.rank()]),
        )
        if not state.reversed_keys:
            return loss, metrics
        reversed_loss, reversed_metrics = reversed_contrast_loss(
            queries | keys,
            state.reversed_keys,
            self._config.temperature,
            self._pairs,
            cross_weight=self._config.cross_weight,
        )
        return loss + self._config.reversed_weight * reversed_loss, metrics | reversed_metrics


class OrderLoss:
    """The classification of how far the frames of the shuffled copy are out of order, as `order_loss` computes it.

    Args:
        config: The configuration of the run.
    """

    encoders = ("cnn",)

    def __init__(self, config: Config) -> None:
        self._frames, self._dropout = config.clip.frames, config.model.dropout
        self.compares_maps = config.model.order_head == "difference"

    def make_head(self, num_features: int) -> OrderHead | OrderDifferenceHead:
        """Makes the head that names a class. On features its hidden layer is as wide as those of one of the clips."""
        if self.compares_maps:
            return OrderDifferenceHead(num_features, self._frames, self._dropout)
        return OrderHead(num_features, num_features // 2, self._frames, self._dropout)

    def __call__(self, outputs: Mapping[str, Tensor], state: LossState) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the loss of a batch; see `Loss`."""
        return order_loss(outputs["cnn"], state.batch.order)


def contrast_loss(
    embeddings: Mapping[Embedding, Tensor],
    queue: Tensor,
    temperature: float,
    pairs: Sequence[Pair],
    negatives: str = "queue",
    *,
    cross_weight: float = 1.0,
    gather: Callable[[Tensor], Tensor] = lambda x: x,
    rank_offset: int = 0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the contrastive loss of a batch: the mean over its pairs, by their weights, and over its videos.

    A pair of similarity p with negatives of similarities n costs -log(e^(p/T) / (e^(p/T) + sum_n e^(n/T))) at
    temperature T. The other positives of a video are in no denominator.

    Args:
        embeddings: Unit vectors [B, D]. Those of the pairs must be there.
        queue: Unit vectors [K, D], the keys of earlier videos. They are constants and may not require a gradient.
        temperature: The number T by which similarities are divided.
        pairs: The pairs that attract each other.
        negatives: Which similarities n are. With `queue` they are those of the pair's queue anchor to the queue. With
            `batch` they are those of each side of the pair to the other side of all other videos, and the losses of
            the two sides are averaged. With `both` the loss is the mean of the two losses.
        cross_weight: The weight of each pair across the two architectures. Those within one have a weight of 1.
        gather: Concatenates the rows of all ranks in the order of the ranks; see `symmetric_contrast`. It is called
            only for negatives from the batch.
        rank_offset: The position of this rank's first row among the rows of all ranks.

    Returns:
        The loss, a scalar with a gradient, and the metrics about contrast that `LossParts` describes.

    Raises:
        ValueError: Shapes, dtypes or devices do not fit together, or the queue requires a gradient.
    """
    embeddings = {name: x.to(queue.dtype) for name, x in embeddings.items()}
    by_pair: dict[str, list[Tensor]] = {}
    metrics: dict[str, Tensor] = {}
    if negatives in ("queue", "both"):
        by_pair["queue"], metrics = _queue_losses(embeddings, queue, temperature, pairs)
    if negatives in ("batch", "both"):
        by_pair["batch"], batch_metrics = _batch_losses(embeddings, temperature, pairs, gather, rank_offset)
        metrics |= batch_metrics
    weights = _weights(pairs, cross_weight)
    losses = {name: _weighted_mean(values, weights) for name, values in by_pair.items()}
    if len(losses) > 1:
        metrics |= {f"contrast/{name}": loss.detach() for name, loss in losses.items()}
    return torch.stack(list(losses.values())).mean(), metrics


def _weights(pairs: Sequence[Pair], cross_weight: float) -> list[float]:
    return [cross_weight if pair.is_across else 1.0 for pair in pairs]  # A tensor of them would be a copy to a GPU.


def _weighted_mean(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    return torch.stack([value * weight for value, weight in zip(values, weights, strict=True)]).sum() / sum(weights)


def _queue_losses(
    embeddings: Mapping[Embedding, Tensor], queue: Tensor, temperature: float, pairs: Sequence[Pair]
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Contrasts every pair with the similarities of its queue anchor to the queue, and returns a loss for each."""
    pairs_by_anchor: dict[Embedding, list[Pair]] = {}
    for pair in pairs:
        if pair.anchor == pair.queue_anchor:
            pairs_by_anchor.setdefault(pair.anchor, []).append(pair)
    # The anchors of all encoders, which have as many positives each, are rows of one call, which reads the queue once.
    anchors = torch.cat([embeddings[name] for name in pairs_by_anchor])  # [A * B, D]
    positives = torch.cat(
        [torch.stack([embeddings[pair.positive] for pair in own], 1) for own in pairs_by_anchor.values()]
    )  # [A * B, P, D]
    result = queue_contrast(anchors, positives, queue, temperature)
    chunks = zip(*(x.tensor_split(len(pairs_by_anchor)) for x in result), strict=True)
    result_by_anchor = dict(zip(pairs_by_anchor, chunks, strict=True))
    losses, metrics = [], {}
    for pair in pairs:
        loss, similarity, logsumexp, max_negative_logit = result_by_anchor[pair.queue_anchor]
        if pair.anchor == pair.queue_anchor:
            column = pairs_by_anchor[pair.anchor].index(pair)
            loss, similarity = loss[:, column], similarity[:, column]
        else:
            # The pair borrows the negatives of another embedding, whose log-sum-exp over the queue is known already.
            similarity = (embeddings[pair.anchor].float() * embeddings[pair.positive].float()).sum(1)
            loss = F.softplus(logsumexp - similarity / temperature)
        losses.append(loss.mean())
        metrics |= _pair_metrics(pair, "top1", similarity.detach(), max_negative_logit, temperature)
    return losses, metrics


def _batch_losses(
    embeddings: Mapping[Embedding, Tensor],
    temperature: float,
    pairs: Sequence[Pair],
    gather: Callable[[Tensor], Tensor],
    rank_offset: int,
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Contrasts both sides of every pair with those of the other videos, and returns a loss for each pair."""
    losses, metrics = [], {}
    for pair in pairs:
        loss, similarity, max_negative_logit = symmetric_contrast(
            embeddings[pair.anchor], embeddings[pair.positive], temperature, gather=gather, rank_offset=rank_offset
        )
        losses.append(loss.mean())
        metrics |= _pair_metrics(pair, "batch_top1", similarity, max_negative_logit, temperature)
    return losses, metrics


def _pair_metrics(
    pair: Pair, top1_name: str, similarity: Tensor, max_negative_logit: Tensor, temperature: float
) -> dict[str, Tensor]:
    return {
        f"similarity/{pair}": similarity.mean(),
        f"{top1_name}/{pair}": (similarity / temperature >= max_negative_logit).float().mean(),
    }


def reversed_contrast_loss(
    embeddings: Mapping[Embedding, Tensor],
    reversed_keys: Mapping[str, Tensor],
    temperature: float,
    pairs: Sequence[Pair],
    *,
    cross_weight: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes how well pairs are told from the same clips played backwards: the mean over pairs and over videos.

    A pair of similarity p, whose anchor has the similarity r to the backward clip as the encoder of the positive sees
    it, costs -log(e^(p/T) / (e^(p/T) + e^(r/T))) at temperature T. Tao et al. (ACM MM 2020) have such intra-negatives
    among the others. Here they have a loss of their own, and so a weight.

    Args:
        embeddings: Unit vectors [B, D]. Those of the pairs must be there.
        reversed_keys: Unit vectors [B, D] by encoder: what the momentum copies make of the clips played backwards.
        temperature: The number T by which similarities are divided.
        pairs: The pairs.
        cross_weight: The weight of each pair across the two architectures. Those within one have a weight of 1.

    Returns:
        The loss, a scalar with a gradient, and the metrics about backward clips that `LossParts` describes.
    """
    losses, metrics = [], {}
    for pair in pairs:
        anchor = embeddings[pair.anchor]
        positive, negative = embeddings[pair.positive], reversed_keys[pair.positive.encoder]
        margin = ((anchor * positive).sum(1) - (anchor * negative).sum(1)) / temperature
        losses.append(F.softplus(-margin).mean())
        metrics[f"reversed_top1/{pair}"] = (margin.detach() >= 0).float().mean()
    loss = _weighted_mean(losses, _weights(pairs, cross_weight))
    return loss, metrics | {"contrast/reversed": loss.detach()}


def order_classes(order: Tensor) -> Tensor:
    """Maps frame orders to the classes that the order head predicts.

    The class is max(D - 1, 0) with D the edit distance of the order to the true one. D = 1 cannot occur between
    permutations, so class 0 is the true order alone, and there are T classes.

    Args:
        order: Integers [B, T], a permutation of 0 to T - 1 in each row.

    Returns:
        The classes, int64 [B].
    """
    return (edit_distance_to_identity(order).long() - 1).clamp(min=0)


def order_distances(classes: Tensor) -> Tensor:
    """Maps the classes of frame orders to their edit distances: the inverse of `order_classes`.

    Args:
        classes: Integers from 0 to T - 1, of any shape.

    Returns:
        The distances, of the same shape.
    """
    return classes + (classes > 0)


def order_loss(logits: Tensor, order: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the loss of the order task: the cross-entropy of the predicted classes of frame orders.

    Args:
        logits: Floats [B, T], what the order head predicts.
        order: Integers [B, T], the orders that the frames were put in.

    Returns:
        The loss, a float32 scalar with a gradient, and the metric `order_accuracy`.
    """
    classes = order_classes(order)
    accuracy = (logits.detach().argmax(1) == classes).float().mean()
    return F.cross_entropy(logits.float(), classes), {"order_accuracy": accuracy}
