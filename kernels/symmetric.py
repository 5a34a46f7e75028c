"""Contrast of two views of a batch with each other (symmetric InfoNCE), without ever forming the [N, M] similarities.

Both sides learn. Every sample is an anchor in both directions and a negative of every other sample, on other processes
too. So the gradient of a row has terms of its own loss and of the losses of all columns; the log-sum-exps of both
directions, which the forward pass keeps, give the weights of all of them, and each row gathers its gradient itself: no
atomics, and nothing but features, log-sums and weights is exchanged between processes. A process that has all samples
computes both directions in one operation, which takes them from the same similarities on a CPU (`symmetric_cpu.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from cacl.kernels.common import MAX_DIM, MIN_KERNEL_LOGITS, require_floating, temperature_tensor
from cacl.kernels.dispatch import register_operation
from cacl.kernels.symmetric_cpu import gradients_cpu, logsumexps_cpu
from cacl.kernels.symmetric_reference import (
    empty_gradient,
    empty_gradients,
    empty_logsumexp,
    empty_logsumexps,
    gradient_reference,
    gradients_reference,
    logsumexp_reference,
    logsumexps_reference,
)
from cacl.kernels.symmetric_triton import launch_gradient, launch_gradients, launch_logsumexp, launch_logsumexps


class SymmetricContrast(NamedTuple):
    """What `symmetric_contrast` computes: float32 [N], or float64 [N] for embeddings of float64.

    `similarity` and `max_negative_logit` are for metrics and carry no gradient.
    """

    loss: Tensor
    """The loss of every sample, the mean over both directions."""
    similarity: Tensor
    """The similarity f . s of the two views of every sample."""
    max_negative_logit: Tensor
    """The largest f . s / T of a first view with the second view of any other sample; -inf if there is none."""


def symmetric_contrast(
    first: Tensor,
    second: Tensor,
    temperature: float | Tensor,
    *,
    gather: Callable[[Tensor], Tensor] = lambda x: x,
    rank_offset: int = 0,
) -> SymmetricContrast:
    """Contrasts the two views of every sample with the views of all other samples, in both directions.

    The loss of a sample i is the mean over both directions of -log(e^(f_i . s_i / T) / sum_j e^(f_i . s_j / T)), where
    j runs over the samples of all processes: Radford et al., "Learning Transferable Visual Models From Natural Language
    Supervision" (2021), figure 3.

    Gradients go to first, second and temperature. They are those of the sum of the losses of all processes with respect
    to the rows of this one. Sums are float32.

    Args:
        first: The first views, float32, bfloat16 or float16 [N, D], on a CPU also float64, with any N and D up to 512.
        second: The second views, [N, D], of the same dtype and device.
        temperature: The temperature T: a number, or a tensor on the same device that holds one.
        gather: Concatenates the rows of all processes in their order. Where there is one it returns what it is given.
            It is also called in the backward pass, if there are more.
        rank_offset: The number of the first row of this process among the rows of all processes.

    Returns:
        The losses, and what metrics need.

    Raises:
        ValueError: Shapes, dtypes or devices do not fit.
    """
    if first.ndim != 2 or first.shape != second.shape or not 0 < first.shape[1] <= MAX_DIM:
        raise ValueError(
            f"first {list(first.shape)}, second {list(second.shape)}: give two of [N, D] with D from 1 to {MAX_DIM}"
        )
    for what in ("dtype", "device"):
        if getattr(first, what) != getattr(second, what):
            raise ValueError(f"first {getattr(first, what)}, second {getattr(second, what)}: give one {what}")
    require_floating(first=first)
    temperature = temperature_tensor(temperature, first)
    return SymmetricContrast(*_SymmetricContrastFunction.apply(first, second, temperature, gather, rank_offset))


MIN_LOGSUMEXP = -1e30
"""Stands for the log-sum-exp of a sample without negatives, which is -inf. The backward pass needs a finite number."""


class _SymmetricContrastFunction(Function):
    @staticmethod
    def forward(
        ctx: Any,
        first: Tensor,
        second: Tensor,
        temperature: Tensor,
        gather: Callable[[Tensor], Tensor],
        rank_offset: int,
    ) -> Any:
        ctx.gather, ctx.rank_offset = gather, rank_offset
        all_second, all_first = gather(second), gather(first)
        ctx.has_all = all_second is second
        if ctx.has_all:
            first_lse, second_lse, max_negative_logit = _logsumexps(first, second, temperature)
        else:
            first_lse, max_negative_logit = _logsumexp(first, all_second, temperature, rank_offset)
            second_lse, _ = _logsumexp(second, all_first, temperature, rank_offset)
        # A sample that is alone has -inf. From here on it must be finite: the weight of its own is e^-inf over this.
        first_lse, second_lse = first_lse.clamp(min=MIN_LOGSUMEXP), second_lse.clamp(min=MIN_LOGSUMEXP)
        similarity = (first.to(first_lse.dtype) * second.to(first_lse.dtype)).sum(1)
        positive_logit = similarity / temperature
        loss = (F.softplus(first_lse - positive_logit) + F.softplus(second_lse - positive_logit)) / 2
        ctx.save_for_backward(first, second, temperature, positive_logit, first_lse, second_lse)
        ctx.mark_non_differentiable(similarity, max_negative_logit)
        return loss, similarity, max_negative_logit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        first, second, temperature, positive_logit, first_lse, second_lse = ctx.saved_tensors
        needs_d_first, needs_d_second, needs_d_temperature, *_ = ctx.needs_input_grad
        gather, rank_offset = ctx.gather, ctx.rank_offset
        half = gradients[0] / 2
        first_weight = half * torch.sigmoid(first_lse - positive_logit)
        second_weight = half * torch.sigmoid(second_lse - positive_logit)
        positive_weight = ((first_weight + second_weight) / temperature)[:, None]
        first_stats = torch.stack([first_lse, first_weight], 1)
        second_stats = torch.stack([second_lse, second_weight], 1)
        needs_of_first = needs_d_first or needs_d_temperature
        of_first = of_second = first.new_empty(0)
        if ctx.has_all:
            of_first, of_second = _gradients(
                first, second, temperature, first_stats, second_stats, needs_of_first, needs_d_second
            )
        else:
            if needs_of_first:
                columns, column_stats = gather(second), gather(second_stats)
                of_first = _gradient(first, columns, temperature, rank_offset, first_stats, column_stats)
            if needs_d_second:
                columns, column_stats = gather(first), gather(first_stats)
                of_second = _gradient(second, columns, temperature, rank_offset, second_stats, column_stats)
        d_first = d_second = d_temperature = None
        if needs_of_first:
            exact = of_first - positive_weight * second
            d_first = exact.to(first.dtype) if needs_d_first else None
            # Every similarity has one first view in it, and depends on T as on the inverse length of that.
            d_temperature = -(exact * first).sum() / temperature if needs_d_temperature else None
        if needs_d_second:
            d_second = (of_second - positive_weight * first).to(second.dtype)
        return d_first, d_second, d_temperature, None, None


def _prefers_reference(rows: Tensor, columns: Tensor, *_: Any) -> bool:
    return len(rows) * len(columns) < MIN_KERNEL_LOGITS


_logsumexp = register_operation(
    "batch_logsumexp(Tensor rows, Tensor columns, Tensor temperature, int rank_offset) -> (Tensor, Tensor)",
    reference=logsumexp_reference,
    kernel=launch_logsumexp,
    fake=empty_logsumexp,
    prefers_reference=_prefers_reference,
)
_gradient = register_operation(
    "batch_gradient(Tensor rows, Tensor columns, Tensor temperature, int rank_offset, Tensor row_stats,"
    " Tensor column_stats) -> Tensor",
    reference=gradient_reference,
    kernel=launch_gradient,
    fake=empty_gradient,
    prefers_reference=_prefers_reference,
)
_logsumexps = register_operation(
    "batch_logsumexps(Tensor first, Tensor second, Tensor temperature) -> (Tensor, Tensor, Tensor)",
    reference=logsumexps_reference,
    kernel=launch_logsumexps,
    fake=empty_logsumexps,
    cpu=logsumexps_cpu,
    prefers_reference=_prefers_reference,
)
_gradients = register_operation(
    "batch_gradients(Tensor first, Tensor second, Tensor temperature, Tensor first_stats, Tensor second_stats,"
    " bool needs_first, bool needs_second) -> (Tensor, Tensor)",
    reference=gradients_reference,
    kernel=launch_gradients,
    fake=empty_gradients,
    cpu=gradients_cpu,
    prefers_reference=_prefers_reference,
)
