"""The kernels of the symmetric contrast against the formula in float64, and against memory that is not theirs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from cacl.kernels import symmetric
from cacl.kernels.dispatch import INTERPRETED
from cacl.kernels.symmetric import symmetric_contrast
from tests.gpu import cuda_device
from tests.kernels.symmetric_truth import (
    DTYPES,
    LEARNABLE,
    Given,
    Size,
    check,
    check_extremes,
    check_no_samples,
    check_one_sample,
    check_operations,
    compare,
    forward_backward,
    forward_backward_by_ranks,
    padded,
    random_inputs,
    spaced,
    transposed,
    unit,
    weighed,
)

# It warns of numbers that are not finite. They are in rows beyond the last, which are not stored, and where tests ask
# for them.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")

SIZES = [Size(2, 3, 0.07), Size(5, 16, 0.01), Size(64, 100, 1.0), Size(65, 512, 0.07), Size(129, 252, 0.07)]
"""These have one to many blocks of rows, tiles of columns and slices of dimensions, full ones and not."""
# The interpreter would take minutes for these. Splits of the columns are in `test_rows_at_any_rank_offset`.
if not INTERPRETED:
    SIZES += [Size(63, 128, 0.01), Size(300, 33, 0.01), Size(507, 128, 0.07), Size(507, 16, 1.0)]
    SIZES += [Size(64, 512, 0.01), Size(129, 3, 1.0), Size(300, 100, 0.07)]
ORDINARY = Size(140, 33, 0.07)
"""It has several blocks, splits of the columns where there are few blocks, and incomplete tiles everywhere."""


@pytest.fixture(autouse=True)
def kernels_for_small_contrasts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this, torch computes them on a GPU."""
    monkeypatch.setattr(symmetric, "MIN_KERNEL_LOGITS", 0)


def random_inputs_on(device: torch.device, size: Size = ORDINARY, dtype: torch.dtype = torch.float32) -> Given:
    return Given(*(x.to(device) for x in random_inputs(size, dtype)))


# --- The formula


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_contrast_and_gradients_are_those_of_the_formula(device: torch.device, size: Size, dtype: torch.dtype) -> None:
    check(random_inputs_on(device, size, dtype))


@pytest.mark.parametrize(
    "learned", [("first",), ("second",), ("temperature",), ("first", "second"), ("second", "temperature")]
)
def test_only_the_gradients_that_are_wanted(device: torch.device, learned: tuple[str, ...]) -> None:
    given = random_inputs_on(device)
    whole = forward_backward(given)
    for name, x in check(given, learned).items():
        assert torch.equal(x, whole[name]), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("weights", ["all", "all but one", "every second"])
