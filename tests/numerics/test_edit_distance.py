"""The edit distance of frame orders against rapidfuzz, and against what is known of Levenshtein distances."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Callable

import numpy as np
import pytest
import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor

from cacl.kernels.edit_distance import edit_distance_to_identity

LENGTHS = [1, 2, 3, 8, 16, 31, 32, 33, 62, 63, 64, 100, 255]
"""On both sides of every word size."""


def by_rapidfuzz(order: np.ndarray) -> list[int]:
    identity = bytes(range(order.shape[1]))
    return [Levenshtein.distance(bytes(row), identity) for row in order.astype(np.uint8)]


def adversarial(length: int) -> np.ndarray:
    """Identity, reversal, swaps, rotations, block moves, reversed blocks, interleaving: uint8 [n, length]."""
    identity = list(range(length))
    rows = [identity, identity[::-1], identity[::2] + identity[1::2], identity[1::2] + identity[::2]]
    cuts = sorted({0, 1, 2, length // 3, length // 2, length - 2, length - 1, length} & set(range(length + 1)))
    for i, j in itertools.combinations(cuts[:-1], 2):
        swapped = identity.copy()
        swapped[i], swapped[j] = swapped[j], swapped[i]
        rows.append(swapped)
    rows += [identity[cut:] + identity[:cut] for cut in cuts]
    for a, b, c in itertools.combinations_with_replacement(cuts, 3):
        rows.append(identity[:a] + identity[b:c] + identity[a:b] + identity[c:])  # a block moved
        rows.append(identity[:a] + identity[a:b][::-1] + identity[b:])  # a block reversed
    return np.array(rows, np.uint8)


def drawn(length: int, rows: int) -> np.ndarray:
    """From one moved frame to all: uint8 [rows, length]. Whole permutations have distances in a narrow range only."""
    rng = np.random.default_rng(length)
    orders = np.tile(np.arange(length, dtype=np.uint8), (rows, 1))
    for row in orders:
        chosen = rng.choice(length, rng.integers(1, length + 1), replace=False)
        row[np.sort(chosen)] = chosen
    return orders


def samples(length: int) -> np.ndarray:
    return np.concatenate([adversarial(length), drawn(length, 4000 if length < 64 else 1000)])


def longest_increasing(row: list[int]) -> int:
    """Length of the longest increasing subsequence, by patience sorting."""
    tops: list[int] = []
    for value in row:
        place = bisect_left(tops, value)
        tops[place : place + 1] = [value]
    return len(tops)


@pytest.mark.parametrize("length", LENGTHS)
def test_agrees_with_rapidfuzz(length: int) -> None:
    order = samples(length)
    distance = edit_distance_to_identity(torch.from_numpy(order))
    assert distance.dtype == torch.uint8
    np.testing.assert_array_equal(distance.numpy(), by_rapidfuzz(order))


@pytest.mark.parametrize("length", range(1, 8))
def test_agrees_with_rapidfuzz_on_every_permutation(length: int) -> None:
    order = np.array(list(itertools.permutations(range(length))), np.uint8)
    np.testing.assert_array_equal(edit_distance_to_identity(torch.from_numpy(order)).numpy(), by_rapidfuzz(order))


@pytest.mark.parametrize("length", LENGTHS)
def test_bounds_and_values_that_never_occur(length: int) -> None:
    """L - LIS <= D <= min(2 (L - LIS), Hamming); D = 0 is the identity and D = 1 nothing."""
    order = samples(length)
    distance = edit_distance_to_identity(torch.from_numpy(order)).numpy().astype(int)
    outside = length - np.array([longest_increasing(row) for row in order.tolist()])
    hamming = (order != np.arange(length)).sum(1)
    assert (outside <= distance).all()
    assert (distance <= np.minimum(2 * outside, hamming)).all()
    assert (distance != 1).all()
    np.testing.assert_array_equal(distance == 0, hamming == 0)


@pytest.mark.parametrize("length", LENGTHS)
def test_the_inverse_is_as_far(length: int) -> None:
    """A relabelling of both sequences turns an order and the identity into the identity and the inverse order; and
    reading both from the back, with labels counted from the back, changes nothing either."""
    order = torch.from_numpy(samples(length))
    distance = edit_distance_to_identity(order)
    assert torch.equal(edit_distance_to_identity(order.argsort(1)), distance)
    assert torch.equal(edit_distance_to_identity(length - 1 - order.flip(1)), distance)


@pytest.mark.parametrize("length", LENGTHS)
def test_known_distances(length: int) -> None:
    """A swap is two substitutions, a rotation by one a deletion and an insertion; a reversal leaves only the middle
    frame of an odd number in place, and shifting keeps no more."""
    identity = torch.arange(length)
    assert edit_distance_to_identity(identity[None]).item() == 0
    if length == 1:
        return
    swapped = identity.clone()
    swapped[[0, -1]] = swapped[[-1, 0]]
    assert edit_distance_to_identity(swapped[None]).item() == 2
    assert edit_distance_to_identity(identity.roll(1)[None]).item() == 2
    assert edit_distance_to_identity(identity.roll(-1)[None]).item() == 2
    assert edit_distance_to_identity(identity.flip(0)[None]).item() == length - length % 2


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
@pytest.mark.parametrize("length", [16, 63, 64, 255])
def test_integers_of_any_width(length: int, dtype: torch.dtype) -> None:
    order = drawn(length, 100)
    given = torch.from_numpy(order).to(dtype)
    before = given.clone()
    distance = edit_distance_to_identity(given)
    assert distance.dtype == torch.uint8
    np.testing.assert_array_equal(distance.numpy(), by_rapidfuzz(order))
    assert torch.equal(given, before)


def columns_first(order: Tensor) -> Tensor:
    return order.t().contiguous().t()


def every_other(order: Tensor) -> Tensor:
    return order.repeat_interleave(2, 0).repeat_interleave(2, 1)[::2, 1::2]


def offset(order: Tensor) -> Tensor:
    return torch.nn.functional.pad(order, (3, 2, 1, 1), value=7)[1:-1, 3:-2]


@pytest.mark.parametrize("layout", [columns_first, every_other, offset])
@pytest.mark.parametrize("length", [16, 63, 64])
def test_any_layout_in_memory(length: int, layout: Callable[[Tensor], Tensor]) -> None:
    order = drawn(length, 101)
    given = layout(torch.from_numpy(order))
    assert not given.is_contiguous()
    np.testing.assert_array_equal(edit_distance_to_identity(given).numpy(), by_rapidfuzz(order))


@pytest.mark.parametrize("length", [16, 63, 64])
def test_one_row_many_times(length: int) -> None:
    row = torch.from_numpy(drawn(length, 1))
    (expected,) = by_rapidfuzz(row.numpy())
    assert edit_distance_to_identity(row.expand(5, -1)).tolist() == [expected] * 5


@pytest.mark.parametrize("length", LENGTHS)
def test_rows_do_not_touch_each_other(length: int) -> None:
    order = torch.from_numpy(drawn(length, 9))
    together = edit_distance_to_identity(order)
    alone = [edit_distance_to_identity(row[None]) for row in order]
    assert all(distance.shape == (1,) for distance in alone)
    assert torch.equal(torch.cat(alone), together)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize("length", LENGTHS)
def test_no_rows(length: int, dtype: torch.dtype) -> None:
    distance = edit_distance_to_identity(torch.empty(0, length, dtype=dtype))
    assert distance.shape == (0,)
    assert distance.dtype == torch.uint8
