"""The kernels against the formula in float64, and against memory that is not theirs."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cacl.kernels import contrast
from cacl.kernels.contrast import queue_contrast
from cacl.kernels.contrast_triton import launch_scan
from cacl.kernels.dispatch import INTERPRETED
from tests.gpu import cuda_device
from tests.kernels.contrast_truth import (
    DTYPES,
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
    unit,
)

ORDINARY = Size(40, 3, 1001, 33, 0.07)
"""It has several splits of the queue, and incomplete tiles everywhere."""


@pytest.fixture(autouse=True)
def kernels_for_small_contrasts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this, torch computes them on a GPU."""
    monkeypatch.setattr(contrast, "MIN_KERNEL_LOGITS", 0)


def random_inputs_on(device: torch.device, size: Size = ORDINARY, dtype: torch.dtype = torch.float32) -> Given:
    return Given(*(x.to(device) for x in random_inputs(size, dtype)))


# --- The formula


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_contrast_and_gradients_are_those_of_the_formula(device: torch.device, size: Size, dtype: torch.dtype) -> None:
    check(random_inputs_on(device, size, dtype))


# The interpreter takes seconds for each. Queues of 8193 keys are above, in all dtypes.
@pytest.mark.parametrize("dtype", [torch.bfloat16] if INTERPRETED else DTYPES, ids=str)
def test_a_long_queue(device: torch.device, dtype: torch.dtype) -> None:
    check(random_inputs_on(device, LONG, dtype))


@pytest.mark.parametrize(
    "learned", [("anchors",), ("positives",), ("temperature",), ("anchors", "positives"), ("anchors", "temperature")]
)
def test_only_the_gradients_that_are_wanted(device: torch.device, learned: tuple[str, ...]) -> None:
    check(random_inputs_on(device), learned)


@pytest.mark.parametrize("unused", ["d_loss", "d_logsumexp"])
def test_gradient_through_one_of_the_two_outputs(device: torch.device, unused: str) -> None:
    given = random_inputs_on(device)
    results = check(given._replace(**{unused: torch.zeros_like(getattr(given, unused))}))
    assert results["d_positives"].any() == (unused == "d_logsumexp")


