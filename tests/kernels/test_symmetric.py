"""The symmetric contrast on a CPU against the formula in float64, and what the operations promise torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor

from cacl.kernels import symmetric_cpu, symmetric_reference
from cacl.kernels.symmetric import symmetric_contrast
from tests.kernels.symmetric_truth import (
    DTYPES,
    LEARNABLE,
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
    weighed,
)

CPU = torch.device("cpu")
TEMPERATURES = (0.01, 0.07, 1.0)
ORDINARY = Size(40, 33, 0.07)
WANTED = [names for count in (1, 2) for names in itertools.combinations(LEARNABLE, count)]


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Memory that nobody wrote holds NaN: torch fills it so in its deterministic mode."""
    assert torch.utils.deterministic.fill_uninitialized_memory  # pyright: ignore[reportAttributeAccessIssue]
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


# --- The formula


@pytest.mark.parametrize("samples", [1, 2, 5, 63, 64, 65, 129, 300, 507])
@pytest.mark.parametrize("dim", [3, 16, 33, 100, 128, 252, 512])
def test_contrast_and_gradients_are_those_of_the_formula(dim: int, samples: int) -> None:
    for temperature, dtype in itertools.product(TEMPERATURES, DTYPES):
        check(random_inputs(Size(samples, dim, temperature), dtype))


@pytest.mark.parametrize("learned", WANTED, ids=" and ".join)
def test_only_the_gradients_that_are_wanted(learned: tuple[str, ...]) -> None:
    """They are the same without the others."""
    given = random_inputs(ORDINARY, torch.float32)
    whole = forward_backward(given)
    for name, x in check(given, learned).items():
        assert torch.equal(x, whole[name]), name


def test_gradient_of_the_mean() -> None:
    """It comes in as one number that is repeated."""
    given = random_inputs(ORDINARY, torch.float32)
    first, second = given.first.requires_grad_(), given.second.requires_grad_()
    symmetric_contrast(first, second, given.temperature).loss.mean().backward()
    expected = forward_backward(given._replace(d_loss=torch.full_like(given.d_loss, 1 / len(first))))
    for x, name in ((first, "d_first"), (second, "d_second")):
        assert x.grad is not None
        assert torch.equal(x.grad, expected[name])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("weights", ["all", "all but one", "every second"])
def test_losses_of_tiny_weight_count(weights: str, dtype: torch.dtype) -> None:
    for temperature in TEMPERATURES:
        given = random_inputs(Size(65, 33, temperature), dtype)
        tiny = {"all": slice(0, None), "all but one": slice(1, None), "every second": slice(0, None, 2)}[weights]
        given.d_loss[tiny] *= 1e-6
        check(given)


def test_gradients_grow_with_the_weights_to_the_bit() -> None:
    """This holds down to where float32 ends. Powers of two change nothing but the exponent."""
    given = random_inputs(ORDINARY, torch.float32)
    whole, small = forward_backward(given), forward_backward(given._replace(d_loss=given.d_loss * 2.0**-60))
    for name in LEARNABLE:
        assert torch.equal(whole[f"d_{name}"], small[f"d_{name}"] * 2.0**60), name


def test_finite_differences_in_float64() -> None:
    given = random_inputs(Size(6, 5, 0.5), torch.float64)
    inputs = [x.double().requires_grad_() for x in given[:3]]
    assert torch.autograd.gradcheck(lambda *x: symmetric_contrast(*x).loss, inputs)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("elements", [1, 2 * 129, 2000, 2 * 129 * 128])
def test_more_rows_than_are_taken_at_once(
    monkeypatch: pytest.MonkeyPatch, set_threads: Callable[[int], None], elements: int, threads: int
) -> None:
    """One row is taken at a time, or seven, or all but one. Threads share them, if a single one does not take all."""
    set_threads(threads)
    monkeypatch.setattr(symmetric_reference, "CPU_CHUNK_LOGITS", elements)
    monkeypatch.setattr(symmetric_cpu, "CHUNK_LOGITS", elements)
    given = random_inputs(Size(129, 16, 0.07), torch.float32)
    assert len(symmetric_reference.row_chunks(given.first, given.second)) > 1
    check(given)
    compare(given, forward_backward_by_ranks(given, (100, 29)))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_threads_without_gradients(
    monkeypatch: pytest.MonkeyPatch,
    set_threads: Callable[[int], None],
    mode: Callable[[], AbstractContextManager[None]],
) -> None:
    set_threads(3)
    monkeypatch.setattr(symmetric_cpu, "CHUNK_LOGITS", 2000)
    given = random_inputs(Size(129, 16, 0.07), torch.float32)
    with mode():
        result = symmetric_contrast(*given[:3])
    compare(given, result._asdict())


