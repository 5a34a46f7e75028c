"""Contrast of anchors with their positives and a queue of negatives (InfoNCE), without ever forming the [N, K] logits.

The queue has no gradient, so the gradient of a log-sum-exp with respect to its anchor is an average of the queue,
weighted by the softmax, over T. The forward pass collects this average on the way (attention in which keys and values
are one), and the backward pass does not look at the queue again: 4 NKD operations in all, against 6 for recomputing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from cacl.kernels.common import MAX_DIM, MIN_KERNEL_LOGITS, require_floating, temperature_tensor
from cacl.kernels.contrast_reference import backward_reference, empty_backward, empty_forward, forward_reference
from cacl.kernels.contrast_triton import launch_backward, launch_forward
from cacl.kernels.dispatch import register_operation


class QueueContrast(NamedTuple):
    """What `queue_contrast` computes: float32, or float64 for embeddings of float64.

    `similarity` and `max_negative_logit` are for metrics and carry no gradient.
    """

    loss: Tensor
    """The loss of every positive, [N, P]."""
    similarity: Tensor
    """The similarity a . p of every anchor and positive, [N, P]."""
    logsumexp: Tensor
    """log(sum_k exp(a . queue_k / T)) of every anchor, [N]."""
    max_negative_logit: Tensor
    """The largest a . queue_k / T of every anchor, [N]."""


def queue_contrast(anchors: Tensor, positives: Tensor, queue: Tensor, temperature: float | Tensor) -> QueueContrast:
    """Contrasts every positive of every anchor with the keys in a queue.

    The loss of a positive p of an anchor a is -log(e^(s/T) / (e^(s/T) + sum_k e^(n_k/T))) with s = a . p and
    n_k = a . queue_k: Oord et al., "Representation Learning with Contrastive Predictive Coding" (2018), equation 4. The
    other positives of an anchor are in no denominator.

    Gradients go to anchors, positives and temperature. Sums are float32 whatever the inputs are, and the same from run
    to run on the same machine. Several kinds of anchors are rows of one call, which reads the queue once for all.

    Args:
        anchors: The anchors, float32, bfloat16 or float16 [N, D], on a CPU also float64, with D up to 512.
        positives: The positives of each anchor, [N, P, D], of the same dtype and device. N and P may be 0.
        queue: The keys, [K, D], of the same dtype and device, with K from 1 on.
        temperature: The temperature T: a number, or a tensor on the same device that holds one.

    Returns:
        The losses, and what metrics need.

    Raises:
        ValueError: Shapes, dtypes or devices do not fit, or the queue requires a gradient.
    """
    _check(anchors, positives, queue)
    return QueueContrast(
        *_QueueContrastFunction.apply(anchors, positives, queue, temperature_tensor(temperature, anchors))
    )


def _check(anchors: Tensor, positives: Tensor, queue: Tensor) -> None:
    named = {"anchors": anchors, "positives": positives, "queue": queue}
    n, d = anchors.shape if anchors.ndim == 2 else (-1, -1)
    fits = positives.ndim == 3 and queue.ndim == 2 and (*positives.shape[::2], queue.shape[1]) == (n, d, d)
    if not fits or len(queue) == 0 or not 0 < d <= MAX_DIM:
        shapes = ", ".join(f"{name} {list(x.shape)}" for name, x in named.items())
        raise ValueError(f"{shapes}: give [N, D], [N, P, D] and [K, D] with K from 1 on and D from 1 to {MAX_DIM}")
    for what in ("dtype", "device"):
        if len({getattr(x, what) for x in named.values()}) > 1:
            given = ", ".join(f"{name} {getattr(x, what)}" for name, x in named.items())
            raise ValueError(f"{given}: give tensors of one {what}")
    require_floating(anchors=anchors)
    if queue.requires_grad:
        raise ValueError("the queue requires a gradient, and gets none: keys in it are constants, detach them")


class _QueueContrastFunction(Function):
    @staticmethod
    def forward(ctx: Any, anchors: Tensor, positives: Tensor, queue: Tensor, temperature: Tensor) -> Any:
        loss, similarity, logsumexp, max_negative_logit, mean = _forward(anchors, positives, queue, temperature)
        ctx.save_for_backward(anchors, positives, temperature, similarity, logsumexp, mean)
        ctx.mark_non_differentiable(similarity, max_negative_logit)
        return loss, similarity, logsumexp, max_negative_logit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        d_loss, _, d_logsumexp, _ = gradients
        _, needs_d_positives, _, needs_d_temperature = ctx.needs_input_grad
        d_anchors, d_positives, d_temperature = _backward(d_loss, d_logsumexp, *ctx.saved_tensors, needs_d_positives)
        return (
            d_anchors,
            d_positives if needs_d_positives else None,
            None,
            d_temperature.sum() if needs_d_temperature else None,
        )


def _prefers_reference(anchors: Tensor, positives: Tensor, queue: Tensor, temperature: Tensor) -> bool:
    return len(anchors) * len(queue) < MIN_KERNEL_LOGITS


_forward = register_operation(
    "queue_contrast(Tensor anchors, Tensor positives, Tensor queue, Tensor temperature)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=forward_reference,
    kernel=launch_forward,
    fake=empty_forward,
    prefers_reference=_prefers_reference,
)
_backward = register_operation(
    "queue_contrast_backward(Tensor d_loss, Tensor d_logsumexp, Tensor anchors, Tensor positives, Tensor temperature,"
    " Tensor similarity, Tensor logsumexp, Tensor mean, bool needs_d_positives) -> (Tensor, Tensor, Tensor)",
    reference=backward_reference,
    kernel=launch_backward,
    fake=empty_backward,
)
