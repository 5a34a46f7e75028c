"""Memory that is used again.

Fresh memory is not free: the system clears each page of it at the first touch, which takes as long as decoding a small
clip into it.
"""

from __future__ import annotations

import math
import threading
import weakref

import numpy as np
import torch
from torch import Tensor

_local = threading.local()


def scratch(name: str, *shape: int, dtype: torch.dtype) -> Tensor:
    """Memory of this thread; the next call with this name gets the same."""
    kept: dict[str, Tensor] = _local.__dict__.setdefault("scratch", {})
    tensor = kept.get(name)
    if tensor is None or tensor.shape != shape or tensor.dtype != dtype:
        tensor = kept[name] = torch.empty(shape, dtype=dtype)
    return tensor


class Recycler:
    """Hands out float16 tensors, and takes their memory back when nobody holds the tensor or a view of it any more."""

    def __init__(self) -> None:
        self.free: list[np.ndarray] = []

    def tensor(self, *shape: int) -> Tensor:
        numbers = math.prod(shape)
        self.free[:] = [memory for memory in self.free if memory.size == numbers]  # others: of an earlier size of batch
        memory = self.free.pop() if self.free else np.empty(numbers, np.float16)
        handle = memory[:]  # torch holds this object as long as any tensor lies in it
        weakref.finalize(handle, self.free.append, memory)
        return torch.from_numpy(handle).view(shape)
