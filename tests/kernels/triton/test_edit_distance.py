"""The kernels of the edit distance against rapidfuzz, and against the reference that tests/kernels proves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cacl.kernels import edit_distance_triton
from cacl.kernels.dispatch import INTERPRETED
from cacl.kernels.edit_distance import edit_distance, edit_distance_of_orders, edit_distance_to_identity
from cacl.kernels.edit_distance_reference import sequences_reference, to_identity_reference
from cacl.kernels.edit_distance_triton import launch_sequences, launch_to_identity
from tests.kernels.edit_distance_truth import (
    INTEGERS,
    by_rapidfuzz,
    columns_first,
    cut,
    distance_dtype,
    every_other,
    offset,
    random_lengths,
    random_orders,
    related_sequences,
    sample_orders,
    to_identity_by_rapidfuzz,
)

LENGTHS = [1, 2, 3, 16, 31, 32, 33, 63, 64, 65, 129]
"""These are on both sides of every word size, packed and not."""
LONG = [257]
"""These take several words, and their distances may not fit into bytes. The interpreter takes all of them together, for
the sake of time."""
if not INTERPRETED:
    LENGTHS += [127, 128]
    LONG += [255, 256, 300]
BATCHES = [1, 5, 127, 129]
"""These are on both sides of the rows of a program."""


@pytest.fixture
def large_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes hardly longer for a program of many rows than for one of few."""
    if INTERPRETED:
        monkeypatch.setattr(edit_distance_triton, "ORDERS_PER_PROGRAM", 8192)
        monkeypatch.setattr(edit_distance_triton, "PAIRS_PER_PROGRAM", 2048)


def on(device: torch.device, *arrays: np.ndarray) -> list[Tensor]:
    return [torch.from_numpy(array).to(device) for array in arrays]


@pytest.mark.usefixtures("large_programs")
@pytest.mark.parametrize("length", LENGTHS)
def test_orders_agree_with_rapidfuzz(length: int, device: torch.device) -> None:
    order = sample_orders(length)
    order = np.concatenate([order, order[:, ::-1]]) if length <= 64 else order
    distance = edit_distance_to_identity(*on(device, order))
    assert distance.device.type == device.type
    assert distance.dtype == distance_dtype(length)
    np.testing.assert_array_equal(distance.cpu().numpy(), to_identity_by_rapidfuzz(order))


@pytest.mark.usefixtures("large_programs")
def test_long_orders_agree_with_rapidfuzz(device: torch.device) -> None:
    orders = [order for length in LONG for order in sample_orders(length)]
    lengths = np.array([len(order) for order in orders])
    padded = np.full((len(orders), max(LONG)), -1)
    for row, order in zip(padded, orders, strict=True):
        row[: len(order)] = order
    identity = np.arange(max(LONG))
    a, b, n = on(device, np.tile(identity, (len(orders), 1)), padded, lengths)
    expected = by_rapidfuzz([identity[:length] for length in lengths], orders)
    assert edit_distance(a, b, n, n).tolist() == expected
    if not INTERPRETED:
        ours = [edit_distance_to_identity(*on(device, sample_orders(length))) for length in LONG]
        assert [distance for distances in ours for distance in distances.tolist()] == expected


@pytest.mark.usefixtures("large_programs")
@pytest.mark.parametrize("length", [16, 33, 64, 65])
def test_two_orders_agree_with_rapidfuzz(length: int, device: torch.device) -> None:
    first = sample_orders(length)
    second = np.random.default_rng(1).permutation(first)
    distance = edit_distance_of_orders(*on(device, first, second))
    np.testing.assert_array_equal(distance.cpu().numpy(), by_rapidfuzz(first, second))