def test_losses_of_tiny_weight_count(device: torch.device, weights: str, dtype: torch.dtype) -> None:
    given = random_inputs_on(device, dtype=dtype)
    tiny = {"all": slice(0, None), "all but one": slice(1, None), "every second": slice(0, None, 2)}[weights]
    given.d_loss[tiny] *= 1e-6
    check(given)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_grow_with_the_weights_to_the_bit(device: torch.device, dtype: torch.dtype) -> None:
    """Powers of two change nothing but the exponent, in half precision either."""
    rows = random_inputs(Size(140, 33, 0.07), dtype).first
    given = weighed(rows, rows, 0.07, 0, torch.rand(140), torch.rand(140))
    whole = check_operations(given, device)
    small = [x * torch.tensor([1, 2.0**-60]) for x in (given.row_stats, given.column_stats)]
    assert torch.equal(
        check_operations(given._replace(row_stats=small[0], column_stats=small[1]), device) * 2.0**60, whole
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weights_that_are_all_zero(device: torch.device, dtype: torch.dtype) -> None:
    given = random_inputs_on(device, dtype=dtype)
    results = check(given._replace(d_loss=torch.zeros_like(given.d_loss)))
    assert not any(results[f"d_{name}"].any() for name in LEARNABLE)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_many_columns_of_small_weight_count(device: torch.device, dtype: torch.dtype) -> None:
    """Each has 2**-25 of the weight of the nearest, which half precision rounds to nothing; the sum of all counts."""
    temperature, axis, across = 0.05, *torch.eye(2, 16, dtype=torch.float64)
    cosine = 1 - 17.4 * temperature
    columns = (cosine * axis + (1 - cosine**2) ** 0.5 * across).repeat(1001, 1)
    columns[500] = axis
    rows = axis.repeat(3, 1)
    check_operations(
        weighed(rows.to(dtype), columns.to(dtype), temperature, 7, torch.ones(3), torch.zeros(1001)), device
    )


# --- Parts of a batch


@pytest.mark.parametrize(
    ("counts", "dtype"),
    [((70, 70), torch.float32), ((1, 139), torch.float32), *(((129, 2, 9), dtype) for dtype in DTYPES)],
    ids=str,
)
def test_processes_with_parts_compute_what_one_does(
    device: torch.device, counts: Sequence[int], dtype: torch.dtype
) -> None:
    """The gradients of each process are those of the losses of all."""
    given = random_inputs_on(device, dtype=dtype)
    compare(given, forward_backward_by_ranks(given, counts))


def test_a_process_without_rows_takes_part(device: torch.device) -> None:
    given = random_inputs_on(device)
    compare(given, forward_backward_by_ranks(given, (100, 0, 40)))


@pytest.mark.parametrize("rank_offset", [0, 1, 64, 935])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_at_any_rank_offset(device: torch.device, dtype: torch.dtype, rank_offset: int) -> None:
    """The columns are in several splits, most of which have no row's own."""
    rows, columns = (random_inputs(Size(count, 33, 0.07), dtype).first for count in (65, 1000))
    check_operations(weighed(rows, columns, 0.07, rank_offset, torch.randn(65), torch.randn(1000)), device)


# --- Edges


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_sample(device: torch.device, dtype: torch.dtype) -> None:
    check_one_sample(random_inputs_on(device, Size(1, 33, 0.07), dtype))


def test_no_samples(device: torch.device) -> None:
    check_no_samples(random_inputs_on(device))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_video_that_is_twice_in_the_batch(device: torch.device, dtype: torch.dtype) -> None:
    given = random_inputs_on(device, dtype=dtype)
    for x in (given.first, given.second):
        x[[11, 139]] = x[5].clone()
    assert (check(given)["loss"][[5, 11, 139]] > 1.09).all()  # log(3)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [0.001, 0.01])
@pytest.mark.parametrize("kind", ["each its own", "each the next", "all alike", "all opposite"])
def test_the_most_alike_and_the_most_unlike_do_not_overflow(
    device: torch.device, kind: str, temperature: float, dtype: torch.dtype
) -> None:
    check_extremes(device, kind, temperature, dtype)


@pytest.mark.parametrize("where", ["first", "second", "d_loss"])
def test_a_number_that_is_not_finite_is_not_hidden(device: torch.device, where: str) -> None:
    given = random_inputs_on(device)
    getattr(given, where)[7] = math.nan
    results = forward_backward(given)
    for name in LEARNABLE:
        assert results[f"d_{name}"].isnan().any(), name
    assert results["loss"].isnan().any() == (where != "d_loss")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", [padded, spaced, transposed])
def test_memory_around_the_inputs_does_not_matter(
    device: torch.device, layout: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    given = random_inputs_on(device, dtype=dtype)
    moved = given._replace(first=layout(given.first), second=layout(given.second))
    assert moved.first.is_contiguous() == (layout is padded)
    check(moved)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_second_call_makes_the_same_bits(device: torch.device, dtype: torch.dtype) -> None:
    one, other = (forward_backward(random_inputs_on(device, dtype=dtype)) for _ in range(2))
    for name, x in one.items():
        assert torch.equal(x, other[name]), name


# --- As operations of torch


def test_the_operations_are_sound(device: torch.device) -> None:
    torch.use_deterministic_algorithms(False)  # opcheck compares two calls, unwritten memory included
    rows, columns = (random_inputs(Size(count, 33, 0.07), torch.float32).first for count in (5, 9))
    given = weighed(rows, columns, 0.07, 2, torch.randn(5), torch.randn(9))
    inputs = [x.to(device) if isinstance(x, Tensor) else x for x in given]
    torch.library.opcheck(torch.ops.cacl.batch_logsumexp.default, tuple(inputs[:4]))
    torch.library.opcheck(torch.ops.cacl.batch_gradient.default, tuple(inputs))


def test_compiled_it_makes_the_same_bits(device: torch.device) -> None:
    torch.compiler.reset()
    given = random_inputs_on(device, Size(5, 33, 0.07))
    expected = forward_backward(given)
    compiled = torch.compile(symmetric_contrast, fullgraph=True, backend="aot_eager")
    for name, x in forward_backward(given, contrast_of=compiled).items():
        assert torch.equal(x, expected[name]), name


# --- What only a GPU can show


@pytest.mark.gpu
def test_gpu_small_contrasts_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    device = cuda_device()
    monkeypatch.setattr(symmetric, "MIN_KERNEL_LOGITS", 10**12)
    for dtype in DTYPES:
        for size in SIZES:
            check(random_inputs_on(device, size, dtype))


@pytest.mark.gpu
def test_gpu_is_not_waited_for() -> None:
    given = random_inputs_on(cuda_device())
    first, second = given.first.requires_grad_(), given.second.requires_grad_()
    symmetric_contrast(first, second, 0.07).loss.mean().backward()  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        symmetric_contrast(first, second, 0.07).loss.mean().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_gpu_memory_does_not_grow_with_the_square_of_the_batch() -> None:
    device = cuda_device()
    first, second = (unit(torch.randn(16_384, 128, device=device)).bfloat16().requires_grad_() for _ in range(2))
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    symmetric_contrast(first, second, 0.07).loss.mean().backward()
    needed = torch.cuda.max_memory_allocated(device) - before
    print(f"{needed / 2**20:.0f} MiB, and {16_384**2 * 4 / 2**20:.0f} for the similarities alone")
    assert needed < 256 * 2**20


@pytest.mark.gpu
def test_gpu_columns_of_more_elements_than_32_bits_count() -> None:
    """All columns but the last are zero."""
    device = cuda_device()
    count = 2**31 // 128 + 1000
    rows = torch.eye(1, 128, dtype=torch.bfloat16, device=device)
    columns = torch.zeros(count, 128, dtype=torch.bfloat16, device=device)
    columns[-1, 0] = 1
    temperature = torch.tensor(0.05, device=device)
    logsumexp, max_negative_logit = torch.ops.cacl.batch_logsumexp(rows, columns, temperature, 0)
    zeros = (count - 2) / math.exp(20)
    assert max_negative_logit.item() == pytest.approx(20, rel=1e-6)
    assert logsumexp.item() == pytest.approx(20 + math.log1p(zeros), rel=1e-6)
    row_stats = torch.stack([logsumexp, torch.ones_like(logsumexp)], 1)
    gradient = torch.ops.cacl.batch_gradient(rows, columns, temperature, 0, row_stats, torch.zeros(count, 2).to(device))
    assert gradient[0, 0].item() == pytest.approx(20 / (1 + zeros), rel=1e-2)
    assert not gradient[0, 1:].any()
