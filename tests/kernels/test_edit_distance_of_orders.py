"""The edit distance of frame orders on a CPU, against rapidfuzz and against what is known of Levenshtein distances."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from cacl.kernels.edit_distance import edit_distance_of_orders, edit_distance_to_identity
from cacl.kernels.edit_distance_cpu import to_identity_cpu
from cacl.kernels.edit_distance_reference import CHUNK_ROWS, to_identity_reference
from tests.kernels.edit_distance_truth import (
    INTEGERS,
    LENGTHS,
    WORDS,
    by_rapidfuzz,
    columns_first,
    distance_dtype,
    every_other,
    offset,
    random_orders,
    sample_orders,
    to_identity_by_rapidfuzz,
)


def longest_increasing(row: list[int]) -> int:
    """Computes the length of the longest increasing subsequence, by patience sorting."""
    tops: list[int] = []
    for value in row:
        position = bisect_left(tops, value)
        tops[position : position + 1] = [value]
    return len(tops)


@pytest.mark.parametrize("length", LENGTHS)
def test_agrees_with_rapidfuzz(length: int) -> None:
    order = sample_orders(length)
    distance = edit_distance_to_identity(torch.from_numpy(order))
    assert distance.dtype == distance_dtype(length)
    np.testing.assert_array_equal(distance.numpy(), to_identity_by_rapidfuzz(order))


def test_agrees_with_rapidfuzz_at_many_lengths() -> None:
    for length in [*range(1, 131), *range(140, 300, 40)]:
        order = random_orders(length, 20)
        distance = edit_distance_to_identity(torch.from_numpy(order))
        assert distance.tolist() == to_identity_by_rapidfuzz(order), length


@pytest.mark.parametrize("form", [to_identity_cpu, to_identity_reference])
def test_both_forms_agree_with_rapidfuzz(form: Callable[[Tensor], Tensor]) -> None:
    """The compiled form is what runs on a CPU, and the readable one what the kernels are compared with."""
    for length in range(1, 65):
        order = random_orders(length, 70)
        assert form(torch.from_numpy(order)).tolist() == to_identity_by_rapidfuzz(order), length


@pytest.mark.parametrize("form", [to_identity_cpu, to_identity_reference])
def test_more_rows_than_fit_into_the_cache(form: Callable[[Tensor], Tensor]) -> None:
    order = np.tile(random_orders(16, 3001), (23, 1))
    assert len(order) > 2 * CHUNK_ROWS
    np.testing.assert_array_equal(form(torch.from_numpy(order)).numpy(), to_identity_by_rapidfuzz(order))


@pytest.mark.parametrize("length", range(1, 8))
def test_agrees_with_rapidfuzz_on_every_permutation(length: int) -> None:
    order = np.array(list(itertools.permutations(range(length))), np.uint8)
    np.testing.assert_array_equal(
        edit_distance_to_identity(torch.from_numpy(order)).numpy(), to_identity_by_rapidfuzz(order)
    )


@pytest.mark.parametrize("length", WORDS)
def test_bounds_and_values_that_never_occur(length: int) -> None:
    """L - LIS <= D <= min(2 (L - LIS), Hamming). Only the identity has D = 0, and nothing has D = 1."""
    order = sample_orders(length)
    distance = edit_distance_to_identity(torch.from_numpy(order)).numpy().astype(int)
    outside = length - np.array([longest_increasing(row) for row in order.tolist()])
    hamming = (order != np.arange(length)).sum(1)
    assert (outside <= distance).all()
    assert (distance <= np.minimum(2 * outside, hamming)).all()
    assert (distance != 1).all()
    np.testing.assert_array_equal(distance == 0, hamming == 0)


@pytest.mark.parametrize("length", WORDS)
def test_the_inverse_is_as_far(length: int) -> None:
    """A relabelling of both sequences turns an order and the identity into the identity and the inverse order; and
    reading both from the back, with labels counted from the back, changes nothing either."""
    order = torch.from_numpy(sample_orders(length))
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


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("length", [16, 63, 64, 100])
def test_integers_of_any_width(length: int, dtype: torch.dtype) -> None:
    order = random_orders(length, 100)
    given = torch.from_numpy(order).to(dtype)
    before = given.clone()
    distance = edit_distance_to_identity(given)
    assert distance.dtype == torch.uint8
    np.testing.assert_array_equal(distance.numpy(), to_identity_by_rapidfuzz(order))
    assert torch.equal(given, before)


@pytest.mark.parametrize("layout", [columns_first, every_other, offset])
@pytest.mark.parametrize("length", [16, 63, 64, 65])
def test_any_layout_in_memory(length: int, layout: Callable[[Tensor], Tensor]) -> None:
    order = random_orders(length, 101)
    given = layout(torch.from_numpy(order))
    assert not given.is_contiguous()
    np.testing.assert_array_equal(edit_distance_to_identity(given).numpy(), to_identity_by_rapidfuzz(order))


@pytest.mark.parametrize("length", [16, 63, 64, 65])
def test_one_row_many_times(length: int) -> None:
    row = torch.from_numpy(random_orders(length, 1))
    (expected,) = to_identity_by_rapidfuzz(row.numpy())
    assert edit_distance_to_identity(row.expand(5, -1)).tolist() == [expected] * 5


@pytest.mark.parametrize("length", WORDS)
def test_rows_do_not_touch_each_other(length: int) -> None:
    order = torch.from_numpy(random_orders(length, 4))
    together = edit_distance_to_identity(order)
    alone = [edit_distance_to_identity(row[None]) for row in order]
    assert all(distance.shape == (1,) for distance in alone)
    assert torch.equal(torch.cat(alone), together)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize("length", LENGTHS)
def test_no_rows(length: int, dtype: torch.dtype) -> None:
    distance = edit_distance_to_identity(torch.empty(0, length, dtype=dtype))
    assert distance.shape == (0,)
    assert distance.dtype == distance_dtype(length)


@pytest.mark.parametrize("length", LENGTHS)
def test_two_orders_agree_with_rapidfuzz(length: int) -> None:
    first = sample_orders(length)
    second = np.random.default_rng(1).permutation(first)
    distance = edit_distance_of_orders(torch.from_numpy(first), torch.from_numpy(second))
    assert distance.dtype == distance_dtype(length)
    np.testing.assert_array_equal(distance.numpy(), by_rapidfuzz(first, second))


@pytest.mark.parametrize("length", WORDS)
def test_two_orders_are_as_far_whatever_the_symbols_are_called(length: int) -> None:
    first = torch.from_numpy(random_orders(length, 200))
    second = first.flip(0)
    distance = edit_distance_of_orders(first, second)
    assert torch.equal(edit_distance_of_orders(second, first), distance)
    names = torch.from_numpy(np.random.default_rng(2).permutation(length))
    assert torch.equal(edit_distance_of_orders(names[first.long()], names[second.long()]), distance)
    assert torch.equal(edit_distance_of_orders(first.flip(1), second.flip(1)), distance)
    assert not edit_distance_of_orders(first, first).any()
    identity = torch.arange(length).expand(200, -1)
    assert torch.equal(edit_distance_of_orders(first, identity), edit_distance_to_identity(first))


@pytest.mark.parametrize("layout", [columns_first, every_other, offset])
@pytest.mark.parametrize("length", [16, 65])
def test_two_orders_of_any_layout_and_width(length: int, layout: Callable[[Tensor], Tensor]) -> None:
    first = random_orders(length, 101)
    given = [layout(torch.from_numpy(first)), torch.from_numpy(first[::-1].astype(np.int64))]
    before = [order.clone() for order in given]
    assert edit_distance_of_orders(given[0], given[1]).tolist() == by_rapidfuzz(first, first[::-1])
    assert all(torch.equal(order, copy) for order, copy in zip(given, before, strict=True))
