"""One step of the method: queries, keys, losses; then the momentum copies and the queue."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from cacl import distributed
from cacl.clips import ClipBatch, to_device
from cacl.config import Config
from cacl.method.dual_encoder import DualEncoder, shuffle_frames
from cacl.method.ema import ema_copy, ema_update
from cacl.method.key_queue import KeyQueue
from cacl.method.losses import LossParts, contrast_loss, order_loss


class CACL(nn.Module):
    """The whole method. Its state dict is everything that learning changes, apart from the optimiser."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.query = DualEncoder(config)
        self.key = ema_copy(self.query)
        self.key.order_head = None  # keys are only contrasted
        self.queue = KeyQueue(config.contrast.queue_size, config.model.embedding_dim)

    @property
    def min_clips_per_rank(self) -> int:
        """Of a rank, in a step: two for every batch that is normalised, as one has no statistics."""
        return 2 * (1 if self.config.contrast.pairs == "none" else self.config.contrast.shuffle_bn_groups)

    def loss(
        self, query: nn.Module, batch: ClipBatch, step: int, counts: Sequence[int] | None = None
    ) -> tuple[LossParts, Tensor]:
        """The losses of one batch, and the new keys [N, D] of all ranks for `update`.

        `query` is self.query or a wrapper of it (data parallel, compiled). counts: clips of each rank; None: all
        have as many.
        """
        contrast, order = self.config.contrast, self.config.order
        counts = counts or [len(batch)] * distributed.world()
        # Views travel in half precision; networks take fp32, or what autocast makes of it.
        encoded = query(batch.query.float(), batch.order)
        total, metrics = torch.zeros((), device=batch.order.device), {}
        all_keys = self.queue.keys[:0]
        if contrast.pairs != "none":
            keys, all_keys = self._encode_keys(batch.key.float(), batch.order, step, counts)
            embeddings = {f"{name}_q": encoded[name] for name in keys} | {f"{name}_k": keys[name] for name in keys}
            with torch.autocast(batch.order.device.type, enabled=False):  # losses stay fp32
                value, metrics = contrast_loss(
                    embeddings,
                    self.queue.keys,
                    contrast.temperature,
                    contrast.pairs,
                    contrast.negatives,
                    gather=partial(distributed.gather, counts=counts),
                    rank_offset=sum(counts[: distributed.rank()]),
                )
            total = total + contrast.weight * value
            metrics["contrast"] = value.detach()
        if order.weight > 0:
            value, order_metrics = order_loss(encoded["order"], batch.order)
            total = total + order.weight * value
            metrics |= order_metrics | {"order": value.detach()}
        return LossParts(total=total, metrics=metrics), all_keys

    def update(self, keys: Tensor) -> None:
        """After an optimiser step: the momentum copies follow, the new keys enter the queue."""
        trained = dict(self.query.named_parameters())
        moving = [name for name, p in self.key.named_parameters() if trained[name].requires_grad]
        targets = dict(self.key.named_parameters())
        ema_update([targets[n] for n in moving], [trained[n] for n in moving], self.config.contrast.momentum)
        self.queue.enqueue(keys)

    @torch.no_grad()
    def _encode_keys(
        self, clips: Tensor, order: Tensor, step: int, counts: Sequence[int]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The keys of this rank's clips by encoder, and those of all ranks and encoders in one tensor.

        Shuffled batch norm (He et al., MoCo, section 3.3): clips are permuted over all ranks and normalised in other
        company than their queries, so that batch statistics do not give a pair away.
        """
        batch, groups = len(clips), self.config.contrast.shuffle_bn_groups
        if self.config.contrast.key_batch_order == "reversed":
            # The shuffled copy takes the place of the clip; its frames in the inverse order are the true clip.
            clips, order = shuffle_frames(clips, order), order.argsort(1).to(order.dtype)
        if distributed.world() * groups == 1:
            keys = self.key(clips, order)
            return keys, torch.cat(list(keys.values()))
        first = sum(counts[: distributed.rank()])
        clips, order = distributed.gather(clips, counts), distributed.gather(order, counts)
        # Every rank draws the same permutation.
        generator = torch.Generator().manual_seed(step)
        permutation = to_device(torch.randperm(len(clips), generator=generator), clips.device)
        mine = permutation[first : first + batch]
        parts = [self.key(clips[group], order[group]) for group in mine.tensor_split(groups)]
        shuffled = {name: distributed.gather(torch.cat([part[name] for part in parts]), counts) for name in parts[0]}
        keys = {name: torch.empty_like(x).index_copy_(0, permutation, x) for name, x in shuffled.items()}
        return {name: x[first : first + batch] for name, x in keys.items()}, torch.cat(list(keys.values()))
