"""Memory that is used again.

Fresh memory is not free: the system clears each page of it at the first touch, which takes as long as decoding a small
clip into it.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

_local = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Memory of this thread; the next call with this name gets the same."""
    kept: dict[str, np.ndarray] = _local.__dict__.setdefault("scratch", {})
    array = kept.get(name)
    if array is None or array.shape != shape or array.dtype != dtype:
        array = kept[name] = np.empty(shape, dtype)
    return array


class BufferPool:
    """Hands out float16 tensors, and takes their memory back when nobody holds the tensor or a view of it any more."""

    def __init__(self) -> None:
        self.free: deque[np.ndarray] = deque()
        """Longest unused first. Only single appends and pops change it: tensors end in any thread, at any time."""

    def tensor(self, *shape: int) -> Tensor:
        memory = self._memory(math.prod(shape))
        handle = memory[:]  # torch holds this object as long as any tensor lies in it
        weakref.finalize(handle, self.free.append, memory)
        return torch.from_numpy(handle).view(shape)

    def _memory(self, numbers: int) -> np.ndarray:
        while True:
            try:
                memory = self.free.popleft()
            except IndexError:
                return np.empty(numbers, np.float16)
            if memory.size == numbers:  # others: of an earlier size of batch
                return memory
