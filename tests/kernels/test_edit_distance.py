"""The edit distance of frame orders and of other sequences against rapidfuzz, and against what is known of Levenshtein
distances: the reference, that is, which runs on a CPU."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor

from cacl.kernels.edit_distance import edit_distance, edit_distance_of_orders, edit_distance_to_identity
from cacl.kernels.edit_distance_reference import CHUNK_ROWS

INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64]
LENGTHS = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 62, 63, 64, 65, 100, 128, 129, 255, 256, 300]
"""On both sides of every word size."""


def by_rapidfuzz(first: Iterable[np.ndarray], second: Iterable[np.ndarray]) -> list[int]:
    """Of sequences of small symbols, which become characters."""
    return [Levenshtein.distance(text(a), text(b)) for a, b in zip(first, second, strict=True)]


def to_identity_by_rapidfuzz(order: np.ndarray) -> list[int]:
    return by_rapidfuzz(order, [np.arange(order.shape[1])] * len(order))


def text(row: np.ndarray) -> str:
    return row.astype("<u4").tobytes().decode("utf-32-le")


def result_of(length: int) -> torch.dtype:
    return torch.uint8 if length <= 255 else torch.int32


def adversarial(length: int) -> np.ndarray:
    """Identity, reversal, swaps, rotations, block moves, reversed blocks, interleaving: integer [n, length]."""
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
    return np.array(rows, narrowest(length))


def narrowest(length: int) -> type[np.integer]:
    return np.uint8 if length <= 256 else np.int32


def drawn(length: int, rows: int) -> np.ndarray:
    """From one moved frame to all: integer [rows, length]. Whole permutations have distances in a narrow range only."""
    rng = np.random.default_rng(length)
    orders = np.tile(np.arange(length, dtype=narrowest(length)), (rows, 1))
    for row in orders:
        chosen = rng.choice(length, rng.integers(1, length + 1), replace=False)
        row[np.sort(chosen)] = chosen
    return orders


def samples(length: int) -> np.ndarray:
    return np.concatenate([adversarial(length), drawn(length, 4000 if length < 64 else 1000 if length < 128 else 200)])


def longest_increasing(row: list[int]) -> int:
    """Length of the longest increasing subsequence, by patience sorting."""
    tops: list[int] = []
    for value in row:
        position = bisect_left(tops, value)
        tops[position : position + 1] = [value]
    return len(tops)


@pytest.mark.parametrize("length", LENGTHS)
def test_agrees_with_rapidfuzz(length: int) -> None:
    order = samples(length)
    distance = edit_distance_to_identity(torch.from_numpy(order))
    assert distance.dtype == result_of(length)
    np.testing.assert_array_equal(distance.numpy(), to_identity_by_rapidfuzz(order))


def test_agrees_with_rapidfuzz_at_many_lengths() -> None:
    for length in [*range(1, 131), *range(140, 300, 10)]:
        order = drawn(length, 20)
        distance = edit_distance_to_identity(torch.from_numpy(order))
        assert distance.tolist() == to_identity_by_rapidfuzz(order), length


def test_more_rows_than_fit_into_the_cache() -> None:
    order = np.tile(drawn(16, 3001), (23, 1))
    assert len(order) > 2 * CHUNK_ROWS
    distance = edit_distance_to_identity(torch.from_numpy(order))
    np.testing.assert_array_equal(distance.numpy(), to_identity_by_rapidfuzz(order))


@pytest.mark.parametrize("length", range(1, 8))
def test_agrees_with_rapidfuzz_on_every_permutation(length: int) -> None:
    order = np.array(list(itertools.permutations(range(length))), np.uint8)
    np.testing.assert_array_equal(
        edit_distance_to_identity(torch.from_numpy(order)).numpy(), to_identity_by_rapidfuzz(order)
    )


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


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("length", [16, 63, 64, 100])
def test_integers_of_any_width(length: int, dtype: torch.dtype) -> None:
    order = drawn(length, 100)
    given = torch.from_numpy(order).to(dtype)
    before = given.clone()
    distance = edit_distance_to_identity(given)
    assert distance.dtype == torch.uint8
    np.testing.assert_array_equal(distance.numpy(), to_identity_by_rapidfuzz(order))
    assert torch.equal(given, before)


def columns_first(order: Tensor) -> Tensor:
    return order.t().contiguous().t()


def every_other(order: Tensor) -> Tensor:
    return order.repeat_interleave(2, 0).repeat_interleave(2, 1)[::2, 1::2]


def offset(order: Tensor) -> Tensor:
    return torch.nn.functional.pad(order, (3, 2, 1, 1), value=7)[1:-1, 3:-2]


@pytest.mark.parametrize("layout", [columns_first, every_other, offset])
@pytest.mark.parametrize("length", [16, 63, 64, 65])
def test_any_layout_in_memory(length: int, layout: Callable[[Tensor], Tensor]) -> None:
    order = drawn(length, 101)
    given = layout(torch.from_numpy(order))
    assert not given.is_contiguous()
    np.testing.assert_array_equal(edit_distance_to_identity(given).numpy(), to_identity_by_rapidfuzz(order))


@pytest.mark.parametrize("length", [16, 63, 64, 65])
def test_one_row_many_times(length: int) -> None:
    row = torch.from_numpy(drawn(length, 1))
    (expected,) = to_identity_by_rapidfuzz(row.numpy())
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
    assert distance.dtype == result_of(length)


@pytest.mark.parametrize("length", LENGTHS)
def test_two_orders_agree_with_rapidfuzz(length: int) -> None:
    first = samples(length)
    second = np.random.default_rng(1).permutation(first)
    distance = edit_distance_of_orders(torch.from_numpy(first), torch.from_numpy(second))
    assert distance.dtype == result_of(length)
    np.testing.assert_array_equal(distance.numpy(), by_rapidfuzz(first, second))


@pytest.mark.parametrize("length", LENGTHS)
def test_two_orders_are_as_far_whatever_the_symbols_are_called(length: int) -> None:
    first = torch.from_numpy(drawn(length, 200))
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
    first = drawn(length, 101)
    given = [layout(torch.from_numpy(first)), torch.from_numpy(first[::-1].astype(np.int64))]
    before = [order.clone() for order in given]
    assert edit_distance_of_orders(given[0], given[1]).tolist() == by_rapidfuzz(first, first[::-1])
    assert all(torch.equal(order, copy) for order, copy in zip(given, before, strict=True))


def related(first: int, second: int, alphabet: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of sequences of `alphabet` symbols, from unrelated to almost equal ones: int32 [rows, first], [rows,
    second]. The second is the first with symbols dropped, doubled and replaced."""
    rng = np.random.default_rng([first, second, alphabet])
    a = rng.integers(0, alphabet, (rows, first), np.int32)
    b = rng.integers(0, alphabet, (rows, second), np.int32)
    share = rng.random((rows, 1))
    if first:
        moves = rng.choice([0, 1, 2], (rows, second), p=[0.05, 0.9, 0.05]).cumsum(1) - 1
        b = np.where(rng.random(b.shape) < share, np.take_along_axis(a, moves.clip(0, first - 1), 1), b)
    return a, b


