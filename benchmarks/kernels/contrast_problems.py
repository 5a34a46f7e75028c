"""What `cacl bench-kernels` computes of contrasts: with a queue, and of two views of a batch with each other.

Forward and backward. What is said here of GPUs has not run on one yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cacl.benchmarks.harness.timing import Call, multiplying
from cacl.benchmarks.harness.trial import COMPILED, OURS, Floor, Problem, Task, Way
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
"""Relative to the largest true number, and beyond the error of torch in the same dtype."""
RELATIVE = "the largest, relative to the largest number in float64"
ELSEWHERE = 3
"""Other ways may err so many times as torch does: in half precision it matters much what is rounded when."""


def contrast_problem(
    device: torch.device, dtype: torch.dtype, n: int, p: int, k: int, *, other_side: bool = False
) -> Problem:
    """other_side: also as `contrast.MIN_KERNEL_LOGITS` decides it for larger or smaller problems."""
    setting = f"{n} anchors, {p} positive{'s' * (p > 1)} each, {k:,} keys, {DIM} dimensions, {_name(dtype)}"
    return Problem("contrast", setting, partial(_contrast, device, dtype, n, p, k, other_side))


def _contrast(device: torch.device, dtype: torch.dtype, n: int, p: int, k: int, other_side: bool) -> Task:
    unit = partial(_unit_vectors, torch.Generator(device).manual_seed(0), dtype)
    anchors, queue = unit(n, DIM), unit(k, DIM)
    positives = F.normalize(anchors[:, None] + unit(n, p, DIM), dim=-1)
    checked = torch.linspace(0, n - 1, min(n, CHECKED_ROWS), device=device).long()

    def trained(loss: Callable[..., Tensor]) -> Call:
        return _trained(lambda rows: loss(rows, positives, queue, TEMPERATURE), anchors)

    def some(loss: Callable[..., Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
        keys, theirs, rows = queue.to(dtype), positives[checked].to(dtype), anchors[checked].to(dtype)
        return _trained(lambda rows: loss(rows, theirs, keys, TEMPERATURE), rows)()

    truth = some(rivals.moco, torch.float64)
    usual = _deviations(some(rivals.lean, dtype), truth)
    limits, of_others = _limits(usual, dtype), _limits(usual, dtype, ELSEWHERE)
    half_only = device.type == "cuda" and dtype == torch.float32
    ways = [
        Way(
            name=OURS,
            how="queue_contrast: the average of the queue comes out of the forward pass, the backward pass is small",
            prepare=lambda: trained(_ours),
            limits=limits,
        ),
        Way(
            name="eager MoCo",
            how="positive and negatives side by side in [N, 1 + K] logits, and cross_entropy",
            prepare=lambda: trained(rivals.moco),
            limits=of_others,
        ),
        Way(
            name="lean eager",
            how="softplus(logsumexp of the negatives - positive): [N, K] once",
            prepare=lambda: trained(rivals.lean),
            limits=of_others,
        ),
        Way(
            name=COMPILED,
            how="of lean eager",
            prepare=lambda: trained(rivals.compiled(rivals.lean)),
            limits=of_others,
        ),
        Way(
            name="flash attention",
            how="torch's own, queue as keys and values: its log-sum-exp is the denominator, its output the gradient",
            prepare=lambda: trained(rivals.attention),
            limits=of_others,
            unavailable_reason="torch has it on GPUs in half precision only" if half_only else "",
        ),
    ]
    if other_side:
        small = n * k < contrast.MIN_KERNEL_LOGITS
        ways.insert(
            1,
            Way(
                name=f"{OURS}, {'always' if small else 'never'} the kernel",
                how="what the rule by size (contrast.MIN_KERNEL_LOGITS) decides against",
                prepare=lambda: trained(_with_bound(0 if small else n * k + 1)),
                limits=limits,
            ),
        )
    floor = _products(4 * n * k * DIM, "4 N K D", device, dtype)
    unit = f"of {len(checked)} anchors, {RELATIVE}"
    return Task(ways, lambda found: _deviations([part[checked] for part in found], truth), unit, floor)


def _ours(anchors: Tensor, positives: Tensor, queue: Tensor, temperature: float) -> Tensor:
    return contrast.queue_contrast(anchors, positives, queue, temperature).loss


def _with_bound(small: int) -> Callable[..., Tensor]:
    def loss(*inputs: Any) -> Tensor:
        before, contrast.MIN_KERNEL_LOGITS = contrast.MIN_KERNEL_LOGITS, small
        try:
            return _ours(*inputs)
        finally:
            contrast.MIN_KERNEL_LOGITS = before

    return loss


def symmetric_problem(device: torch.device, dtype: torch.dtype, n: int) -> Problem:
    setting = f"{n} samples, {DIM} dimensions, {_name(dtype)}"
    return Problem("symmetric", setting, partial(_symmetric, device, dtype, n))


def _symmetric(device: torch.device, dtype: torch.dtype, n: int) -> Task:
    unit = partial(_unit_vectors, torch.Generator(device).manual_seed(0), dtype)
    first = unit(n, DIM)
    second = F.normalize(first + unit(n, DIM), dim=-1)

    def trained(loss: Callable[..., Tensor], *views: Tensor) -> Call:
        return _trained(lambda *views: loss(*views, TEMPERATURE), *views)

    truth = _symmetric_truth(first, second)
    part = first[:1024], second[:1024]  # all of them would not fit everywhere
    usual = _deviations(trained(rivals.clip, *part)(), _symmetric_truth(*part))
    limits, of_others = _limits(usual, dtype), _limits(usual, dtype, ELSEWHERE)
    ways = [
        Way(
            name=OURS,
            how="symmetric_contrast: no [N, N], but similarities computed four times, 12 N² D operations",
            prepare=lambda: trained(_ours_symmetric, first, second),
            limits=limits,
        ),
        Way(
            name="eager CLIP",
            how="[N, N] logits, and cross_entropy of them and of their transpose",
            prepare=lambda: trained(rivals.clip, first, second),
            limits=of_others,
        ),
        Way(
            name=COMPILED,
            how="of eager CLIP",
            prepare=lambda: trained(rivals.compiled(rivals.clip), first, second),
            limits=of_others,
        ),
    ]
    floor = _products(6 * n * n * DIM, "6 N² D", device, dtype)  # the least, for whoever keeps the similarities
    return Task(ways, lambda found: _deviations(found, truth), RELATIVE, floor)


def _ours_symmetric(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    return symmetric_contrast(first, second, temperature).loss


def _symmetric_truth(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and both gradients, float64: by the definition, some rows at a time."""
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


