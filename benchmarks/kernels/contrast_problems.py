"""Contrasts, forward and backward: with a queue, and of two views of a batch with each other.

What is said here of GPUs has not run on one yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cacl.benchmarks.harness.timing import Call, multiply_roofline
from cacl.benchmarks.kernels.run import BASELINE, COMPILED, KernelContender, Problem, RooflineWork, Task
from cacl.benchmarks.rivals import kernels as rivals
from cacl.kernels import contrast
from cacl.kernels.symmetric import symmetric_contrast

DIM, TEMPERATURE = 128, 0.07
CHECKED_ROWS = 64
"""Anchors whose loss and gradient are compared with the truth: each depends on no other."""
TOLERANCE = {
    torch.float32: {"loss": 1e-5, "gradient": 5e-4},
    torch.float16: {"loss": 1e-3, "gradient": 1e-3},
    torch.bfloat16: {"loss": 1e-2, "gradient": 1e-2},
}
"""How large errors may be beyond the error of torch in the same dtype, relative to the largest true number."""
ERROR_UNIT = "the largest, relative to the largest number in float64"
RIVALS_MARGIN = 3
"""The errors of rivals may be this many times those of torch, since in half precision they depend much on what is
rounded when."""

Limits = dict[str, float]
TrainingStep = Callable[[Callable[..., Tensor]], Call]
"""A function that takes a loss and returns the call that computes it and its gradients."""


# --- With a queue


def contrast_problem(
    device: torch.device, dtype: torch.dtype, n: int, p: int, k: int, *, with_unchosen_form: bool = False
) -> Problem:
    """The problem of n anchors, p positives for each, and a queue of k keys.

    `contrast.MIN_KERNEL_LOGITS` chooses between the kernel and the reference by size. With `with_unchosen_form`, the
    one that it does not choose is measured, too.
    """
    setting = f"{n} anchors, {p} positive{'s' * (p > 1)} each, {k:,} keys, {DIM} dimensions, {_name(dtype)}"
    return Problem("contrast", setting, partial(_contrast, device, dtype, n, p, k, with_unchosen_form))


def _contrast(device: torch.device, dtype: torch.dtype, n: int, p: int, k: int, with_unchosen_form: bool) -> Task:
    unit = partial(_unit_vectors, torch.Generator(device).manual_seed(0), dtype)
    anchors, queue = unit(n, DIM), unit(k, DIM)
    positives = F.normalize(anchors[:, None] + unit(n, p, DIM), dim=-1)
    checked = torch.linspace(0, n - 1, min(n, CHECKED_ROWS), device=device).long()

    def step(loss: Callable[..., Tensor]) -> Call:
        return _training_step(lambda rows: loss(rows, positives, queue, TEMPERATURE), anchors)

    def checked_step(loss: Callable[..., Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
        keys, own, rows = queue.to(dtype), positives[checked].to(dtype), anchors[checked].to(dtype)
        return _training_step(lambda rows: loss(rows, own, keys, TEMPERATURE), rows)()

    truth = checked_step(rivals.moco_loss, torch.float64)
    usual = _deviations(checked_step(rivals.logsumexp_loss, dtype), truth)
    limits = _limits(usual, dtype)
    half_only = device.type == "cuda" and dtype == torch.float32
    rival_contenders = _queue_rivals(step, _limits(usual, dtype, RIVALS_MARGIN), half_only)
    return Task(
        contenders=[*_queue_ours(step, limits, n * k, with_unchosen_form), *rival_contenders],
        errors=lambda found: _deviations([part[checked] for part in found], truth),
        error_unit=f"of {len(checked)} anchors, {ERROR_UNIT}",
        least_work=_product_work(4 * n * k * DIM, "4 N K D", device, dtype),
    )


def _queue_ours(step: TrainingStep, limits: Limits, logits: int, with_unchosen_form: bool) -> list[KernelContender]:
    ours = KernelContender(
        name=BASELINE,
        description="queue_contrast: the average of the queue comes out of the forward pass, so the backward is small",
        prepare=lambda: step(_queue_contrast_loss),
        limits=limits,
    )
    if not with_unchosen_form:
        return [ours]
    small = logits < contrast.MIN_KERNEL_LOGITS
    other = KernelContender(
        name=f"{BASELINE}, {'always' if small else 'never'} the kernel",
        description="the form that contrast.MIN_KERNEL_LOGITS does not choose at this size",
        prepare=lambda: step(_loss_with_bound(0 if small else logits + 1)),
        limits=limits,
    )
    return [ours, other]


def _queue_rivals(step: TrainingStep, limits: Limits, half_only: bool) -> list[KernelContender]:
    return [
        KernelContender(
            name="eager MoCo",
            description="positive and negatives side by side in [N, 1 + K] logits, and cross_entropy",
            prepare=lambda: step(rivals.moco_loss),
            limits=limits,
        ),
        KernelContender(
            name="lean eager",
            description="softplus(logsumexp of the negatives - positive): [N, K] once",
            prepare=lambda: step(rivals.logsumexp_loss),
            limits=limits,
        ),
        KernelContender(
            name=COMPILED,
            description="of lean eager",
            prepare=lambda: step(rivals.compiled(rivals.logsumexp_loss)),
            limits=limits,
        ),
        KernelContender(
            name="flash attention",
            description="torch's own, queue as keys and values: its log-sum-exp is the denominator, its output the "
            "gradient",
            prepare=lambda: step(rivals.attention_loss),
            limits=limits,
            unavailable_reason="torch has it on GPUs in half precision only" if half_only else "",
        ),
    ]


def _queue_contrast_loss(anchors: Tensor, positives: Tensor, queue: Tensor, temperature: float) -> Tensor:
    return contrast.queue_contrast(anchors, positives, queue, temperature).loss


def _loss_with_bound(small: int) -> Callable[..., Tensor]:
    """Our loss where `contrast.MIN_KERNEL_LOGITS` is another number."""

    def loss(*inputs: Any) -> Tensor:
        before, contrast.MIN_KERNEL_LOGITS = contrast.MIN_KERNEL_LOGITS, small
        try:
            return _queue_contrast_loss(*inputs)
        finally:
            contrast.MIN_KERNEL_LOGITS = before

    return loss


# --- Of two views of a batch


def symmetric_problem(device: torch.device, dtype: torch.dtype, n: int) -> Problem:
    """The problem of two views of n samples."""
    setting = f"{n} samples, {DIM} dimensions, {_name(dtype)}"
    return Problem("symmetric", setting, partial(_symmetric, device, dtype, n))


def _symmetric(device: torch.device, dtype: torch.dtype, n: int) -> Task:
    unit = partial(_unit_vectors, torch.Generator(device).manual_seed(0), dtype)
    first = unit(n, DIM)
    second = F.normalize(first + unit(n, DIM), dim=-1)

    def step(loss: Callable[..., Tensor], *views: Tensor) -> Call:
        return _training_step(lambda *views: loss(*views, TEMPERATURE), *views)

    truth = _symmetric_truth(first, second)
    part = first[:1024], second[:1024]  # All of them would not fit everywhere.
    usual = _deviations(step(rivals.clip_loss, *part)(), _symmetric_truth(*part))
    rivals_limits = _limits(usual, dtype, RIVALS_MARGIN)
    contenders = [
        KernelContender(
            name=BASELINE,
            description="symmetric_contrast: no [N, N], but similarities computed twice (on a GPU four times)",
            prepare=lambda: step(_symmetric_contrast_loss, first, second),
            limits=_limits(usual, dtype),
        ),
        KernelContender(
            name="eager CLIP",
            description="[N, N] logits, and cross_entropy of them and of their transpose",
            prepare=lambda: step(rivals.clip_loss, first, second),
            limits=rivals_limits,
        ),
        KernelContender(
            name=COMPILED,
            description="of eager CLIP",
            prepare=lambda: step(rivals.compiled(rivals.clip_loss), first, second),
            limits=rivals_limits,
        ),
    ]
    return Task(
        contenders=contenders,
        errors=lambda found: _deviations(found, truth),
        error_unit=ERROR_UNIT,
        # This is the least for whoever keeps the similarities.
        least_work=_product_work(6 * n * n * DIM, "6 N² D", device, dtype),
    )


def _symmetric_contrast_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    return symmetric_contrast(first, second, temperature).loss


def _symmetric_truth(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The loss float64 [N] and both gradients float64 [N, D] by the definition, some rows at a time."""
    first, second = first.double(), second.double()
    parts = torch.arange(len(first), device=first.device).split(1024)
    by_row, by_column = torch.empty_like(first[:, 0]), first.new_full((len(first),), float("-inf"))
    for rows in parts:
        logits = first[rows] @ second.T / TEMPERATURE
        by_row[rows] = logits.logsumexp(1)
        by_column = torch.logaddexp(by_column, logits.logsumexp(0))
    loss = (by_row + by_column) / 2 - (first * second).sum(1) / TEMPERATURE
    d_first, d_second = -second / TEMPERATURE, -first / TEMPERATURE
    for rows in parts:
        logits = first[rows] @ second.T / TEMPERATURE
        weights = ((logits - by_row[rows, None]).exp() + (logits - by_column).exp()) / (2 * TEMPERATURE)
        d_first[rows] += weights @ second
        d_second += weights.T @ first[rows]
    return loss, d_first, d_second