def test_vectors_of_any_length() -> None:
    given = random_inputs(Size(65, 33, 0.3), torch.float32)
    lengths = torch.linspace(0, 1, 65)[:, None]
    check(given._replace(first=given.first * lengths, second=given.second * lengths.flip(0)))


def test_any_number_or_tensor_of_one_is_a_temperature() -> None:
    given = random_inputs(ORDINARY, torch.float32)
    expected = check(given)["loss"]
    exact = given.temperature.double()
    for temperature in (0.07, given.temperature[None], given.temperature[None, None], exact):
        assert torch.equal(symmetric_contrast(given.first, given.second, temperature).loss, expected)
    for leaf in (exact.requires_grad_(), given.temperature[None, None].requires_grad_()):
        symmetric_contrast(given.first, given.second, leaf).loss.backward(given.d_loss)
        assert leaf.grad is not None
        assert (leaf.grad.dtype, leaf.grad.shape) == (leaf.dtype, leaf.shape)
        assert leaf.grad.item() == pytest.approx(forward_backward(given)["d_temperature"].item(), rel=1e-6)


# --- Parts of a batch, as processes have them


@pytest.mark.parametrize("counts", [(40,), (20, 20), (1, 39), (7, 30, 3), (2, 1, 1, 36)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_processes_with_parts_compute_what_one_does(dtype: torch.dtype, counts: Sequence[int]) -> None:
    """The gradients of each process are those of the losses of all."""
    given = random_inputs(ORDINARY, dtype)
    compare(given, forward_backward_by_ranks(given, counts))


def test_a_process_without_rows_takes_part() -> None:
    given = random_inputs(ORDINARY, torch.float32)
    compare(given, forward_backward_by_ranks(given, (17, 0, 23)))


def test_without_gradients_of_both_sides_less_is_gathered() -> None:
    """Only what the gradients of one side are made of is gathered: the other side, and log-sums and weights of its
    direction."""
    given = random_inputs(ORDINARY, torch.float32)
    gathered: list[Tensor] = []

    def gather(x: Tensor) -> Tensor:
        gathered.append(x)
        return x.clone()  # as if there were others

    forward_backward(given, ("first",), lambda *x: symmetric_contrast(*x, gather=gather))
    assert [tuple(x.shape) for x in gathered] == [(40, 33), (40, 33), (40, 33), (40, 2)]
    for x, expected in zip(gathered, (given.second, given.first, given.second), strict=False):
        assert torch.equal(x, expected)


# --- The operations, each on its own


@pytest.mark.parametrize("rank_offset", [0, 1, 64, 235])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_at_any_rank_offset(dtype: torch.dtype, rank_offset: int) -> None:
    rows, columns = (random_inputs(Size(count, 33, 0.07), dtype).first for count in (65, 300))
    check_operations(weighed(rows, columns, 0.07, rank_offset, torch.randn(65), torch.randn(300)), CPU)


# --- Edges


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_sample(dtype: torch.dtype) -> None:
    for temperature in TEMPERATURES:
        check_one_sample(random_inputs(Size(1, 33, temperature), dtype))


def test_no_samples() -> None:
    check_no_samples(random_inputs(ORDINARY, torch.float32))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_video_that_is_twice_in_the_batch(dtype: torch.dtype) -> None:
    given = random_inputs(ORDINARY, dtype)
    for x in (given.first, given.second):
        x[[11, 39]] = x[5].clone()
    results = check(given)
    assert (results["loss"][[5, 11, 39]] > 1.09).all()  # log(3)
    similarity = results["similarity"][5] / given.temperature
    torch.testing.assert_close(
        results["max_negative_logit"][5].maximum(similarity), results["max_negative_logit"][5], rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [0.001, 0.01])
@pytest.mark.parametrize("kind", ["each its own", "each the next", "all alike", "all opposite"])
def test_the_most_alike_and_the_most_unlike_do_not_overflow(kind: str, temperature: float, dtype: torch.dtype) -> None:
    check_extremes(CPU, kind, temperature, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["all alike", "all opposite"])
@pytest.mark.parametrize("beyond", [-1, 1])
def test_log_sums_around_the_bound_of_plain_powers(kind: str, beyond: int, dtype: torch.dtype) -> None:
    """The log-sum of 69 others is log(69) above their logits, which are 1/T or -1/T."""
    bound = symmetric_cpu.MAX_LOGSUMEXP
    own = math.log(69) if kind == "all alike" else -math.log(69)
    check_extremes(CPU, kind, 1 / (bound + beyond - own), dtype)


@pytest.mark.parametrize("where", ["first", "second", "d_loss"])
def test_a_number_that_is_not_finite_is_not_hidden(where: str) -> None:
    given = random_inputs(ORDINARY, torch.float32)
    getattr(given, where)[7] = math.nan
    results = forward_backward(given)
    for name in LEARNABLE:
        assert results[f"d_{name}"].isnan().any(), name
    assert results["loss"].isnan().any() == (where != "d_loss")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", [padded, spaced, transposed])
def test_memory_around_the_inputs_does_not_matter(layout: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    given = random_inputs(ORDINARY, dtype)
    check(given._replace(first=layout(given.first), second=layout(given.second)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_second_call_makes_the_same_bits(dtype: torch.dtype) -> None:
    one, other = (forward_backward(random_inputs(Size(300, 33, 0.07), dtype)) for _ in range(2))
    for name, x in one.items():
        assert torch.equal(x, other[name]), name


def views(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    return torch.ones(shape, dtype=dtype, device=device)


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        (views(5, 3), views(4, 3), r"first \[5, 3\], second \[4, 3\]"),
        (views(5, 3), views(5, 4), r"first \[5, 3\], second \[5, 4\]"),
        (views(5), views(5), r"first \[5\], second \[5\]"),
        (views(5, 3, 2), views(5, 3, 2), r"first \[5, 3, 2\]"),
        (views(5, 0), views(5, 0), "D from 1 to 512"),
        (views(5, 513), views(5, 513), "D from 1 to 512"),
        (views(5, 3), views(5, 3, dtype=torch.float16), "one dtype"),
        (views(5, 3), views(5, 3, device="meta"), "one device"),
        (views(5, 3, dtype=torch.int64), views(5, 3, dtype=torch.int64), r"first torch\.int64"),
        (views(5, 3, dtype=torch.complex64), views(5, 3, dtype=torch.complex64), r"first torch\.complex64"),
    ],
)
def test_what_does_not_fit_is_named(first: Tensor, second: Tensor, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        symmetric_contrast(first, second, 0.07)


@pytest.mark.parametrize(
    ("temperature", "named"),
    [(torch.ones(2), r"\[2\] on cpu"), (torch.ones(0), r"\[0\] on cpu"), (torch.ones((), device="meta"), "on meta")],
)
def test_what_is_no_temperature_is_named(temperature: Tensor, named: str) -> None:
    with pytest.raises(ValueError, match=f"temperature.*{named}"):
        symmetric_contrast(views(5, 3), views(5, 3), temperature)


def test_metrics_have_no_gradient() -> None:
    given = random_inputs(ORDINARY, torch.float32)
    result = symmetric_contrast(given.first.requires_grad_(), given.second, 0.07)
    assert result.loss.requires_grad
    assert not result.similarity.requires_grad
    assert not result.max_negative_logit.requires_grad


# --- As operations of torch


def test_the_operations_are_sound() -> None:
    torch.use_deterministic_algorithms(False)  # opcheck compares two calls, unwritten memory included
    rows, columns = (random_inputs(Size(count, 33, 0.07), torch.float32).first for count in (5, 9))
    given = weighed(rows, columns, 0.07, 2, torch.randn(5), torch.randn(9))
    torch.library.opcheck(torch.ops.cacl.batch_logsumexp.default, given[:4])
    torch.library.opcheck(torch.ops.cacl.batch_gradient.default, tuple(given))
    both = weighed(columns, columns.flip(1), 0.07, 0, torch.randn(9), torch.randn(9))
    first, second, temperature, _, *stats = both
    torch.library.opcheck(torch.ops.cacl.batch_logsumexps.default, (first, second, temperature))
    for wanted in ((True, True), (True, False), (False, True)):
        torch.library.opcheck(torch.ops.cacl.batch_gradients.default, (first, second, temperature, *stats, *wanted))


def test_shapes_and_types_are_known_without_values() -> None:
    for dtype in DTYPES:
        x = torch.empty(5, 3, dtype=dtype, device="meta", requires_grad=True)
        result = symmetric_contrast(x, x, 0.07)
        result.loss.sum().backward()
        assert x.grad is not None
        assert (x.grad.shape, x.grad.dtype) == ((5, 3), dtype)
        assert {(y.shape, y.dtype) for y in result} == {((5,), torch.float32)}


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("autocast", [False, True], ids=["", "autocast"])
def test_compiled_and_under_autocast_it_makes_the_same_bits(autocast: bool, compiled: bool) -> None:
    torch.compiler.reset()
    given = random_inputs(ORDINARY, torch.float32)
    expected = forward_backward(given)
    contrast_of = symmetric_contrast
    if compiled:
        contrast_of = torch.compile(contrast_of, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        results = forward_backward(given, contrast_of=contrast_of)
    for name, x in results.items():
        assert torch.equal(x, expected[name]), name


def test_half_precision_under_autocast_keeps_its_type() -> None:
    given = random_inputs(ORDINARY, torch.bfloat16)
    expected = forward_backward(given)
    with torch.autocast("cpu", torch.bfloat16):
        results = forward_backward(given)
    for name, x in results.items():
        assert x.dtype == expected[name].dtype
        assert torch.equal(x, expected[name]), name