@pytest.mark.usefixtures("large_programs")
@pytest.mark.parametrize(
    ("size", "alphabet", "rows"),
    [
        ((16, 20), 3, 8000),
        ((40, 16), 1, 2000),
        ((64, 64), 4, 4000),
        ((65, 63), 2, 2000),
        ((63, 65), 1000, 2000),
        ((130, 128), 5, 2000),
        ((260, 130), 4, 1000),
    ],
)
def test_sequences_agree_with_rapidfuzz(size: tuple[int, int], alphabet: int, rows: int, device: torch.device) -> None:
    first, second = related_sequences(*size, alphabet, rows)
    m, n = random_lengths(rows, size[0], 1), random_lengths(rows, size[1], 2)
    m[: rows // 2], n[: rows // 2] = size
    a, b, of_a, of_b = on(device, first, second, m, n)
    distance = edit_distance(a, b, of_a, of_b)
    assert distance.device.type == device.type
    assert distance.dtype == torch.int32
    np.testing.assert_array_equal(distance.cpu().numpy(), by_rapidfuzz(cut(first, m), cut(second, n)))


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("length", [3, 16, 64])
def test_orders_of_any_number(length: int, batch: int, device: torch.device) -> None:
    order = random_orders(length, batch)
    assert edit_distance_to_identity(*on(device, order)).tolist() == to_identity_by_rapidfuzz(order)


@pytest.mark.parametrize("batch", BATCHES)
def test_sequences_of_any_number(batch: int, device: torch.device) -> None:
    first, second = related_sequences(66, 7, 3, batch)
    m, n = random_lengths(batch, 66, 1), random_lengths(batch, 7, 2)
    a, b, of_a, of_b = on(device, first, second, m, n)
    assert edit_distance(a, b).tolist() == by_rapidfuzz(first, second)
    assert edit_distance(a, b, of_a, of_b).tolist() == by_rapidfuzz(cut(first, m), cut(second, n))


class Recorded:
    """A kernel that notes the arguments of its launches."""

    def __init__(self, kernel: Any) -> None:
        self.kernel, self.launches = kernel, []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(**arguments: Any) -> None:
            self.launches.append(arguments)
            self.kernel[grid](**arguments)

        return launch


@pytest.mark.parametrize("shift", [0, 1, 2, 3])
@pytest.mark.parametrize("length", [16, 18, 64])
def test_four_symbols_are_loaded_at_once_where_the_address_allows_it(
    length: int, shift: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = random_orders(length, 131)
    (memory,) = on(device, np.concatenate([np.full(shift, 255, np.uint8), order.ravel()]))
    given = memory[shift:].view(order.shape)
    assert given.is_contiguous()
    kernel = Recorded(edit_distance_triton.to_identity_kernel)
    monkeypatch.setattr(edit_distance_triton, "to_identity_kernel", kernel)
    assert edit_distance_to_identity(given).tolist() == to_identity_by_rapidfuzz(order)
    (launch,) = kernel.launches
    assert launch["orders"].data_ptr() == given.data_ptr()
    assert launch["SYMBOLS_PER_LOAD"] == (4 if shift == 0 and length != 18 else 1)


@pytest.mark.parametrize("layout", [columns_first, every_other, offset])
@pytest.mark.parametrize("length", [15, 16, 64])
def test_orders_of_any_layout(length: int, layout: Callable[[Tensor], Tensor], device: torch.device) -> None:
    order = random_orders(length, 33)
    given = layout(*on(device, order))
    assert not given.is_contiguous()
    assert edit_distance_to_identity(given).tolist() == to_identity_by_rapidfuzz(order)
    expected = by_rapidfuzz(order, order[::-1])
    assert edit_distance_of_orders(given, *on(device, order[::-1].copy())).tolist() == expected


@pytest.mark.parametrize("layout", [columns_first, every_other, offset])
def test_sequences_of_any_layout(layout: Callable[[Tensor], Tensor], device: torch.device) -> None:
    first, second = related_sequences(66, 9, 4, 33)
    m, n = random_lengths(33, 66, 1), random_lengths(33, 9, 2)
    lengths = torch.stack(on(device, m, n), 1).unbind(1)
    given = [layout(sequences) for sequences in on(device, first, second)]
    assert not any(tensor.is_contiguous() for tensor in [*given, *lengths])
    assert edit_distance(*given, *lengths).tolist() == by_rapidfuzz(cut(first, m), cut(second, n))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_of_any_width(dtype: torch.dtype, device: torch.device) -> None:
    order = random_orders(16, 20)
    (given,) = (tensor.to(dtype) for tensor in on(device, order))
    assert edit_distance_to_identity(given).tolist() == to_identity_by_rapidfuzz(order)
    assert edit_distance_of_orders(given, given[:1].expand(20, -1)).tolist() == by_rapidfuzz(
        order, order[:1].repeat(20, 0)
    )
    first, second = related_sequences(20, 9, 5, 20)
    a, b = on(device, first, second)
    expected = by_rapidfuzz(first, second)
    assert edit_distance(a.to(dtype), b.to(dtype)).tolist() == expected
    assert edit_distance(a.to(dtype), b).tolist() == expected
    assert edit_distance(a, b.to(dtype), torch.full((20,), 20, dtype=dtype, device=device)).tolist() == expected


def test_symbols_that_differ_only_in_their_high_bits(device: torch.device) -> None:
    first, second = related_sequences(66, 9, 6, 50)
    symbols = np.array([0, 1 << 32, -1 << 63, -1, (1 << 32) - 1, (1 << 63) - 1])
    assert edit_distance(*on(device, symbols[first], symbols[second])).tolist() == by_rapidfuzz(first, second)


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0), (1, 1), (70, 0), (0, 70)])
def test_empty_sequences(size: tuple[int, int], device: torch.device) -> None:
    first, second = related_sequences(*size, 2, 40)
    assert edit_distance(*on(device, first, second)).tolist() == by_rapidfuzz(first, second)


