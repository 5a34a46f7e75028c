"""A training step as the authors wrote it: what `cacl bench-step` measures ours against.

It is written from the facts about the release of Guo et al. (CVPR 2022), and holds none of its code. The host makes the
shuffled copies and, in Python, the labels. Every frame of a clip and of its copy goes through the frame embedder, and
each pair of embeddings has logits of its own. Weights, optimiser and precision are those of a `TrainState` of ours, but
the optimiser steps in the form that torch takes by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cacl.clips import ClipBatch, to_device
from cacl.config import Config
from cacl.method.dual_encoder import DualEncoder, shuffle_frames
from cacl.method.pairs import Embedding, Pair, encoders_in
from cacl.registry import PAIRS
from cacl.stages import stage
from cacl.training.train_state import TrainState


class OfficialBatch(NamedTuple):
    """What the data loader of the release hands to a step: both views of the clips and of their shuffled copies."""

    query: Tensor
    """float32 [B, 3, T, H, W], as the three that follow."""
    query_shuffled: Tensor
    key: Tensor
    key_shuffled: Tensor
    orders: list[list[int]]
    """The order of the frames of each shuffled copy."""


def unavailable_reason(config: Config) -> str:
    """Why the release cannot compute what a configuration asks for; empty if it can."""
    contrast = config.contrast
    released = {
        "contrast.negatives": (contrast.negatives, "queue"),
        "contrast.cross_weight": (contrast.cross_weight, 1.0),
        "contrast.reversed_weight": (contrast.reversed_weight, 0.0),
        "contrast.shuffle_bn_groups": (contrast.shuffle_bn_groups, 1),
        "contrast.key_first_input": (contrast.key_first_input, "clip"),
        "model.order_head": (config.model.order_head, "concatenation"),
        "train.gradient_accumulation": (config.train.gradient_accumulation, 1),
    }
    for key, (value, expected) in released.items():
        if value != expected:
            return f"{key} = {value}: it has {expected}"
    if len(encoders_in(PAIRS.load(contrast.pairs))) < 2 or set(config.losses) != {"contrast", "order"}:
        return "it has both encoders, and the losses contrast and order"
    if not all(config.losses.values()):
        return "losses: it has contrast and order, and neither is 0"
    if config.model.transformer.embedder == "tubelet":
        return "model.transformer.embedder = tubelet: its tokens are single frames"
    if contrast.queue_size % (2 * config.train.batch_size):
        return f"contrast.queue_size = {contrast.queue_size}: it takes a multiple of two batches"
    return ""


def official_batch(batch: ClipBatch) -> OfficialBatch:
    """Makes of a batch of ours what the data loader of the release would bring.

    Args:
        batch: The batch, on the CPU.
    """
    query, key = batch.query.float(), batch.key.float()
    copies = (shuffle_frames(view, batch.order).contiguous() for view in (query, key))
    query_shuffled, key_shuffled = copies
    return OfficialBatch(query, query_shuffled, key, key_shuffled, batch.order.tolist())


class OfficialStep:
    """Takes steps as the release takes them.

    Args:
        state: The state that the steps change, in a configuration of which `unavailable_reason` says nothing.
    """

    def __init__(self, state: TrainState) -> None:
        self.state = state
        self.pairs: Sequence[Pair] = PAIRS.load(state.config.contrast.pairs)
        self.pointer = int(state.model.queue.pointer)
        for group in state.optimizer.param_groups:
            group["fused"] = None

    def __call__(self, batch: OfficialBatch) -> dict[str, Tensor]:
        """Takes one step.

        Args:
            batch: The clips, in the memory of the host.

        Returns:
            The losses `contrast` and `order`, and their weighted sum `loss`, on the device.
        """
        state, model = self.state, self.state.model
        with stage("copy"):
            query, query_shuffled, key, key_shuffled = (to_device(view, state.device) for view in batch[:4])
        state.seed_step()
        with state.autocast():
            with stage("query"):
                outputs = _encode(model.query, query, query_shuffled)
            with stage("momentum"):
                self._update_momentum_copies()
            with stage("keys"), torch.no_grad():
                keys = _encode(model.key, key, key_shuffled)["contrast"]
            with stage("loss"), torch.autocast(state.device.type, enabled=False):
                losses = {"contrast": self._contrast(outputs["contrast"], keys)}
                losses["order"] = F.cross_entropy(outputs["order"]["cnn"].to(model.queue.keys), self._labels(batch))
                loss = sum((state.config.losses[name] * value for name, value in losses.items()), torch.tensor(0.0))
        with stage("queue"):
            self._enqueue(torch.cat(list(keys.values())))
        with stage("backward"):
            state.optimizer.zero_grad()
            loss.backward()
        with stage("optimizer"):
            for group, rate in zip(state.optimizer.param_groups, state.learning_rates().values(), strict=True):
                group["lr"] = rate
            state.optimizer.step()
        state.step += 1
        return {name: value.detach() for name, value in (losses | {"loss": loss}).items()}

    def _contrast(self, queries: dict[str, Tensor], keys: dict[str, Tensor]) -> Tensor:
        """The mean over the pairs of a cross-entropy, in which the positive is the first of 1 + K classes."""
        embeddings = {Embedding(name, "query"): x for name, x in queries.items()}
        embeddings |= {Embedding(name, "key"): x for name, x in keys.items()}
        queue, temperature = self.state.model.queue.keys.clone().detach(), self.state.config.contrast.temperature
        losses = []
        for pair in self.pairs:
            positive = torch.einsum("nd,nd->n", embeddings[pair.anchor], embeddings[pair.positive]).unsqueeze(1)
            negatives = torch.einsum("nd,kd->nk", embeddings[pair.queue_anchor], queue)
            logits = torch.cat([positive, negatives], dim=1) / temperature
            right = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
            losses.append(F.cross_entropy(logits, right))
        return torch.stack(losses).mean()

    def _labels(self, batch: OfficialBatch) -> Tensor:
        identity = list(range(batch.query.shape[2]))
        distances = [levenshtein(order, identity) for order in batch.orders]
        return torch.tensor([max(distance - 1, 0) for distance in distances]).to(self.state.device)

    @torch.no_grad()
    def _update_momentum_copies(self) -> None:
        """Moves the copies one parameter at a time, before they encode. In the first step they are equal."""
        momentum, sources = self.state.config.contrast.momentum, dict(self.state.model.query.named_parameters())
        for name, target in self.state.model.key.named_parameters():
            if sources[name].requires_grad:
                target.copy_(target * momentum + sources[name] * (1 - momentum))

    @torch.no_grad()
    def _enqueue(self, keys: Tensor) -> None:
        """Replaces the oldest keys, which lie in one piece, and are counted on the host."""
        queue = self.state.model.queue.keys
        queue[self.pointer : self.pointer + len(keys)] = keys
        self.pointer = (self.pointer + len(keys)) % len(queue)


def _encode(encoders: DualEncoder, clips: Tensor, shuffled: Tensor) -> dict[str, dict[str, Tensor]]:
    """Returns what the heads give, by loss and then by encoder. 2T frames of each clip are embedded."""
    cnn, transformer = encoders.cnn, encoders.transformer
    assert cnn is not None
    assert transformer is not None
    with stage("cnn"):
        features = torch.cat([cnn(clips), cnn(shuffled)], dim=1)
        outputs = {loss: {"cnn": head(features)} for loss, head in encoders.cnn_heads.items()}
    with stage("transformer"):
        features = transformer.attend(transformer.embed(clips), transformer.embed(shuffled))
        for loss, head in encoders.transformer_heads.items():
            outputs[loss]["transformer"] = head(features)
    return outputs


def levenshtein(first: Sequence[int], second: Sequence[int]) -> int:
    """The edit distance of two sequences by the recurrence of Wagner and Fischer (1974), in plain Python."""
    above = list(range(len(second) + 1))
    for i, symbol in enumerate(first, 1):
        row = [i]
        for j, other in enumerate(second, 1):
            row.append(min(row[-1] + 1, above[j] + 1, above[j - 1] + (symbol != other)))
        above = row
    return above[-1]
