"""What a batch of embeddings says of its encoder: whether they differ, in how many directions, and how old keys fit.

All functions are pure, and take unit vectors of float64 as `TrainState.measure` gives them. They compute on any device.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

EPSILON = 1e-7
"""What is added to each normalised singular value, as RankMe does for float32."""


def measure_embeddings(
    queries: Mapping[str, Tensor], keys: Mapping[str, Tensor], old_keys: Tensor | None
) -> dict[str, float]:
    """Measures the embeddings of one batch.

    Args:
        queries: Unit vectors [N, D] by encoder, of the query views.
        keys: Unit vectors [N, D] by encoder, of the key views of the same videos.
        old_keys: Unit vectors [M, D], the oldest keys of the queue, of all encoders; None where they do not count.

    Returns:
        For each encoder, such as `cnn`: `embedding_std/cnn_query`, `effective_rank/cnn_query`,
        `uniformity/cnn_query`, `alignment/cnn_query.cnn_key`, and `drift/cnn_query` if there are old keys.
    """
    measures: dict[str, float] = {}
    new_keys = list(keys.values())
    for encoder, x in queries.items():
        measures[f"embedding_std/{encoder}_query"] = embedding_std(x).item()
        measures[f"effective_rank/{encoder}_query"] = effective_rank(x).item()
        measures[f"uniformity/{encoder}_query"] = uniformity(x).item()
        measures[f"alignment/{encoder}_query.{encoder}_key"] = alignment(x, keys[encoder]).item()
        if old_keys is not None:
            measures[f"drift/{encoder}_query"] = drift(x, new_keys, old_keys).item()
    return measures


def embedding_std(embeddings: Tensor) -> Tensor:
    """Computes the standard deviation of embeddings, as a share of what it is for directions at random.

    Chen and He (SimSiam, CVPR 2021, section 4.1) take it of each dimension over the batch and average over the
    dimensions. For directions at random it is 1/sqrt(D), by which it is divided here.

    Args:
        embeddings: Unit vectors [N, D], with N from 2 on.

    Returns:
        A scalar: 0 if all embeddings are the same, about 1 if they point everywhere.
    """
    return embeddings.std(0).mean() * embeddings.shape[1] ** 0.5


def effective_rank(embeddings: Tensor) -> Tensor:
    """Computes the effective rank of embeddings: RankMe (Garrido et al., ICML 2023, equation 1).

    It is exp(-sum_k p_k log p_k), where p_k is the k-th singular value divided by their sum, plus 1e-7.

    Args:
        embeddings: Vectors [N, D]. Their mean is not subtracted.

    Returns:
        A scalar from 1 to min(N, D), so it compares only with that of as many embeddings.
    """
    values = torch.linalg.svdvals(embeddings)
    shares = values / values.sum() + EPSILON
    return (-(shares * shares.log()).sum()).exp()


def alignment(one: Tensor, other: Tensor) -> Tensor:
    """Computes the alignment of positive pairs: the mean of |x - y|^2 (Wang and Isola, ICML 2020, with alpha = 2).

    Args:
        one: Unit vectors [N, D].
        other: Unit vectors [N, D], each the positive of the same row of `one`.

    Returns:
        A scalar from 0, where the two are the same, to 4. It is 2 - 2 c for a mean cosine c.
    """
    return (one - other).square().sum(1).mean()


def uniformity(embeddings: Tensor) -> Tensor:
    """Computes the uniformity of embeddings (Wang and Isola, ICML 2020, with t = 2).

    It is the logarithm of the mean of exp(-2 |x - y|^2) over all pairs of two of them.

    Args:
        embeddings: Unit vectors [N, D], with N from 2 on.

    Returns:
        A scalar: 0 if all embeddings are the same, towards -4 if they point everywhere.
    """
    return torch.pdist(embeddings).square().mul(-2).exp().mean().log()


def drift(queries: Tensor, new_keys: list[Tensor], old_keys: Tensor) -> Tensor:
    """Computes how much less similar queries are to the old keys of other videos than to the new keys of other videos.

    With encoders that stand still the two are alike. Where an encoder moves faster than the queue is renewed, old keys
    are told from new ones without a look at the video.

    Args:
        queries: Unit vectors [N, D] of one encoder.
        new_keys: Unit vectors [N, D] of each encoder, of the same videos in the same order.
        old_keys: Unit vectors [M, D], with the same share of each encoder.

    Returns:
        A scalar, the difference of the two mean cosines, from -2 to 2.
    """
    others = ~torch.eye(len(queries), dtype=torch.bool, device=queries.device)
    to_new = torch.stack([(queries @ keys.T)[others].mean() for keys in new_keys]).mean()
    return to_new - (queries @ old_keys.T).mean()