SIZES = [(0, 0), (0, 5), (5, 0), (1, 1), (16, 16), (63, 65), (64, 64), (65, 63), (1, 128), (128, 1), (129, 200)]


@pytest.mark.parametrize("alphabet", [1, 2, 5, 1000])
@pytest.mark.parametrize("size", SIZES)
def test_sequences_agree_with_rapidfuzz(size: tuple[int, int], alphabet: int) -> None:
    first, second = related(*size, alphabet, 500)
    distance = edit_distance(torch.from_numpy(first), torch.from_numpy(second))
    assert distance.dtype == torch.int32
    expected = by_rapidfuzz(first, second)
    np.testing.assert_array_equal(distance.numpy(), expected)
    # Symmetric, and the same from the back.
    assert edit_distance(torch.from_numpy(second), torch.from_numpy(first)).tolist() == expected
    assert edit_distance(torch.from_numpy(first).flip(1), torch.from_numpy(second).flip(1)).tolist() == expected


def lengths_of(rows: int, longest: int, seed: int) -> np.ndarray:
    """int64 [rows]: any, and often none, all, or as many as fill words."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, longest + 1, rows)
    special = [length for length in (0, 1, 63, 64, 65, 128, 256, longest) if length <= longest]
    return np.where(rng.random(rows) < 0.3, rng.choice(special, rows), lengths)


def cut(rows: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]


@pytest.mark.parametrize("alphabet", [1, 2, 5, 1000])
@pytest.mark.parametrize("size", [(16, 16), (64, 65), (130, 90), (300, 300)])
def test_parts_of_sequences_agree_with_rapidfuzz(size: tuple[int, int], alphabet: int) -> None:
    first, second = related(*size, alphabet, 500)
    first_lengths, second_lengths = lengths_of(500, size[0], 1), lengths_of(500, size[1], 2)
    a, b, m, n = (torch.from_numpy(array) for array in (first, second, first_lengths, second_lengths))
    expected = by_rapidfuzz(cut(first, first_lengths), cut(second, second_lengths))
    assert edit_distance(a, b, m, n).tolist() == expected
    assert edit_distance(b, a, n.int(), m.to(torch.int16)).tolist() == expected
    assert edit_distance(a, b, m).tolist() == by_rapidfuzz(cut(first, first_lengths), second)
    assert edit_distance(a, b, None, n).tolist() == by_rapidfuzz(first, cut(second, second_lengths))
    # What does not count may be anything, such as what the other sequence has there.
    hidden = torch.where(torch.arange(size[0]) < m[:, None], a, torch.from_numpy(related(*size, 2, 500)[0]))
    assert edit_distance(hidden, b, m, n).tolist() == expected


def test_lengths_outside_count_as_none_or_all() -> None:
    first, second = (torch.from_numpy(rows) for rows in related(70, 66, 3, 9))
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
        first = torch.from_numpy(drawn(length, 50))
        distance = edit_distance(first, first.flip(0))
        assert torch.equal(distance, edit_distance_of_orders(first, first.flip(0)).int())


@pytest.mark.parametrize("second_dtype", INTEGERS)
@pytest.mark.parametrize("first_dtype", INTEGERS)
def test_sequences_of_integers_of_any_width(first_dtype: torch.dtype, second_dtype: torch.dtype) -> None:
    first, second = related(20, 70, 5, 20)
    distance = edit_distance(torch.from_numpy(first).to(first_dtype), torch.from_numpy(second).to(second_dtype))
    assert distance.tolist() == by_rapidfuzz(first, second)


def test_symbols_that_differ_only_in_their_high_bits() -> None:
    first, second = related(70, 66, 6, 50)
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
    first, second = related(70, 66, 4, 31)
    m, n = lengths_of(31, 70, 1), lengths_of(31, 66, 2)
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
    """What torch asks of operations: a faithful shape function, no aliases, nothing changed."""
    torch.library.opcheck(torch.ops.cacl.edit_distance_to_identity.default, (torch.from_numpy(drawn(length, 5)),))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_the_operation_on_sequences_is_sound(dtype: torch.dtype) -> None:
    first, second = (torch.from_numpy(rows).to(dtype) for rows in related(70, 66, 4, 5))
    m, n = (torch.from_numpy(lengths_of(5, longest, longest)).int() for longest in (70, 66))
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
            first = torch.from_numpy(drawn(length, rows)).to(dtype)
            inputs = first, first.flip(0), torch.from_numpy(lengths_of(rows, length, rows))
            for ours, expected in zip(compiled(*inputs), distances(*inputs), strict=True):
                assert ours.dtype == expected.dtype
                assert torch.equal(ours, expected)
