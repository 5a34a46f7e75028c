"""The measures of embeddings against formulas written down a second time, in numpy, one pair or one value at a time."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cacl.training.embedding_measures import (
    alignment,
    drift,
    effective_rank,
    embedding_std,
    measure_embeddings,
    uniformity,
)


def directions(count: int, dim: int, *, seed: int = 0, spread: float = math.inf) -> Tensor:
    """Draws unit vectors, float64 [count, dim]: about one direction where the spread is finite."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    if spread == math.inf:
        return F.normalize(noise, dim=1)
    return F.normalize(torch.ones(dim, dtype=torch.float64) + spread * noise, dim=1)


@pytest.mark.parametrize("spread", [math.inf, 1.0, 0.01])
@pytest.mark.parametrize(("count", "dim"), [(2, 3), (7, 5), (32, 128)])
def test_measures_are_their_formulas(count: int, dim: int, spread: float) -> None:
    x, y = (directions(count, dim, seed=seed, spread=spread) for seed in (0, 1))
    rows, others = x.numpy(), y.numpy()

    deviations = [math.sqrt(sum((v - column.mean()) ** 2 for v in column) / (count - 1)) for column in rows.T]
    assert embedding_std(x).item() == pytest.approx(sum(deviations) / dim / (1 / math.sqrt(dim)), rel=1e-12)

    gram = rows @ rows.T if count < dim else rows.T @ rows
    values = np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0, None))
    shares = [value / values.sum() + 1e-7 for value in values]
    rank = math.exp(-sum(share * math.log(share) for share in shares))
    assert effective_rank(x).item() == pytest.approx(rank, rel=1e-5)  # a square root of what is nearly 0

    distances = [sum((a - b) ** 2) for a, b in zip(rows, others, strict=True)]
    assert alignment(x, y).item() == pytest.approx(sum(distances) / count, rel=1e-9)
    assert alignment(x, y).item() == pytest.approx(2 - 2 * (rows * others).sum(1).mean(), rel=1e-9, abs=1e-12)

    potentials = [math.exp(-2 * sum((a - b) ** 2)) for a, b in itertools.combinations(rows, 2)]
    assert uniformity(x).item() == pytest.approx(math.log(sum(potentials) / len(potentials)), rel=1e-9, abs=1e-12)


def test_measures_of_extremes() -> None:
    """Constant embeddings have no spread and one direction, random ones as much as there can be."""
    constant, random = directions(1, 128).expand(512, -1), directions(512, 128)
    assert embedding_std(constant).item() == pytest.approx(0, abs=1e-12)
    assert effective_rank(constant).item() == pytest.approx(1, abs=1e-3)
    assert uniformity(constant).item() == pytest.approx(0, abs=1e-9)
    assert embedding_std(random).item() == pytest.approx(1, abs=0.01)
    assert effective_rank(random).item() > 0.9 * 128
    assert uniformity(random).item() < -3.9
    assert effective_rank(torch.eye(16, dtype=torch.float64)).item() == pytest.approx(16, rel=1e-4)


def test_drift_is_the_loss_of_similarity_with_age() -> None:
    """It is 0 for an encoder that stands still, whose keys are those of other videos at any time."""
    queries = directions(64, 16, spread=0.3)
    new = [directions(64, 16, seed=1, spread=0.3), directions(64, 16, seed=2)]
    still = torch.cat([directions(64, 16, seed=3, spread=0.3), directions(64, 16, seed=4)])
    moved = torch.cat([-directions(64, 16, seed=3, spread=0.3), directions(64, 16, seed=4)])
    assert drift(queries, new, still).item() == pytest.approx(0, abs=0.02)
    assert drift(queries, new, moved).item() > 0.8
    to_new = [float(queries[i] @ keys[j]) for keys in new for i in range(64) for j in range(64) if i != j]
    to_old = [float(query @ key) for query in queries for key in moved]
    expected = sum(to_new) / len(to_new) - sum(to_old) / len(to_old)
    assert drift(queries, new, moved).item() == pytest.approx(expected, rel=1e-9)


def test_each_encoder_has_its_names() -> None:
    embeddings = {"cnn": directions(8, 4), "transformer": directions(8, 4, seed=1, spread=0.1)}
    keys = {name: directions(8, 4, seed=2) for name in embeddings}
    measures = measure_embeddings(embeddings, keys, None)
    assert set(measures) == {
        *(f"{measure}/{name}_query" for measure in ("embedding_std", "effective_rank", "uniformity") for name in keys),
        *(f"alignment/{name}_query.{name}_key" for name in keys),
    }
    for name, x in embeddings.items():
        assert measures[f"embedding_std/{name}_query"] == embedding_std(x).item()
        assert measures[f"alignment/{name}_query.{name}_key"] == alignment(x, keys[name]).item()
    old = directions(16, 4, seed=3)
    added = measure_embeddings(embeddings, keys, old)
    assert {name: added[name] for name in measures} == measures
    assert added["drift/cnn_query"] == drift(embeddings["cnn"], list(keys.values()), old).item()
    assert set(added) - set(measures) == {"drift/cnn_query", "drift/transformer_query"}
