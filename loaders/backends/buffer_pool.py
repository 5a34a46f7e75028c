"""Memory that is used again.

Fresh memory is not free: the system clears each page of it at the first touch, which takes as long as decoding a small
clip into it.
"""

from __future__ import annotations

import math
import weakref
from collections import deque

import numpy as np
import torch
from torch import Tensor


class BufferPool:
    """Hands out float16 tensors, and takes their memory back when nobody holds the tensor or a view of it any more."""

    def __init__(self) -> None:
        self.free: deque[np.ndarray] = deque()
        """The buffers that nobody uses, longest unused first. It is changed by single appends and pops only, since
        tensors may come to their end in any thread and at any time."""

    def tensor(self, *shape: int) -> Tensor:
        """Returns a float16 tensor with any content.

        Args:
            *shape: The shape of the tensor.
        """
        memory = self._take(math.prod(shape))
        handle = memory[:]  # torch holds this object as long as any tensor lies in it
        weakref.finalize(handle, self.free.append, memory)
        return torch.from_numpy(handle).view(shape)

    def _take(self, elements: int) -> np.ndarray:
        while True:
            try:
                memory = self.free.popleft()
            except IndexError:
                return np.empty(elements, np.float16)
            if memory.size == elements:  # others are of an earlier batch size, and are let go
                return memory