def _unit_vectors(generator: torch.Generator, dtype: torch.dtype, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=generator, device=generator.device), dim=-1).to(dtype)


def _trained(loss: Callable[..., Tensor], *learned: Tensor) -> Call:
    """A call that returns the loss and its gradients."""
    leaves = [x.detach().requires_grad_() for x in learned]

    def call() -> tuple[Tensor, ...]:
        value = loss(*leaves)
        return value.detach(), *torch.autograd.grad(value.sum(), leaves)

    return call


def _deviations(found: Sequence[Tensor], truth: Sequence[Tensor]) -> dict[str, float]:
    """Relative to the largest true number."""
    loss, *gradients = (
        (x.double() - true).abs().max() / true.abs().max() for x, true in zip(found, truth, strict=True)
    )
    return {"loss": float(loss), "gradient": float(torch.stack(gradients).max())}


def _limits(usual: dict[str, float], dtype: torch.dtype, times: int = 1) -> dict[str, float]:
    return {name: times * error + TOLERANCE[dtype][name] for name, error in usual.items()}


def _products(operations: int, formula: str, device: torch.device, dtype: torch.dtype) -> Floor:
    beside = ", which products of TF32 outrun," if device.type == "cuda" and dtype == torch.float32 else ""
    return Floor(operations, f"{formula} operations{beside}", multiplying(device, dtype))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
