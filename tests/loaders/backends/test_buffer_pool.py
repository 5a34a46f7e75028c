"""Memory that the loaders use again and again: a tensor keeps its content for as long as anybody holds it."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from cacl.loaders.backends.buffer_pool import BufferPool

HOLDERS: dict[str, Callable[[Tensor], object]] = {
    "itself": lambda tensor: tensor,
    "a slice": lambda tensor: tensor[1, :, 2:],
    "a view": lambda tensor: tensor.view(-1).view(3, 40),
    "another order": lambda tensor: tensor.permute(2, 1, 0).mT,
    "some of its rows": lambda tensor: tensor.unbind()[-1],
    "without gradient": lambda tensor: tensor.detach(),
    "in numpy": lambda tensor: tensor.numpy(),
    "a part in numpy": lambda tensor: tensor[0].numpy()[1:, ::2],
    "from numpy again": lambda tensor: torch.from_numpy(tensor.numpy()[:1]),
    "its storage": lambda tensor: tensor.untyped_storage(),
    "in DLPack": lambda tensor: np.from_dlpack(tensor),
}


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)
def test_memory_returns_when_nobody_holds_it(holder: Callable[[Tensor], object]) -> None:
    buffers = BufferPool()
    tensor = buffers.tensor(4, 5, 6)
    assert (tensor.shape, tensor.dtype, tensor.is_contiguous()) == ((4, 5, 6), torch.float16, True)
    address = tensor.data_ptr()
    held = holder(tensor)
    del tensor
    others = [buffers.tensor(4, 5, 6) for _ in range(3)]
    assert len({address, *(other.data_ptr() for other in others)}) == 4
    del held
    assert buffers.tensor(4, 5, 6).data_ptr() == address
    del others
    assert len({buffers.tensor(4, 5, 6).data_ptr() for _ in range(20)}) <= 4


def test_what_is_held_stays_as_it_is() -> None:
    buffers = BufferPool()
    held: list[tuple[int, Tensor]] = []
    draw = np.random.default_rng(0)
    addresses = set[int]()
    for number in range(300):
        tensor = buffers.tensor(6, 7).fill_(number)
        addresses.add(tensor.data_ptr())
        held.append((number, tensor[int(draw.integers(6))]))
        for _ in range(int(draw.integers(0, 3))):
            if held:
                held.pop(int(draw.integers(len(held))))
        held = held[-10:]
        assert all((part == number).all() for number, part in held)
        assert len({part.untyped_storage().data_ptr() for _, part in held}) == len(held)
    assert len(addresses) <= 12


def test_other_sizes() -> None:
    buffers = BufferPool()
    first = [buffers.tensor(8, 4) for _ in range(5)]
    del first
    for shape in ((4, 8), (9, 4), (1,), (8, 4), (0, 4), (2, 16)):
        tensor = buffers.tensor(*shape)
        assert tensor.shape == shape
        tensor.fill_(1)
    del tensor
    for _ in range(10):
        buffers.tensor(3, 3)
    assert sum(memory.size for memory in buffers.free) == 9, "memory of an earlier size is let go"


def test_memory_outlives_the_pool() -> None:
    tensor = BufferPool().tensor(100).fill_(3)
    gc.collect()
    assert (tensor == 3).all()


def test_several_threads_take_and_return() -> None:
    buffers, begin, live, lock = BufferPool(), threading.Barrier(4), set[int](), threading.Lock()

    def work(thread: int) -> None:
        begin.wait()
        for turn in range(500):
            tensors = [buffers.tensor(2, 3) for _ in range(turn % 5)]
            addresses = {tensor.data_ptr() for tensor in tensors}
            with lock:
                assert not addresses & live, "handed out twice at once"
                assert len(addresses) == len(tensors)
                live.update(addresses)
            for tensor in tensors:
                tensor.fill_(thread)
            assert all((tensor == thread).all() for tensor in tensors)
            with lock:
                live.difference_update(addresses)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
    finally:
        sys.setswitchinterval(interval)
    assert not live
