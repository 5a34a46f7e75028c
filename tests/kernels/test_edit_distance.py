"""The edit distance of any sequences on a CPU against rapidfuzz, its errors, and what the operations promise torch."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from cacl.kernels.edit_distance import edit_distance, edit_distance_of_orders, edit_distance_to_identity
from tests.kernels.edit_distance_truth import (
    INTEGERS,
    by_rapidfuzz,
    columns_first,
    cut,
    every_other,
    offset,
    random_lengths,
    random_orders,
    related_sequences,
)

SIZES = [(0, 0), (0, 5), (5, 0), (1, 1), (16, 16), (63, 65), (64, 64), (65, 63), (1, 128), (128, 1), (129, 200)]


@pytest.mark.parametrize("alphabet", [1, 2, 5, 1000])
@pytest.mark.parametrize("size", SIZES)
def test_sequences_agree_with_rapidfuzz(size: tuple[int, int], alphabet: int) -> None:
    first, second = related_sequences(*size, alphabet, 150)
    distance = edit_distance(torch.from_numpy(first), torch.from_numpy(second))
    assert distance.dtype == torch.int32
    expected = by_rapidfuzz(first, second)
    np.testing.assert_array_equal(distance.numpy(), expected)
    # Distances are symmetric, and the same from the back.
    assert edit_distance(torch.from_numpy(second), torch.from_numpy(first)).tolist() == expected
    assert edit_distance(torch.from_numpy(first).flip(1), torch.from_numpy(second).flip(1)).tolist() == expected


@pytest.mark.parametrize(
    ("size", "alphabet"), [*product([(16, 16), (64, 65), (130, 90)], [1, 2, 5, 1000]), ((300, 300), 5)]
)
def test_parts_of_sequences_agree_with_rapidfuzz(size: tuple[int, int], alphabet: int) -> None:
    first, second = related_sequences(*size, alphabet, 150)
    first_lengths, second_lengths = random_lengths(150, size[0], 1), random_lengths(150, size[1], 2)
    a, b, m, n = (torch.from_numpy(array) for array in (first, second, first_lengths, second_lengths))
    expected = by_rapidfuzz(cut(first, first_lengths), cut(second, second_lengths))
    assert edit_distance(a, b, m, n).tolist() == expected
    assert edit_distance(b, a, n.int(), m.to(torch.int16)).tolist() == expected
    assert edit_distance(a, b, m).tolist() == by_rapidfuzz(cut(first, first_lengths), second)
    assert edit_distance(a, b, None, n).tolist() == by_rapidfuzz(first, cut(second, second_lengths))
    # What does not count may be anything, such as what the other sequence has there.
    hidden = torch.where(torch.arange(size[0]) < m[:, None], a, torch.from_numpy(related_sequences(*size, 2, 150)[0]))
    assert edit_distance(hidden, b, m, n).tolist() == expected


def test_lengths_outside_count_as_none_or_all() -> None:
    first, second = (torch.from_numpy(rows) for rows in related_sequences(70, 66, 3, 9))
    none, all_of_it = torch.full((9,), -1), torch.full((9,), 1000)
    assert edit_distance(first, second, none, all_of_it).tolist() == [66] * 9
    assert edit_distance(first, second, all_of_it, none).tolist() == [70] * 9
    assert torch.equal(edit_distance(first, second, all_of_it, all_of_it), edit_distance(first, second))


def test_the_largest_distances() -> None:
    first = torch.arange(300).expand(3, -1)
    assert edit_distance(first, first + 300).tolist() == [300] * 3
    assert edit_distance(first, first[:, :20] - 300).tolist() == [300] * 3
    assert edit_distance(first, first.flip(1)).tolist() == [300] * 3
    assert edit_distance_to_identity(first.flip(1)).tolist() == [300] * 3
    assert edit_distance_of_orders(first.flip(1), first).tolist() == [300] * 3
    assert edit_distance_to_identity(torch.arange(255).flip(0)[None]).tolist() == [254]


def test_orders_are_sequences_too() -> None:
    for length in (16, 64, 65):
        first = torch.from_numpy(random_orders(length, 50))
        distance = edit_distance(first, first.flip(0))
        assert torch.equal(distance, edit_distance_of_orders(first, first.flip(0)).int())


@pytest.mark.parametrize("second_dtype", INTEGERS)
@pytest.mark.parametrize("first_dtype", INTEGERS)
def test_sequences_of_integers_of_any_width(first_dtype: torch.dtype, second_dtype: torch.dtype) -> None:
    first, second = related_sequences(20, 70, 5, 20)
    distance = edit_distance(torch.from_numpy(first).to(first_dtype), torch.from_numpy(second).to(second_dtype))
    assert distance.tolist() == by_rapidfuzz(first, second)


def test_symbols_that_differ_only_in_their_high_bits() -> None:
    first, second = related_sequences(70, 66, 6, 50)
    symbols = torch.tensor([0, 1 << 32, -1 << 63, -1, (1 << 32) - 1, (1 << 63) - 1])
    a, b = symbols[torch.from_numpy(first)], symbols[torch.from_numpy(second)]
    assert edit_distance(a, b).tolist() == by_rapidfuzz(first, second)
    # -1 is not what it is in fewer bits, or without a sign.
    minus_one, largest = torch.full((1, 3), -1), torch.full((1, 3), 255, dtype=torch.uint8)
    assert edit_distance(minus_one.to(torch.int8), largest).tolist() == [3]
    for dtype in (torch.int32, torch.int64):
        unsigned = torch.full((1, 3), (1 << 32) - 1, dtype=torch.uint32)
        assert edit_distance(minus_one.to(dtype), unsigned).tolist() == [3]


@pytest.mark.parametrize("layout", [columns_first, every_other, offset])
def test_sequences_of_any_layout(layout: Callable[[Tensor], Tensor]) -> None:
    first, second = related_sequences(70, 66, 4, 31)
    m, n = random_lengths(31, 70, 1), random_lengths(31, 66, 2)
    lengths = torch.stack([torch.from_numpy(m), torch.from_numpy(n)], 1).unbind(1)
    given = [layout(torch.from_numpy(first)), layout(torch.from_numpy(second)), *lengths]
    assert not any(tensor.is_contiguous() for tensor in given)
    before = [tensor.clone() for tensor in given]
    assert edit_distance(*given).tolist() == by_rapidfuzz(cut(first, m), cut(second, n))
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(given, before, strict=True))


def test_no_sequences() -> None:
    for first, second in [(5, 70), (70, 5), (0, 0)]:
        distance = edit_distance(torch.empty(0, first, dtype=torch.int64), torch.empty(0, second, dtype=torch.int64))
        assert distance.shape == (0,)
        assert distance.dtype == torch.int32
    nothing = torch.empty(0, 16, dtype=torch.int64)
    assert edit_distance_of_orders(nothing, nothing).shape == (0,)


ORDERS = torch.zeros(2, 3, dtype=torch.int64)


WRONG = [
    (lambda: edit_distance_to_identity(ORDERS.float()), TypeError, "order is torch.float32, not integers"),
    (lambda: edit_distance_to_identity(ORDERS.bool()), TypeError, "order is torch.bool, not integers"),
    (lambda: edit_distance_to_identity(ORDERS[0]), ValueError, "order has 1 dimensions, not 2: batch and length"),
    (lambda: edit_distance_to_identity(ORDERS[:, :0]), ValueError, "orders of no frames"),
    (lambda: edit_distance_of_orders(ORDERS, ORDERS.half()), TypeError, "second is torch.float16, not integers"),
    (lambda: edit_distance_of_orders(ORDERS[:1], ORDERS), ValueError, "orders of different shapes, (1, 3) and (2, 3)"),
    (lambda: edit_distance_of_orders(ORDERS[:, :0], ORDERS[:, :0]), ValueError, "orders of no frames"),
    (
        lambda: edit_distance_of_orders(ORDERS, ORDERS.to("meta")),
        ValueError,
        "sequences on different devices, cpu and meta",
    ),
    (lambda: edit_distance(ORDERS.double(), ORDERS), TypeError, "first is torch.float64, not integers"),
    (lambda: edit_distance(ORDERS, ORDERS[None]), ValueError, "second has 3 dimensions, not 2: batch and length"),
    (lambda: edit_distance(ORDERS, ORDERS[:1]), ValueError, "batches of different sizes, 2 and 1"),
    (lambda: edit_distance(ORDERS, ORDERS.to("meta")), ValueError, "sequences on different devices, cpu and meta"),
    (lambda: edit_distance(ORDERS, ORDERS, torch.ones(2)), TypeError, "lengths are torch.float32, not integers"),
    (lambda: edit_distance(ORDERS, ORDERS, None, ORDERS[0]), ValueError, "lengths are (3,), not (2,) as the batch"),
    (lambda: edit_distance(ORDERS, ORDERS, ORDERS), ValueError, "lengths are (2, 3), not (2,) as the batch"),
    (
        lambda: edit_distance(ORDERS, ORDERS, ORDERS[:, 0].to("meta")),
        ValueError,
        "lengths are on meta, sequences on cpu",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_wrong_input_is_named(call: Callable[[], Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


@pytest.mark.parametrize("length", [8, 16, 32, 64])
def test_the_operation_on_orders_is_sound(length: int) -> None:
    """Torch asks operations for a faithful shape function, no aliases and unchanged inputs."""
    torch.library.opcheck(
        torch.ops.cacl.edit_distance_to_identity.default, (torch.from_numpy(random_orders(length, 5)),)
    )


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_the_operation_on_sequences_is_sound(dtype: torch.dtype) -> None:
    first, second = (torch.from_numpy(rows).to(dtype) for rows in related_sequences(70, 66, 4, 5))
    m, n = (torch.from_numpy(random_lengths(5, longest, longest)).int() for longest in (70, 66))
    torch.library.opcheck(torch.ops.cacl.edit_distance.default, (first, second, m, n))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize("length", [16, 64, 65])
def test_compiles_once_for_all_sizes_of_the_batch(length: int, dtype: torch.dtype) -> None:
    def distances(first: Tensor, second: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        return (
            edit_distance_to_identity(first),
            edit_distance_of_orders(first, second),
            edit_distance(first, second),
            edit_distance(first, second, lengths, lengths),
        )

    torch.compiler.reset()
    compiled = torch.compile(distances, fullgraph=True, backend="aot_eager", dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for rows in (5, 6, 64):
            first = torch.from_numpy(random_orders(length, rows)).to(dtype)
            inputs = first, first.flip(0), torch.from_numpy(random_lengths(rows, length, rows))
            for ours, expected in zip(compiled(*inputs), distances(*inputs), strict=True):
                assert ours.dtype == expected.dtype
                assert torch.equal(ours, expected)