# --- Of both


def _unit_vectors(generator: torch.Generator, dtype: torch.dtype, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=generator, device=generator.device), dim=-1).to(dtype)


def _training_step(loss: Callable[..., Tensor], *learned: Tensor) -> Call:
    """A call that returns the loss and its gradients."""
    leaves = [x.detach().requires_grad_() for x in learned]

    def call() -> tuple[Tensor, ...]:
        value = loss(*leaves)
        return value.detach(), *torch.autograd.grad(value.sum(), leaves)

    return call


def _deviations(found: Sequence[Tensor], truth: Sequence[Tensor]) -> dict[str, float]:
    """The largest deviations, relative to the largest true number."""
    loss, *gradients = (
        (x.double() - true).abs().max() / true.abs().max() for x, true in zip(found, truth, strict=True)
    )
    return {"loss": float(loss), "gradient": float(torch.stack(gradients).max())}


def _limits(usual: dict[str, float], dtype: torch.dtype, times: int = 1) -> Limits:
    return {name: times * error + TOLERANCE[dtype][name] for name, error in usual.items()}


def _product_work(operations: int, formula: str, device: torch.device, dtype: torch.dtype) -> RooflineWork:
    beside = ", which products of TF32 outrun," if device.type == "cuda" and dtype == torch.float32 else ""
    return RooflineWork(operations, f"{formula} operations{beside}", multiply_roofline(device, dtype))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
