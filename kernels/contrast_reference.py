"""The contrast with a queue in torch: the readable form of what the kernels compute, and what runs on a CPU."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from cacl.kernels.threads import map_in_threads

LOG2_E = math.log2(math.e)
CPU_CHUNK_ANCHORS = 2**11
"""How many anchors are taken at a time on a CPU."""
CPU_CHUNK_LOGITS = 2**19
"""How many logits a thread computes at a time on a CPU (2 MiB), so that they stay near its core."""


def forward_reference(
    anchors: Tensor, positives: Tensor, queue: Tensor, temperature: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Computes the losses, and what the backward pass needs.

    Args:
        anchors: The anchors, [N, D].
        positives: The positives of each anchor, [N, P, D].
        queue: The keys, [K, D].
        temperature: The temperature T, float32 or float64 without dimensions.

    Returns:
        The losses and the similarities a . p, [N, P], the log-sum-exps of the logits and the largest logits, [N], and
        the averages of the queue weighted by the softmax of the logits, [N, D]. All are float32, or float64 if the
        embeddings are.
    """
    loss, similarity, logsumexp, max_negative_logit, mean = empty_forward(anchors, positives, queue, temperature)
    anchors_at_once = CPU_CHUNK_ANCHORS if anchors.is_cpu else max(1, len(anchors))
    for first in range(0, len(anchors), anchors_at_once):
        rows = slice(first, first + anchors_at_once)
        scaled = anchors[rows].to(mean.dtype) / temperature
        keys_at_once = max(1, CPU_CHUNK_LOGITS // len(scaled)) if anchors.is_cpu else len(queue)
        threads = min(torch.get_num_threads(), math.ceil(len(queue) / keys_at_once))
        scans = map_in_threads(partial(_scan, scaled, keys_at_once), queue.chunk(threads))
        logsumexp[rows], max_negative_logit[rows], mean[rows] = _merge(scans)
    similarity.copy_(torch.einsum("nd,npd->np", anchors.to(mean.dtype), positives.to(mean.dtype)))
    # From e^40 on a 1 is nothing beside it, in float64 either.
    loss.copy_(F.softplus(logsumexp[:, None] - similarity / temperature, threshold=40))
    return loss, similarity, logsumexp, max_negative_logit, mean


def _scan(scaled: Tensor, keys_at_once: int, queue: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Computes log-sum-exp and largest logit, [n], and mean, [n, D], of anchors over T, a chunk of keys at a time.

    Powers are of 2, which torch computes in a third of the time of powers of e. All chunks use the same memory: new
    memory is given page by page, which takes long beside the products.
    """
    m = scaled.new_full((len(scaled),), float("-inf"))
    l, acc = torch.zeros_like(m), torch.zeros_like(scaled)
    memory = scaled.new_empty(len(scaled), min(keys_at_once, len(queue)))
    for keys in queue.split(keys_at_once):
        keys = keys.to(scaled.dtype)
        logits = torch.mm(scaled, keys.T, out=memory[:, : len(keys)])
        m_before, m = m, torch.maximum(m, logits.amax(1))
        p = torch.add((-LOG2_E * m)[:, None], logits, alpha=LOG2_E, out=logits).exp2_()
        alpha = (m_before - m).exp_()
        l = l * alpha + p.sum(1)
        acc.mul_(alpha[:, None]).addmm_(p, keys)
    return m + l.log(), m, acc.div_(l[:, None])


def _merge(scans: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Makes of what `_scan` returned for the parts of a queue what it would return for the whole."""
    logsumexps, max_logits, means = (torch.stack(parts) for parts in zip(*scans, strict=True))
    logsumexp = logsumexps.logsumexp(0)
    shares = (logsumexps - logsumexp).exp_()
    return logsumexp, max_logits.amax(0), means.mul_(shares[:, :, None]).sum(0)


def backward_reference(
    d_loss: Tensor,
    d_logsumexp: Tensor,
    anchors: Tensor,
    positives: Tensor,
    temperature: Tensor,
    similarity: Tensor,
    logsumexp: Tensor,
    mean: Tensor,
    needs_d_positives: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes the gradients from what the forward pass returned, without the queue.

    Args:
        d_loss: The gradient with respect to the losses, [N, P].
        d_logsumexp: The gradient with respect to the log-sum-exps, [N].
        anchors: The anchors, [N, D].
        positives: The positives of each anchor, [N, P, D].
        temperature: The temperature T, without dimensions.
        similarity: The similarities a . p, [N, P].
        logsumexp: The log-sum-exps of the logits, [N].
        mean: The averages of the queue weighted by the softmax of the logits, [N, D].
        needs_d_positives: Whether the gradient of the positives is wanted.

    Returns:
        The gradients of the anchors, [N, D], of the positives, [N, P, D] or without rows if it is not wanted, and of
        the temperature, the share of each anchor, [N].
    """
    weights = d_loss * torch.sigmoid(logsumexp[:, None] - similarity / temperature)
    positives_sum = torch.einsum("np,npd->nd", weights, positives.to(weights.dtype))
    d_anchors = ((weights.sum(1) + d_logsumexp)[:, None] * mean - positives_sum) / temperature
    d_temperature = -(d_anchors * anchors).sum(1) / temperature
    wanted = slice(None) if needs_d_positives else slice(0)
    d_positives = (-weights / temperature)[wanted, :, None] * anchors[wanted, None]
    return d_anchors.to(anchors.dtype), d_positives.to(positives.dtype), d_temperature


def empty_forward(
    anchors: Tensor, positives: Tensor, queue: Tensor, temperature: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Makes empty tensors for what `forward_reference` returns."""
    dtype = torch.promote_types(anchors.dtype, torch.float32)
    shapes = positives.shape[:2], positives.shape[:2], anchors.shape[:1], anchors.shape[:1], anchors.shape
    loss, similarity, logsumexp, max_negative_logit, mean = (anchors.new_empty(shape, dtype=dtype) for shape in shapes)
    return loss, similarity, logsumexp, max_negative_logit, mean


def empty_backward(
    d_loss: Tensor,
    d_logsumexp: Tensor,
    anchors: Tensor,
    positives: Tensor,
    temperature: Tensor,
    similarity: Tensor,
    logsumexp: Tensor,
    mean: Tensor,
    needs_d_positives: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Makes empty tensors for what `backward_reference` returns."""
    n, *rest = positives.shape  # of which len() would make a constant under torch.compile
    d_positives = positives.new_empty(n if needs_d_positives else 0, *rest)
    return anchors.new_empty(anchors.shape), d_positives, torch.empty_like(logsumexp)
