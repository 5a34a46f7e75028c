"""The negatives of a contrast: how strongly anchors resemble a queue of other videos' keys."""

from __future__ import annotations

import torch
from torch import Tensor


def queue_logsumexp(anchors: Tensor, queue: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """log(sum_k exp(a . queue_k / T)) for each anchor, and the largest a . queue_k / T.

    anchors: [N, D], queue: [K, D] without gradient. Returns float32 [N] and float32 [N]; the second, for counting
    which anchors rank their positive first, carries no gradient.

    With the positive similarity p of a pair, -log(e^(p/T) / (e^(p/T) + sum_k e^(n_k/T))) = softplus(lse - p/T).
    """
    assert not queue.requires_grad, "keys in the queue are constants"
    logits = anchors.float() @ queue.float().T / temperature
    return torch.logsumexp(logits, dim=1), logits.detach().amax(1)
