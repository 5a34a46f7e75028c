"""The contrast with a queue on a CPU against the formula in float64, and what the operation promises torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from cacl.kernels import contrast_reference
from cacl.kernels.contrast import queue_contrast
from cacl.kernels.contrast_reference import CPU_CHUNK_ANCHORS, CPU_CHUNK_LOGITS
from tests.kernels.contrast_truth import (
    DTYPES,
    LEARNABLE,
    LONG,
    SIZES,
    Given,
    Size,
    allowed,
    check,
    check_extremes,
    check_no_anchors,
    formula,
    forward_backward,
    random_inputs,
)

CPU = torch.device("cpu")
ORDINARY = Size(40, 3, 1001, 33, 0.07)


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Memory that nobody wrote holds NaN: torch fills it so in its deterministic mode."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


# --- The formula


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [*SIZES, LONG], ids=str)
def test_contrast_and_gradients_are_those_of_the_formula(size: Size, dtype: torch.dtype) -> None:
    check(random_inputs(size, dtype))


@pytest.mark.parametrize("size", [*SIZES, LONG], ids=str)
def test_float64_is_contrasted_in_float64(size: Size) -> None:
    given = random_inputs(size, torch.float64)
    given = given._replace(temperature=torch.tensor(size.temperature, dtype=torch.float64))
    true, results = formula(given), forward_backward(given)
    rounding = 1e-13 / size.temperature**2
    for name, x in results.items():
        assert x.dtype == torch.float64
        torch.testing.assert_close(x, getattr(true, name), rtol=1e-11, atol=rounding, msg=name)
    assert torch.equal(queue_contrast(*given[:3], size.temperature).loss, results["loss"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_loss_of_half_precision_is_nearer_than_that_of_plain_torch(dtype: torch.dtype) -> None:
    """It is nearer by a factor of hundreds."""
    given = random_inputs(ORDINARY, dtype)
    true, plain = formula(given).loss, formula(given, dtype).loss
    assert 200 * (forward_backward(given)["loss"] - true).abs().max() < (plain - true).abs().max()


@pytest.mark.parametrize(
    "learned", [("anchors",), ("positives",), ("temperature",), ("anchors", "positives"), ("anchors", "temperature")]
)
def test_only_the_gradients_that_are_wanted(learned: tuple[str, ...]) -> None:
    check(random_inputs(ORDINARY, torch.float32), learned)


def test_similarity_and_max_negative_logit_carry_no_gradient() -> None:
    given = random_inputs(ORDINARY, torch.float32)
    result = queue_contrast(given.anchors.requires_grad_(), given.positives, given.queue, 0.07)
    assert [x.requires_grad for x in result] == [True, False, True, False]


@pytest.mark.parametrize("unused", ["d_loss", "d_logsumexp"])
def test_gradient_through_one_of_the_two_outputs(unused: str) -> None:
    given = random_inputs(ORDINARY, torch.float32)
    results = check(given._replace(**{unused: torch.zeros_like(getattr(given, unused))}))
    assert results["d_positives"].any() == (unused == "d_logsumexp")


@pytest.mark.parametrize("temperature", [0.5, torch.tensor(0.5), torch.tensor([0.5]), torch.tensor([[0.5]]).double()])
def test_temperature_in_any_form(temperature: float | Tensor) -> None:
    given = random_inputs(ORDINARY._replace(temperature=0.5), torch.float32)
    result = queue_contrast(*given[:3], temperature)
    for x, expected in zip(result, queue_contrast(*given[:4]), strict=True):
        assert torch.equal(x, expected)
    if isinstance(temperature, Tensor):
        learned = temperature.clone().requires_grad_()
        queue_contrast(*given[:3], learned).loss.backward(given.d_loss)
        assert learned.grad is not None
        assert learned.grad.shape == temperature.shape
        expected = forward_backward(given._replace(d_logsumexp=torch.zeros_like(given.d_logsumexp)), ["temperature"])
        assert learned.grad.item() == expected["d_temperature"].item()


def test_gradients_are_finite_differences() -> None:
    given = random_inputs(Size(4, 2, 7, 5, 0.5), torch.float64)
    leaves = [getattr(given, name).double().requires_grad_() for name in LEARNABLE]

    def differentiable(anchors: Tensor, positives: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
        result = queue_contrast(anchors, positives, given.queue, temperature)
        return result.loss, result.logsumexp

    assert torch.autograd.gradcheck(differentiable, leaves)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [0.001, 0.01])
@pytest.mark.parametrize("side", [1, -1])
def test_keys_that_are_all_alike_or_opposite_do_not_overflow(side: int, temperature: float, dtype: torch.dtype) -> None:
    check_extremes(CPU, side, temperature, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_positive_that_is_one_of_several_nearest_keys(dtype: torch.dtype) -> None:
    given = random_inputs(ORDINARY, dtype)
    given.positives[:, 1] = given.anchors
    for first in (0, 40, 900):
        given.queue[first : first + 40] = given.anchors
    results = check(given)
    assert (results["logsumexp"] > results["max_negative_logit"] + 1.098).all()  # log(3)
    assert (results["loss"][:, 1] > 1.386).all()  # log(4)
    torch.testing.assert_close(
        results["similarity"][:, 1] / given.temperature, results["max_negative_logit"], rtol=1e-6, atol=0
    )


def test_a_loss_next_to_nothing_keeps_its_digits() -> None:
    axis = torch.eye(1, 8)
    losses = queue_contrast(axis, axis[:, None], -axis, torch.tensor(0.1)).loss
    assert losses.item() == pytest.approx(2.0611536e-09, rel=1e-5)  # e^-20


def test_no_anchors() -> None:
    check_no_anchors(random_inputs(ORDINARY, torch.float32))


def test_no_positives() -> None:
    given = random_inputs(ORDINARY, torch.float32)
    check(given._replace(positives=given.positives[:, :0], d_loss=given.d_loss[:, :0]))


def test_other_anchors_of_the_call_do_not_matter() -> None:
    """They change nothing but the rounding, which is that of products of matrices of another shape."""
    given = random_inputs(ORDINARY, torch.float32)
    together, limits = forward_backward(given), allowed(given, formula(given))
    for rows in (slice(0, 1), slice(17, 30)):
        part = {name: getattr(given, name)[rows] for name in ("anchors", "positives", "d_loss", "d_logsumexp")}
        few = forward_backward(given._replace(**part))
        for name in together.keys() - {"d_temperature"}:
            assert ((few[name] - together[name][rows]).abs() <= getattr(limits, name)[rows]).all(), name


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(
    mode: Callable[[], AbstractContextManager[None]], set_threads: Callable[[int], None]
) -> None:
    set_threads(2)
    given = random_inputs(LONG, torch.float32)
    expected = queue_contrast(*given[:4])
    with mode():
        results = queue_contrast(*given[:4])
    for x, y in zip(results, expected, strict=True):
        assert torch.equal(x, y)


# --- In parts


@pytest.mark.parametrize(
    "keys",
    [
        CPU_CHUNK_LOGITS // CPU_CHUNK_ANCHORS - 1,
        CPU_CHUNK_LOGITS // CPU_CHUNK_ANCHORS,
        CPU_CHUNK_LOGITS // CPU_CHUNK_ANCHORS + 1,
    ],
)
@pytest.mark.parametrize("anchors", [CPU_CHUNK_ANCHORS - 1, CPU_CHUNK_ANCHORS, CPU_CHUNK_ANCHORS + 1])
def test_anchors_and_keys_around_what_is_taken_at_once(anchors: int, keys: int) -> None:
    check(random_inputs(Size(anchors, 1, keys, 5, 0.07), torch.float32))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("rows", "elements"), [(1, 1), (8, 40), (7, 143), (16, 7), (100, 100_000)])
def test_parts_of_any_size_make_the_same(
    monkeypatch: pytest.MonkeyPatch, set_threads: Callable[[int], None], rows: int, elements: int, threads: int
) -> None:
    """They differ by rounding only."""
    set_threads(threads)
    given = random_inputs(Size(33, 2, 64, 16, 0.07), torch.float32)
    whole, limits = forward_backward(given), allowed(given, formula(given))
    monkeypatch.setattr(contrast_reference, "CPU_CHUNK_ANCHORS", rows)
    monkeypatch.setattr(contrast_reference, "CPU_CHUNK_LOGITS", elements)
    for name, x in check(given).items():
        assert ((x - whole[name]).abs() <= getattr(limits, name)).all(), name


# --- The operations


def operands(size: Size = ORDINARY) -> Given:
    return random_inputs(size, torch.float32)


def test_torch_takes_the_operation() -> None:
    torch.library.opcheck(torch.ops.cacl.queue_contrast.default, operands()[:4])


@pytest.mark.parametrize("needs_d_positives", [True, False])
def test_torch_takes_the_operation_of_the_backward_pass(needs_d_positives: bool) -> None:
    given = operands()
    _, similarity, logsumexp, _, mean = torch.ops.cacl.queue_contrast(*given[:4])
    arguments = given.d_loss, given.d_logsumexp, given.anchors, given.positives, given.temperature
    torch.library.opcheck(
        torch.ops.cacl.queue_contrast_backward.default, (*arguments, similarity, logsumexp, mean, needs_d_positives)
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dynamic", [None, True])
def test_compiled_for_batches_of_any_size(dynamic: bool | None, dtype: torch.dtype) -> None:
    torch.compiler.reset()
    compiled = torch.compile(queue_contrast, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for batch in (5, 3, 9):
        given = random_inputs(Size(batch, 2, 70, 16, 0.07), dtype)
        expected = forward_backward(given)
        results = forward_backward(given, contrast_of=compiled)
        assert results.keys() == expected.keys()
        for name, x in results.items():
            assert torch.equal(x, expected[name]), name


def test_one_graph_serves_batches_of_any_size() -> None:
    torch.compiler.reset()
    graphs = 0

    def counted(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        nonlocal graphs
        graphs += 1
        return graph.forward

    compiled = torch.compile(queue_contrast, fullgraph=True, backend=counted, dynamic=True)
    for batch in (5, 3, 9):
        forward_backward(random_inputs(Size(batch, 2, 70, 16, 0.07), torch.float32), contrast_of=compiled)
    assert graphs == 1


def test_autocast_changes_nothing() -> None:
    given = operands()
    expected = forward_backward(given)
    with torch.autocast("cpu", torch.bfloat16):
        assert (given.anchors @ given.queue.T).dtype == torch.bfloat16
        results = forward_backward(given)
    for name, x in results.items():
        assert torch.equal(x, expected[name]), name


# --- Errors

WRONG: list[tuple[str, Callable[[Given], tuple[Any, ...]]]] = [
    ("the queue requires a gradient", lambda g: (*g[:2], g.queue.clone().requires_grad_(), 0.07)),
    ("queue torch.float16: give tensors of one dtype", lambda g: (*g[:2], g.queue.half(), 0.07)),
    ("positives torch.bfloat16, .* one dtype", lambda g: (g.anchors, g.positives.bfloat16(), g.queue, 0.07)),
    ("queue meta: give tensors of one device", lambda g: (*g[:2], g.queue.to("meta"), 0.07)),
    ("anchors meta, .* one device", lambda g: (g.anchors.to("meta"), *g[1:3], 0.07)),
    ("anchors torch.int64: give float32", lambda g: (*(x.long() for x in g[:3]), 0.07)),
    ("anchors torch.float8_e4m3fn: give", lambda g: (*(x.to(torch.float8_e4m3fn) for x in g[:3]), 0.07)),
    (r"queue \[0, 16\].* K from 1 on", lambda g: (*g[:2], g.queue[:0], 0.07)),
    (r"queue \[9, 15\]", lambda g: (*g[:2], g.queue[:, :15], 0.07)),
    (r"queue \[9\]", lambda g: (*g[:2], g.queue[:, 0], 0.07)),
    (r"positives \[5, 16\]", lambda g: (g.anchors, g.positives[:, 0], g.queue, 0.07)),
    (r"positives \[4, 2, 16\]", lambda g: (g.anchors, g.positives[1:], g.queue, 0.07)),
    (r"positives \[5, 2, 15\]", lambda g: (g.anchors, g.positives[..., 1:], g.queue, 0.07)),
    (r"anchors \[5\]", lambda g: (g.anchors[:, 0], *g[1:3], 0.07)),
    (r"anchors \[1, 5, 16\]", lambda g: (g.anchors[None], *g[1:3], 0.07)),
    ("D from 1 to 512", lambda g: (*(x.repeat_interleave(33, -1)[..., :513] for x in g[:3]), 0.07)),
    ("D from 1 to 512", lambda g: (*(x[..., :0] for x in g[:3]), 0.07)),
    (r"temperature \[2\] on cpu: give a number", lambda g: (*g[:3], torch.tensor([0.07, 0.1]))),
    (r"temperature \[5, 1\] on cpu", lambda g: (*g[:3], torch.full((5, 1), 0.07))),
    (r"temperature \[\] on meta.* on cpu", lambda g: (*g[:3], g.temperature.to("meta"))),
]


@pytest.mark.parametrize(("message", "wrong"), WRONG, ids=[message for message, _ in WRONG])
def test_errors(message: str, wrong: Callable[[Given], tuple[Any, ...]]) -> None:
    with pytest.raises(ValueError, match=message):
        queue_contrast(*wrong(random_inputs(Size(5, 2, 9, 16, 0.07), torch.float32)))


def test_errors_on_a_gpu() -> None:
    """They are shown by tensors that have a device and no memory."""
    with FakeTensorMode():
        inputs = (
            torch.empty(5, 16, device="cuda"),
            torch.empty(5, 2, 16, device="cuda"),
            torch.empty(9, 16, device="cuda"),
        )
        assert queue_contrast(*inputs, 0.07).loss.device.type == "cuda"
        with pytest.raises(ValueError, match=r"temperature \[\] on cpu: .* on cuda:0"):
            queue_contrast(*inputs, torch.tensor(0.07))
        with pytest.raises(ValueError, match=r"anchors torch\.float64: give float32"):
            queue_contrast(inputs[0].double(), inputs[1].double(), inputs[2].double(), 0.07)
