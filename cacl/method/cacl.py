"""The method as one module that is trained: `forward` computes the losses of a batch, `update` ends the step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cacl import distributed
from cacl.clips import ClipBatch, to_device
from cacl.config import Config
from cacl.errors import ConfigError
from cacl.method.dual_encoder import DualEncoder, shuffle_frames
from cacl.method.ema import ema_copy, ema_update
from cacl.method.key_queue import KeyQueue
from cacl.method.losses import Loss, LossParts, LossState
from cacl.method.pairs import Embedding, Side
from cacl.models.recompute import recompute_in_parts
from cacl.registry import LOSSES
from cacl.stages import stage

CONTRAST = "contrast"
"""The name of the loss that takes keys."""


class CACLOutput(NamedTuple):
    """What the method computes of one batch."""

    losses: LossParts
    """The losses of this rank's clips."""
    keys: Tensor
    """float32 [N, D], unit vectors without a gradient: the new keys of all clips, of all ranks and encoders."""


class CACL(nn.Module):
    """Cross-architecture contrastive learning: query encoders, their momentum copies, and the queue of keys.

    Its parameters and buffers are everything that training changes, apart from the state of the optimiser.
    """

    def __init__(self, config: Config) -> None:
        """Draws the weights and the first queue from torch's random state.

        Args:
            config: The configuration of the run.
        """
        super().__init__()
        self.config = config
        self.losses: dict[str, Loss] = {
            name: LOSSES.load(name)(config) for name, weight in config.losses.items() if weight > 0
        }
        self.query = DualEncoder(config, self.losses)
        self.key = ema_copy(self.query)
        self.key.keep_heads_of(CONTRAST)  # keys are only contrasted
        self.queue = KeyQueue(config.contrast.queue_size, config.model.embedding_dim)

    @property
    def min_clips_per_rank(self) -> int:
        """The least number of clips that one rank needs in a step.

        Every batch-normalised group needs two, since a single clip has no variance.
        """
        return 2 * (self._key_groups if CONTRAST in self.losses else self.config.train.gradient_accumulation)

    @property
    def _key_groups(self) -> int:
        """The number of groups that the keys of this rank are normalised in: each part is divided as a rank's are."""
        return self.config.train.gradient_accumulation * self.config.contrast.shuffle_bn_groups

    def forward(self, batch: ClipBatch, step: int, counts: Sequence[int] | None = None) -> CACLOutput:
        """Computes the losses of one batch. Neither the queue nor the momentum copies change.

        Args:
            batch: The clips of this rank, on the device of the module.
            step: The number of the step, which decides the permutation of shuffled batch norm.
            counts: The number of clips of each rank; None: all have as many.

        Returns:
            The losses, and the new keys for `update`.
        """
        counts = counts or [len(batch)] * distributed.world_size()
        # Views travel in half precision; networks take fp32, or what autocast makes of it.
        with stage("query"):
            parts = self.config.train.gradient_accumulation
            outputs = recompute_in_parts(self.query, parts, batch.query.float(), batch.order)
        encoded, all_keys = {}, self.queue.keys[:0]
        if CONTRAST in self.losses:
            with stage("keys"):
                encoded, all_keys = self._encode_keys(batch.key.float(), batch.order, step, counts)
        keys, reversed_keys = (
            {name.encoder: x for name, x in encoded.items() if name.side == side} for side in ("key", "reversed_key")
        )
        state = LossState(batch, keys, reversed_keys, self.queue.keys, counts)
        total, metrics = torch.zeros((), device=batch.order.device), {}
        with stage("loss"), torch.autocast(batch.order.device.type, enabled=False):  # losses stay fp32
            for name, loss in self.losses.items():
                value, loss_metrics = loss(outputs[name], state)
                if value.dim() or (torch.is_grad_enabled() and not value.requires_grad):
                    raise ConfigError(f"losses.{name}: has to give a scalar with a gradient")
                total = total + self.config.losses[name] * value
                metrics |= loss_metrics | {name: value.detach()}
        queries = {Embedding(name, "query"): x.detach() for name, x in outputs.get(CONTRAST, {}).items()}
        embeddings = queries | {Embedding(name, "key"): x for name, x in keys.items()}
        return CACLOutput(LossParts(total=total, metrics=metrics, embeddings=embeddings), all_keys)

    def update(self, keys: Tensor) -> None:
        """Ends a step after the optimiser: the momentum copies follow the query encoders, the keys enter the queue.

        Args:
            keys: float32 [N, D], the keys that `forward` returned.
        """
        with stage("momentum"):
            sources, targets = dict(self.query.named_parameters()), dict(self.key.named_parameters())
            moving = [name for name in targets if sources[name].requires_grad]
            if moving:
                momentum = self.config.contrast.momentum
                ema_update([targets[name] for name in moving], [sources[name] for name in moving], momentum)
        with stage("queue"):
            self.queue.enqueue(keys)

    @torch.no_grad()
    def _encode_keys(
        self, clips: Tensor, order: Tensor, step: int, counts: Sequence[int]
    ) -> tuple[dict[Embedding, Tensor], Tensor]:
        """Returns the keys of this rank's clips, backward ones included, and the keys of all ranks in one tensor.

        Shuffled batch norm (He et al., MoCo, section 3.3): clips are permuted over all ranks and normalised in other
        company than their queries, so that batch statistics do not give a pair away.
        """
        num_clips, groups = len(clips), self._key_groups
        if distributed.world_size() * groups == 1:
            keys = self._embed_keys(clips, order)
            return keys, _keys_for_queue(keys)
        first = sum(counts[: distributed.rank()])
        clips, order = distributed.all_gather(clips, counts), distributed.all_gather(order, counts)
        # Every rank draws the same permutation.
        generator = torch.Generator().manual_seed(step)
        permutation = to_device(torch.randperm(len(clips), generator=generator), clips.device)
        mine = permutation[first : first + num_clips]
        parts = [self._embed_keys(clips[group], order[group]) for group in mine.tensor_split(groups)]
        shuffled = {
            name: distributed.all_gather(torch.cat([part[name] for part in parts]), counts) for name in parts[0]
        }
        keys = {name: torch.empty_like(x).index_copy_(0, permutation, x) for name, x in shuffled.items()}
        return {name: x[first : first + num_clips] for name, x in keys.items()}, _keys_for_queue(keys)

    def _embed_keys(self, clips: Tensor, order: Tensor) -> dict[Embedding, Tensor]:
        """Returns what the momentum copies make of clips, and of the same played backwards if they count.

        Both have the same shuffled copy beside them, which the CNN encodes once.
        """
        shuffled = shuffle_frames(clips, order)
        shown: list[tuple[Side, Tensor, Tensor]] = [("key", clips, order)]
        if self.config.contrast.reversed_weight > 0:
            shown.append(("reversed_key", clips.flip(2), clips.shape[2] - 1 - order))
        copy_first = self.config.contrast.key_first_input == "shuffled"
        keys = {}
        if self.key.cnn is not None:
            with stage("cnn"):
                copy_features = self.key.cnn(shuffled)
                for side, true_clips, _ in shown:
                    features = self.key.cnn(true_clips), copy_features
                    both = torch.cat(features[::-1] if copy_first else features, dim=1)
                    keys[Embedding("cnn", side)] = self.key.cnn_heads[CONTRAST](both)
        if self.key.transformer is not None:
            with stage("transformer"):
                for side, true_clips, true_order in shown:
                    if copy_first:  # The frames of the copy in the inverse order are the true clip.
                        inputs = shuffled, true_order.argsort(1).to(order.dtype)
                    else:
                        inputs = true_clips, true_order
                    features = self.key.transformer(*inputs)
                    keys[Embedding("transformer", side)] = self.key.transformer_heads[CONTRAST](features)
        return keys


def _keys_for_queue(keys: Mapping[Embedding, Tensor]) -> Tensor:
    return torch.cat([x for name, x in keys.items() if name.side == "key"])
