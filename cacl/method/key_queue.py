"""The queue of keys from earlier videos, which serve as negatives (He et al., MoCo, CVPR 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class KeyQueue(nn.Module):
    """A ring buffer of the last `size` keys, which lies on the device and is part of the checkpoint.

    It starts with random unit vectors.

    Args:
        size: The number K of keys that the queue holds.
        dim: The length D of a key.
    """

    keys: Tensor
    """float32 [K, D], unit vectors."""
    pointer: Tensor
    """int64 scalar: the row that the next key goes to. It stays on the device, so that nothing waits to read it."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Replaces the oldest keys of the queue by new ones.

        Args:
            keys: Unit vectors [N, D] of any floating dtype, for any N. Of more than K keys, the last K stay.
        """
        size = len(self.keys)
        skipped = max(0, len(keys) - size)
        rows = (self.pointer + torch.arange(skipped, len(keys), device=self.keys.device)) % size
        self.keys.index_copy_(0, rows, keys[skipped:].to(self.keys.dtype))
        self.pointer.add_(len(keys)).remainder_(size)

    def oldest(self, count: int) -> Tensor:
        """Returns the keys that are replaced next.

        Args:
            count: How many, up to K.

        Returns:
            float32 [count, D], the oldest first.
        """
        return self.keys[(self.pointer + torch.arange(count, device=self.keys.device)) % len(self.keys)]