def test_gradient_of_the_mean(device: torch.device) -> None:
    """It comes in as one number that is repeated."""
    given = random_inputs_on(device)
    anchors, positives = given.anchors.requires_grad_(), given.positives.requires_grad_()
    queue_contrast(anchors, positives, given.queue, given.temperature).loss.mean().backward()
    repeated = torch.full_like(given.d_loss, 1 / given.d_loss.numel())
    expected = forward_backward(given._replace(d_loss=repeated, d_logsumexp=torch.zeros_like(given.d_logsumexp)))
    for x, name in ((anchors, "d_anchors"), (positives, "d_positives")):
        assert x.grad is not None
        assert torch.equal(x.grad, expected[name])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_many_keys_of_small_weight_count(device: torch.device, dtype: torch.dtype) -> None:
    """The keys have e^-17.6 of the weight of the nearest, which is less than half precision knows. Nothing else reaches
    into the second dimension."""
    given = random_inputs_on(device, Size(3, 1, 1001, 16, 0.05), dtype)
    axis, across = torch.eye(2, 16, dtype=torch.float64)
    cosine = 1 - 17.6 * 0.05
    queue = (cosine * axis + (1 - cosine**2) ** 0.5 * across).repeat(1001, 1)
    queue[::32] = axis
    given = given._replace(anchors=axis.repeat(3, 1).to(given.anchors), queue=queue.to(given.queue))
    check(given._replace(d_loss=torch.zeros_like(given.d_loss)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equal_nearest_keys_share_the_weight(device: torch.device, dtype: torch.dtype) -> None:
    """They are in one tile, in the next, and in other splits of the queue."""
    given = random_inputs_on(device, dtype=dtype)
    given.queue[[0, 1, 70, 500, 1000]] = given.anchors[5]
    results = check(given)
    assert results["logsumexp"][5] > results["max_negative_logit"][5] + 1.6  # log(5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_positive_that_is_the_nearest_key(device: torch.device, dtype: torch.dtype) -> None:
    given = random_inputs_on(device, dtype=dtype)
    given.positives[:, 1] = given.anchors
    given.queue[: len(given.anchors)] = given.anchors
    results = check(given)
    assert (results["loss"][:, 1] > 0.693).all()  # log(2)
    torch.testing.assert_close(
        results["similarity"][:, 1] / given.temperature, results["max_negative_logit"], rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [0.001, 0.01])
@pytest.mark.parametrize("side", [1, -1])
def test_keys_that_are_all_alike_or_opposite_do_not_overflow(
    device: torch.device, side: int, temperature: float, dtype: torch.dtype
) -> None:
    check_extremes(device, side, temperature, dtype)


# --- Its memory, and that of others


def padded(x: Tensor) -> Tensor:
    """Copies rows amid others."""
    room = x.new_full((len(x) + 12, *x.shape[1:]), float("nan"))
    room[5:-7] = x
    return room[5:-7]


def spaced(x: Tensor) -> Tensor:
    """Copies to every second row and every third element."""
    room = x.new_full((2 * len(x), *x.shape[1:-1], 3 * x.shape[-1]), float("nan"))
    room[::2, ..., 1::3] = x
    return room[::2, ..., 1::3]


def transposed(x: Tensor) -> Tensor:
    room = x.new_full((x.shape[-1] + 3, *x.shape[:-1]), float("nan"))
    room[2:-1] = x.movedim(-1, 0)
    return room[2:-1].movedim(0, -1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", [padded, spaced, transposed])
def test_memory_around_the_inputs_does_not_matter(
    device: torch.device, layout: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    given = random_inputs_on(device, Size(37, 3, 331, 33, 0.07), dtype)
    moved = given._replace(**{name: layout(getattr(given, name)) for name in ("anchors", "positives", "queue")})
    assert moved.queue.is_contiguous() == (layout is padded)
    check(moved)


def test_gradients_that_come_in_from_anywhere(device: torch.device) -> None:
    given = random_inputs_on(device)
    check(given._replace(d_loss=transposed(given.d_loss), d_logsumexp=given.d_logsumexp[:1].expand(40)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_second_call_makes_the_same_bits(device: torch.device, dtype: torch.dtype) -> None:
    first, second = (forward_backward(random_inputs_on(device, dtype=dtype)) for _ in range(2))
    for name, x in first.items():
        assert torch.equal(x, second[name]), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_other_anchors_of_the_call_do_not_matter(device: torch.device, dtype: torch.dtype) -> None:
    given = random_inputs_on(device, dtype=dtype)
    others = torch.arange(len(given.anchors), device=device) != 17
    alone = {name: getattr(given, name).clone() for name in ("anchors", "positives", "d_loss", "d_logsumexp")}
    for x in alone.values():
        x[others] = float("nan")
    together, single = forward_backward(given), forward_backward(given._replace(**alone))
    for name in together.keys() - {"d_temperature"}:
        assert torch.equal(together[name][17], single[name][17]), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_number_of_anchors_makes_the_same(device: torch.device, dtype: torch.dtype) -> None:
    """They differ by rounding only: the fewer anchors there are, the more splits the queue has."""
    given = random_inputs_on(device, Size(40, 2, 500, 33, 0.07), dtype)
    together = forward_backward(given)
    limits = allowed(given, formula(given))
    for rows in (slice(0, 1), slice(6, 9)):
        part = {name: getattr(given, name)[rows] for name in ("anchors", "positives", "d_loss", "d_logsumexp")}
        few = forward_backward(given._replace(**part))
        for name in together.keys() - {"d_temperature"}:
            error = (few[name].double() - together[name][rows].double()).abs().cpu()
            assert (error <= getattr(limits, name)[rows]).all(), name


# --- Its edges


def test_no_anchors(device: torch.device) -> None:
    check_no_anchors(random_inputs_on(device))


def test_no_positives(device: torch.device) -> None:
    given = random_inputs_on(device)
    check(given._replace(positives=given.positives[:, :0], d_loss=given.d_loss[:, :0]))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_parts_of_the_queue_join_to_the_whole(device: torch.device, dtype: torch.dtype) -> None:
    given = random_inputs_on(device, dtype=dtype)
    split_m, split_l, split_acc = launch_scan(given.anchors, given.queue, given.temperature)
    assert len(split_m) > 1
    assert split_acc.shape == (*split_m.shape, given.anchors.shape[1])
    true = formula(given)
    logsumexp = torch.logsumexp(split_m.cpu().double() * math.log(2) + split_l.cpu().double().log(), 0)
    assert ((logsumexp - true.logsumexp).abs() <= allowed(given, true).logsumexp).all()


def test_operations(device: torch.device) -> None:
    given = random_inputs_on(device, Size(5, 2, 70, 33, 0.07))
    forward = torch.ops.cacl.queue_contrast.default
    torch.library.opcheck(forward, given[:4])
    _, similarity, logsumexp, _, mean = forward(*given[:4])
    for needs_d_positives in (True, False):
        arguments = given.d_loss, given.d_logsumexp, given.anchors, given.positives, given.temperature
        torch.library.opcheck(
            torch.ops.cacl.queue_contrast_backward.default, (*arguments, similarity, logsumexp, mean, needs_d_positives)
        )


def test_compiled(device: torch.device) -> None:
    given = random_inputs_on(device, Size(5, 2, 70, 33, 0.07))
    compiled = torch.compile(queue_contrast, fullgraph=True, backend="aot_eager")
    expected = forward_backward(given)
    for name, x in forward_backward(given, contrast_of=compiled).items():
        assert torch.equal(x, expected[name]), name


# --- What only a GPU can show


@pytest.mark.gpu
def test_gpu_small_contrasts_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    device = cuda_device()
    monkeypatch.setattr(contrast, "MIN_KERNEL_LOGITS", 10**12)
    torch.use_deterministic_algorithms(False)  # in which cuBLAS wants a variable of the environment
    for dtype in DTYPES:
        for size in (*SIZES, LONG):
            check(random_inputs_on(device, size, dtype))


@pytest.mark.gpu
def test_gpu_is_not_waited_for() -> None:
    given = random_inputs_on(cuda_device())
    anchors, positives = given.anchors.requires_grad_(), given.positives.requires_grad_()
    queue_contrast(anchors, positives, given.queue, 0.07).loss.mean().backward()  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        queue_contrast(anchors, positives, given.queue, 0.07).loss.mean().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_gpu_memory_does_not_grow_with_anchors_times_keys() -> None:
    device = cuda_device()
    anchors, queue = (unit(torch.randn(n, 128, device=device)).bfloat16() for n in (2048, 65_536))
    anchors.requires_grad_()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    queue_contrast(anchors, anchors.detach()[:, None], queue, 0.07).loss.mean().backward()
    needed = torch.cuda.max_memory_allocated(device) - before
    print(f"{needed / 2**20:.0f} MiB, and {2048 * 65_536 * 4 / 2**20:.0f} for the logits alone")
    assert needed < 64 * 2**20


@pytest.mark.gpu
def test_gpu_queue_of_more_elements_than_32_bits_count() -> None:
    """All keys but the last are zero."""
    device = cuda_device()
    keys = 2**31 // 128 + 1000
    anchors = torch.eye(1, 128, dtype=torch.bfloat16, device=device).requires_grad_()
    queue = torch.zeros(keys, 128, dtype=torch.bfloat16, device=device)
    queue[-1, 0] = 1
    result = queue_contrast(anchors, anchors.detach()[:, None], queue, 0.05)
    result.logsumexp.sum().backward()
    zeros = (keys - 1) / math.exp(20)
    assert result.max_negative_logit.item() == pytest.approx(20, rel=1e-6)
    assert result.logsumexp.item() == pytest.approx(20 + math.log1p(zeros), rel=1e-6)
    assert anchors.grad is not None
    assert anchors.grad[0, 0].item() == pytest.approx(20 / (1 + zeros), rel=1e-2)
    assert not anchors.grad[0, 1:].any()
