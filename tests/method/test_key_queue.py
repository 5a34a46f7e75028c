"""The queue against a list in which one key after the other is put down."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from cacl.method.key_queue import KeyQueue

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.mark.parametrize("size", [1, 2, 5, 7, 64])
def test_queue_is_a_ring(size: int) -> None:
    queue = KeyQueue(size, 3)
    model, pointer, written = queue.keys.tolist(), 0, 0
    counts = [0, 1, size, size - 1, size + 1, 2 * size, 3 * size + 1, 2 * size - 1]
    counts += torch.randint(0, 2 * size + 2, (50,)).tolist()
    for count in counts:
        keys = F.normalize(torch.randn(count, 3), dim=1)
        queue.enqueue(keys)
        for key in keys.tolist():
            model[pointer], pointer = key, (pointer + 1) % size
        written += count
        assert queue.keys.tolist() == model
        assert queue.pointer.item() == pointer == written % size


def test_queue_starts_with_different_unit_vectors() -> None:
    queue = KeyQueue(1000, 16)
    assert queue.keys.shape == (1000, 16)
    assert queue.keys.dtype == torch.float32
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(1000), rtol=0, atol=1e-6)
    assert len(queue.keys.unique(dim=0)) == 1000
    # a sum of uniform directions has a mean square length of 1000
    assert queue.keys.sum(0).square().sum() < 1000 * (1 + 4 * math.sqrt(2 / 16))
    assert (queue.pointer.item(), queue.pointer.dtype, queue.pointer.shape) == (0, torch.int64, ())


def test_queue_is_no_parameter_and_takes_no_graph() -> None:
    queue = KeyQueue(5, 3)
    assert list(queue.parameters()) == []
    queue.enqueue(torch.randn(3, 3, requires_grad=True) * 2)
    assert not queue.keys.requires_grad


def test_queue_goes_on_from_its_state() -> None:
    old, new = KeyQueue(7, 3), KeyQueue(7, 3)
    old.enqueue(torch.randn(4, 3))
    assert set(old.state_dict()) == {"keys", "pointer"}
    new.load_state_dict(old.state_dict())
    more = torch.randn(5, 3)
    old.enqueue(more)
    assert not torch.equal(new.keys, old.keys)  # loading copied
    new.enqueue(more)
    assert torch.equal(new.keys, old.keys)
    assert torch.equal(new.pointer, old.pointer)


def test_queue_keeps_its_precision() -> None:
    queue, keys = KeyQueue(4, 3), torch.randn(6, 3).bfloat16()
    queue.enqueue(keys)
    assert queue.keys.dtype == torch.float32
    assert torch.equal(queue.keys, keys[[4, 5, 2, 3]].float())  # key i lies at i modulo 4


@pytest.mark.parametrize("count", [0, 1, 4, 7])
def test_the_oldest_keys_are_those_that_are_replaced_next(count: int) -> None:
    queue = KeyQueue(7, 3)
    written = F.normalize(torch.randn(19, 3), dim=1)
    for keys in written.split(5):
        queue.enqueue(keys)
    oldest = queue.oldest(count)
    assert oldest.tolist() == written[12 : 12 + count].tolist()
    before = queue.keys.clone()
    queue.enqueue(F.normalize(torch.randn(count, 3), dim=1))
    replaced = (before != queue.keys).any(1)
    assert sorted(before[replaced].tolist()) == sorted(oldest.tolist())
