"""The contrastive loss as its formula is written, in numpy and in plain torch, and embeddings to compute it of."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from cacl.method.pairs import Embedding

F_Q, F_K = Embedding("cnn", "query"), Embedding("cnn", "key")
T_Q, T_K = Embedding("transformer", "query"), Embedding("transformer", "key")
"""The four embeddings, by the letters of the paper."""

PUBLISHED_PAIRS = {
    "official": ((F_Q, F_K, F_Q), (F_Q, T_Q, F_Q), (F_Q, T_K, F_Q), (T_Q, T_K, F_Q)),
    "within": ((F_Q, F_K, F_Q), (T_Q, T_K, T_Q)),
    "cross": ((F_Q, F_K, F_Q), (F_Q, T_K, F_Q), (T_Q, F_K, T_Q), (T_Q, T_K, T_Q)),
    "cnn": ((F_Q, F_K, F_Q),),
    "transformer": ((T_Q, T_K, T_Q),),
}
"""Each positive pair, and the embedding whose similarities to the queue are its negatives, by the description of the
method."""

EMBEDDINGS = (F_Q, F_K, T_Q, T_K)
SIZES = [(1, 1, 3), (5, 1, 128), (1, 7, 128), (5, 7, 3), (1, 513, 3), (5, 513, 128)]  # B, K, D
TEMPERATURES = [0.01, 0.07, 1.0]
SMALL_LOSS, SMALL_GRADIENT = 1e-6, 5e-6
"""The errors that are allowed beyond those of plain torch in float32, times T. Logits reach 1/T, where float32 rounds
by 6e-8/T, and gradients are keys times softmax weights over T. At T = 0.01 the second is the 5e-4 stated for the
kernels."""
KINDS_OF_NEGATIVES = {"queue": ("queue",), "batch": ("batch",), "both": ("queue", "batch")}
"""The kinds of negatives that each value of `negatives` stands for."""


def random_embeddings(size: tuple[int, int, int]) -> tuple[dict[Embedding, Tensor], Tensor]:
    """Draws unit embeddings, of which the queries have a gradient, and a queue.

    The embeddings of a video are near each other, for some videos less so, and every third key of the queue is near a
    video, too. So positives win and lose.
    """
    batch, keys, dim = size
    rng = np.random.default_rng(size)
    videos = rng.standard_normal((batch, dim))
    spread = np.linspace(0.3, 1.5, batch)[:, None]
    embeddings = {name: unit_rows(videos + spread * rng.standard_normal((batch, dim))) for name in EMBEDDINGS}
    for name, x in embeddings.items():
        x.requires_grad_(name.side == "query")
    queue = rng.standard_normal((keys, dim))
    queue[::3] += 1.5 * videos[rng.integers(0, batch, len(queue[::3]))]
    return embeddings, unit_rows(queue)


def named(embedding: Embedding) -> str:
    return f"{embedding.encoder}_{embedding.side}"


def unit_rows(x: np.ndarray) -> Tensor:
    return torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True)).float()


def contrast_in_numpy(
    embeddings: Mapping[Embedding, Tensor],
    queue: Tensor,
    temperature: float,
    pairs: str,
    negatives: str = "queue",
    cross_weight: float = 1.0,
) -> tuple[float, dict[str, float]]:
    """The loss and its metrics in float64, as the formula is written."""
    e = {name: x.detach().numpy().astype(np.float64) for name, x in embeddings.items()}
    keys = queue.numpy().astype(np.float64)
    losses: dict[str, list[float]] = {kind: [] for kind in KINDS_OF_NEGATIVES[negatives]}
    metrics, weights = {}, []
    for first, second, anchor in PUBLISHED_PAIRS[pairs]:
        weights += [cross_weight if first.encoder != second.encoder else 1.0] * len(e[first])
        batch = len(e[first])
        similarity = np.array([a @ b for a, b in zip(e[first], e[second], strict=True)])
        metrics[f"similarity/{named(first)}.{named(second)}"] = similarity.mean()
        for i in range(batch):
            positive = np.exp(similarity[i] / temperature)
            others = [j for j in range(batch) if j != i]
            if "queue" in losses:
                of_queue = np.exp(keys @ e[anchor][i] / temperature)
                losses["queue"].append(-np.log(positive / (positive + of_queue.sum())))
            if "batch" in losses:
                of_first = np.exp(e[second][others] @ e[first][i] / temperature)
                of_second = np.exp(e[first][others] @ e[second][i] / temperature)
                sides = [-np.log(positive / (positive + of_side.sum())) for of_side in (of_first, of_second)]
                losses["batch"].append(float(np.mean(sides)))
        if "queue" in losses:
            metrics[f"top1/{named(first)}.{named(second)}"] = np.mean(similarity >= (e[anchor] @ keys.T).max(1))
        if "batch" in losses:
            nearest = np.where(np.eye(batch, dtype=bool), -np.inf, e[first] @ e[second].T).max(1)
            metrics[f"batch_top1/{named(first)}.{named(second)}"] = np.mean(similarity >= nearest)
    if len(losses) > 1:
        metrics |= {f"contrast/{kind}": np.average(values, weights=weights) for kind, values in losses.items()}
    return float(np.mean([np.average(values, weights=weights) for values in losses.values()])), metrics


def contrast_in_torch(
    embeddings: Mapping[Embedding, Tensor],
    queue: Tensor,
    temperature: float,
    pairs: str,
    dtype: torch.dtype,
    negatives: str = "queue",
) -> tuple[Tensor, dict[Embedding, Tensor]]:
    """The loss and its gradients the plain way.

    With the queue they are the cross-entropy of the logits of the positive and all negatives with class 0; in a batch,
    that of all similarities with the position of the video, by rows and by columns.
    """
    e = {name: x.detach().to(dtype).requires_grad_(x.requires_grad) for name, x in embeddings.items()}
    losses = []
    for first, second, anchor in PUBLISHED_PAIRS[pairs]:
        if "queue" in KINDS_OF_NEGATIVES[negatives]:
            positive = (e[first] * e[second]).sum(1, keepdim=True)
            logits = torch.cat([positive, e[anchor] @ queue.to(dtype).T], 1) / temperature
            losses.append(torch.nn.functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long)))
        if "batch" in KINDS_OF_NEGATIVES[negatives]:
            logits = e[first] @ e[second].T / temperature
            own = torch.arange(len(logits))
            sides = [torch.nn.functional.cross_entropy(x, own) for x in (logits, logits.T)]
            losses.append(torch.stack(sides).mean())
    loss = torch.stack(losses).mean()
    loss.backward()
    return loss.detach(), {name: x.grad for name, x in e.items() if x.grad is not None}


def reversed_contrast_in_torch(
    embeddings: Mapping[Embedding, Tensor],
    reversed_keys: Mapping[str, Tensor],
    temperature: float,
    pairs: str,
    cross_weight: float = 1.0,
) -> tuple[Tensor, dict[str, float]]:
    """The loss against clips played backwards in float64, as the formula is written, and its metrics."""
    losses, weights, metrics = [], [], {}
    for first, second, _ in PUBLISHED_PAIRS[pairs]:
        negatives = reversed_keys[second.encoder].double()
        nearer = []
        for a, p, r in zip(embeddings[first].double(), embeddings[second].double(), negatives, strict=True):
            positive, negative = torch.exp(a @ p / temperature), torch.exp(a @ r / temperature)
            losses.append(-torch.log(positive / (positive + negative)))
            weights.append(cross_weight if first.encoder != second.encoder else 1.0)
            nearer.append(bool(a @ p >= a @ r))
        metrics[f"reversed_top1/{named(first)}.{named(second)}"] = np.mean(nearer)
    loss = torch.stack(losses) @ torch.tensor(weights).double() / sum(weights)
    return loss, metrics | {"contrast/reversed": loss.item()}


def assert_metrics(metrics: Mapping[str, Tensor], expected: Mapping[str, float], allowed: float) -> None:
    """`allowed` is the error that losses may have. Other metrics know nothing of T."""
    assert metrics.keys() == expected.keys()
    for name, value in metrics.items():
        assert not value.requires_grad
        error = allowed if name.startswith("contrast/") else 1e-6
        assert value.item() == pytest.approx(expected[name], rel=0, abs=error), name
