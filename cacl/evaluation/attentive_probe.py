"""Attentive probe: learned queries attend to the tokens of a frozen encoder, and a linear layer classifies the outcome.

The attentive probes of CAE (Chen et al., IJCV 2024) and V-JEPA (Bardes et al., TMLR 2024) are a cross-attention layer
with several heads and one learned query. Of its query and key projections only their product counts, one vector per
head, and of its value and output projections only their product with the linear layer behind them. Psomas et al.
("Attention, Please!", ICLR 2026) therefore learn one query per head in the space of the tokens, for a fraction of the
cost. This is their probe, with the projection of the values left to the linear layer, too. The layer norm and the
perceptron of V-JEPA's block are not part of it.

A grid of learning rates and weight decays is trained in one pass over the tokens, as V-JEPA 2 does (Assran et al.,
2025): every setting has its own probe, all of them start alike, and all see the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEARNING_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
"""The peak learning rates of AdamW that are tried."""
WEIGHT_DECAYS = (1e-2, 1e-1, 1.0)
"""The weight decays of AdamW that are tried. They act on the queries and the weights of the linear layer."""
NUM_QUERIES = 8
"""H, the number of queries of a probe."""
EPOCHS = 60
"""The number of passes over the training videos, in which the learning rate falls to 0 along a cosine."""
BATCH_SIZE = 64
"""The number of videos in a batch."""
INIT_DEVIATION = 0.02
"""The standard deviation of the weights that probes start from. Attention is then almost even."""
SEED = 0
"""The seed of these weights and of the order of the videos."""


def attentive_settings(num_videos: int) -> list[dict[str, float]]:
    """Returns the settings that are tried, whatever the number of videos, with small learning rates first."""
    return [{"lr": lr, "decay": decay} for lr, decay in product(LEARNING_RATES, WEIGHT_DECAYS)]


def attentive_scores(
    tokens: np.ndarray,
    train: Sequence[int],
    classes: np.ndarray,
    queries: Sequence[int],
    settings: Sequence[Mapping[str, float]],
    device: str | torch.device = "cpu",
) -> Iterator[np.ndarray]:
    """Classifies videos by attentive probes, which are trained together.

    Args:
        tokens: Floats [V, N, F], the tokens of all videos, or [V, F], which is one token for each. A memory-mapped
            array is read one batch at a time.
        train: The positions of the videos to learn from.
        classes: Integers, the classes of these, each from 0 to C - 1 at least once.
        queries: The positions of the Q videos to classify.
        settings: The settings, each with `lr` and `decay`.
        device: The device that computes.

    Yields:
        The logits for each setting, float64 [Q, C].
    """
    tokens = tokens if tokens.ndim == 3 else tokens[:, None]
    probes = _train(tokens, np.asarray(train), torch.from_numpy(classes), settings, torch.device(device))
    with torch.no_grad():
        logits = [probes(batch) for batch in _batches(tokens, np.asarray(queries), torch.device(device))]
    yield from torch.cat(logits, 1).double().cpu().numpy()


class AttentiveProbes(nn.Module):
    """G probes of the same tokens, which start with the same weights.

    Each has H queries. The softmax over the tokens of their products with a query, divided by the square root of F,
    weighs the mean of the tokens, and the linear layer takes the H means.

    Args:
        mean: float32 [F], subtracted from tokens.
        deviation: float32 [F], by which tokens are divided afterwards.
        num_probes: G.
        num_classes: C.
        generator: Draws the weights.
    """

    def __init__(
        self, mean: Tensor, deviation: Tensor, num_probes: int, num_classes: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.mean, self.deviation = mean, deviation
        queries = torch.empty(NUM_QUERIES, len(mean)).normal_(std=INIT_DEVIATION, generator=generator)
        weight = torch.empty(num_classes, NUM_QUERIES * len(mean)).normal_(std=INIT_DEVIATION, generator=generator)
        self.queries = nn.ParameterList(queries.to(mean.device, copy=True) for _ in range(num_probes))
        self.weights = nn.ParameterList(weight.to(mean.device, copy=True) for _ in range(num_probes))
        self.biases = nn.ParameterList(mean.new_zeros(num_classes) for _ in range(num_probes))

    def forward(self, tokens: Tensor) -> Tensor:
        """Computes the logits of all probes.

        Args:
            tokens: float32 [B, N, F].

        Returns:
            float32 [G, B, C].
        """
        tokens = (tokens - self.mean) / self.deviation
        queries = torch.cat(list(self.queries)) * tokens.shape[2] ** -0.5  # [G * H, F]
        attention = (tokens @ queries.T).softmax(1)  # [B, N, G * H]
        means = (attention.transpose(1, 2) @ tokens).unflatten(1, (-1, NUM_QUERIES))  # [B, G, H, F]
        weights, biases = torch.stack(list(self.weights)), torch.stack(list(self.biases))
        return torch.baddbmm(biases[:, None], means.flatten(2).transpose(0, 1), weights.transpose(1, 2))


def _train(
    tokens: np.ndarray,
    train: np.ndarray,
    classes: Tensor,
    settings: Sequence[Mapping[str, float]],
    device: torch.device,
) -> AttentiveProbes:
    generator = torch.Generator().manual_seed(SEED)
    mean, deviation = _channel_statistics(tokens, train, device)
    probes = AttentiveProbes(mean, deviation, len(settings), int(classes.max()) + 1, generator)
    groups = []
    for setting, query, weight, bias in zip(settings, probes.queries, probes.weights, probes.biases, strict=True):
        groups.append({"params": [query, weight], "lr": setting["lr"], "weight_decay": setting["decay"]})
        groups.append({"params": [bias], "lr": setting["lr"], "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * -(-len(train) // BATCH_SIZE))
    for _ in range(EPOCHS):
        order = torch.randperm(len(train), generator=generator)
        for chosen, batch in zip(order.split(BATCH_SIZE), _batches(tokens, train[order.numpy()], device), strict=True):
            logits = probes(batch)
            # The probes share no weight, so that the gradient of the sum is that of each on its own.
            targets = classes[chosen].to(device).expand(len(settings), -1)
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / len(chosen)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return probes


def _batches(tokens: np.ndarray, rows: np.ndarray, device: torch.device) -> Iterator[Tensor]:
    """Reads the tokens of some videos, float32 [B, N, F] at a time."""
    for start in range(0, len(rows), BATCH_SIZE):
        yield torch.from_numpy(tokens[rows[start : start + BATCH_SIZE]]).to(device).float()


def _channel_statistics(tokens: np.ndarray, train: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """The mean and the standard deviation of each channel over all tokens of the training videos, float32 [F]."""
    count = len(train) * tokens.shape[1]
    mean = sum(batch.double().sum((0, 1)) for batch in _batches(tokens, train, device)) / count
    squares = sum((batch.double() - mean).square().sum((0, 1)) for batch in _batches(tokens, train, device))
    deviation = (squares / count).sqrt()
    # What is constant but for rounding would otherwise be blown up to noise.
    deviation = torch.where(deviation > 1e-6 * mean.abs(), deviation, 1.0)
    return mean.float(), deviation.float()