def test_no_rows(device: torch.device) -> None:
    for length in (16, 70):
        nothing = torch.empty(0, length, dtype=torch.int64, device=device)
        assert edit_distance_to_identity(nothing).shape == (0,)
        assert edit_distance_of_orders(nothing, nothing).shape == (0,)
        assert edit_distance(nothing, nothing).shape == (0,)


def test_lengths_outside_read_nothing_outside(device: torch.device) -> None:
    first, second = on(device, *related_sequences(70, 9, 3, 33))
    none, all_of_it = (torch.full((33,), length, device=device) for length in (-(1 << 40), 1 << 40))
    assert edit_distance(first, second, none, all_of_it).tolist() == [9] * 33
    assert edit_distance(first, second, all_of_it, none).tolist() == [70] * 33
    assert torch.equal(edit_distance(first, second, all_of_it, all_of_it), edit_distance(first, second))


@pytest.mark.parametrize("held", [-1, 0])
def test_memory_that_nobody_wrote_is_not_read(held: int, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest integer, which it holds in all other tests, would pass for a difference in the row above."""
    monkeypatch.setattr(torch, "empty_like", lambda x, dtype: torch.full_like(x, held, dtype=dtype))
    first, second = related_sequences(66, 9, 4, 33)
    assert edit_distance(*on(device, first, second)).tolist() == by_rapidfuzz(first, second)


@pytest.mark.usefixtures("large_programs")
def test_the_kernels_agree_with_the_reference(device: torch.device) -> None:
    for length in range(1, 65, 7):
        order = torch.from_numpy(random_orders(length, 200).astype(np.uint8))
        ours = launch_to_identity(order.to(device))
        assert torch.equal(ours.cpu(), to_identity_reference(order)), length
    for size in [(40, 9), (130, 20)]:
        pairs = [torch.from_numpy(rows) for rows in related_sequences(*size, 4, 500)]
        lengths = [torch.from_numpy(random_lengths(500, longest, longest)).int() for longest in size]
        ours = launch_sequences(*(tensor.to(device) for tensor in [*pairs, *lengths]))
        assert torch.equal(ours.cpu(), sequences_reference(*pairs, *lengths))


def test_the_operations_are_sound(device: torch.device) -> None:
    (order,) = on(device, random_orders(16, 5))
    torch.library.opcheck(torch.ops.cacl.edit_distance_to_identity.default, (order,))
    pairs = on(device, *related_sequences(9, 7, 4, 5))
    lengths = [torch.full((5,), length, dtype=torch.int32, device=device) for length in (9, 5)]
    torch.library.opcheck(torch.ops.cacl.edit_distance.default, (*pairs, *lengths))


def test_compiles(device: torch.device) -> None:
    def distances(first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
        return (
            edit_distance_to_identity(first),
            edit_distance_of_orders(first, second),
            edit_distance(first, second[:, :5]),
        )

    torch.compiler.reset()
    first, second = on(device, random_orders(16, 5), random_orders(16, 9)[4:])
    for ours, expected in zip(
        torch.compile(distances, fullgraph=True, backend="aot_eager")(first, second),
        distances(first, second),
        strict=True,
    ):
        assert torch.equal(ours, expected)


def test_nothing_waits_for_the_gpu(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("a CPU has nothing to wait for")
    inputs = on(device, random_orders(16, 5), random_orders(70, 5), np.array([1, 2, 3, 4, 5]))
    torch.use_deterministic_algorithms(False)  # which would scatter in another way than a training does
    torch.cuda.set_sync_debug_mode("error")
    try:
        edit_distance_to_identity(inputs[0])
        edit_distance_to_identity(inputs[1])
        edit_distance_of_orders(inputs[0], inputs[0])
        edit_distance(inputs[0], inputs[1], inputs[2], inputs[2])
    finally:
        torch.cuda.set_sync_debug_mode("default")
