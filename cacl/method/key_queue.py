"""The queue of keys from earlier videos, which serve as negatives (He et al., MoCo, CVPR 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class KeyQueue(nn.Module):
    """The last `size` keys, on the device, part of the checkpoint. Starts with random directions."""

    keys: Tensor
    """float32 [size, D], unit vectors."""
    pointer: Tensor
    """int64 scalar on the device: where the next key goes. It is never read on the host."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Puts keys [N, D] in the place of the oldest; of more than `size`, the last ones stay. Any N, any size."""
        size = len(self.keys)
        skipped = max(0, len(keys) - size)
        places = (self.pointer + torch.arange(skipped, len(keys), device=self.keys.device)) % size
        self.keys.index_copy_(0, places, keys[skipped:].to(self.keys.dtype))
        self.pointer.add_(len(keys)).remainder_(size)
