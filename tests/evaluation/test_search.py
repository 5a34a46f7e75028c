"""The nearest rows of a gallery against a sort of all similarities, in any blocks, and with many that are equal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cacl.errors import DataError
from cacl.evaluation.search import BLOCK_SIZES, nearest
from tests.gpu import cuda_device

ROWS = BLOCK_SIZES["cpu"][1]
"""The number of rows of the gallery in a block."""


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    return cuda_device() if request.param == "cuda" else torch.device("cpu")


def sorted_by_cosine(queries: np.ndarray, gallery: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorts all similarities, computed in float64 and rounded to float32; the earlier of equals comes first."""
    q, g = (x.astype(np.float64) for x in (queries, gallery))
    q, g = (x / np.maximum(np.sqrt((x**2).sum(1, keepdims=True)), 1e-12) for x in (q, g))
    similarity = np.stack([(g * query).sum(1) for query in q]).astype(np.float32)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(similarity, order, 1)


def few_directions(rng: np.random.Generator, rows: int, dim: int = 12) -> np.ndarray:
    """Rows whose cosines are exact in float32, and many of which are equal."""
    x = np.zeros((rows, dim), np.float32)
    for row in x:
        row[rng.choice(dim, 4, replace=False)] = rng.choice([-1, 1], 4)
    return x * np.exp2(rng.integers(-3, 4, (rows, 1))).astype(np.float32)


def nearly_constant(rng: np.random.Generator, rows: int, dim: int = 12) -> np.ndarray:
    """Rows as a collapsed encoder gives them, whose cosines float32 cannot tell apart."""
    return (1 + 1e-6 * rng.standard_normal((rows, dim))).astype(np.float32)


def normal(rng: np.random.Generator, rows: int, dim: int = 12) -> np.ndarray:
    return rng.standard_normal((rows, dim)).astype(np.float32)


@pytest.mark.parametrize("make", [normal, few_directions, nearly_constant])
@pytest.mark.parametrize(
    ("queries", "gallery", "k"),
    [(1, 1, 1), (3, 1, 7), (40, 7, 50), (70, 300, 1), (33, ROWS + 1, 20), (5, 3 * ROWS - 1, 2000)],
)
def test_the_nearest_are_the_first_of_all_sorted(
    device: torch.device, make: Callable[[np.random.Generator, int], np.ndarray], queries: int, gallery: int, k: int
) -> None:
    """In blocks of other sizes, and for a few queries at a time, too."""
    rng = np.random.default_rng((queries, gallery))
    q, g = make(rng, queries), make(rng, gallery)
    positions, similarities = sorted_by_cosine(q, g, k)
    for block_sizes in (None, (7, 100), (12, 3 * ROWS)):
        found = nearest(q, g, k, device, block_sizes=block_sizes)
        assert found[0].tolist() == positions.tolist()
        assert found[1].dtype == np.float32
        assert found[1].tolist() == similarities.tolist()


def test_the_nearest_may_stand_in_any_block(device: torch.device) -> None:
    """Queries find the copies of themselves, which are scattered, in order, and before all else."""
    rng = np.random.default_rng(0)
    gallery, queries = normal(rng, 5 * ROWS, 32), normal(rng, 20, 32)
    places = rng.permutation(len(gallery))[:60].reshape(20, 3)
    for query, own in zip(queries, places, strict=True):
        gallery[own] = query * [[1], [4], [0.5]]
    found, similarities = nearest(queries, gallery, 5, device, block_sizes=(8, ROWS))
    assert found[:, :3].tolist() == np.sort(places, 1).tolist()
    assert (similarities[:, :3] == 1).all()
    assert (similarities[:, 3] < 1).all()


def test_few_pairs_of_long_features(device: torch.device) -> None:
    """So few that only they are compared in float64, some at a time."""
    rng = np.random.default_rng(0)
    queries, gallery = normal(rng, 40, 3000), normal(rng, 2000, 3000)
    gallery[1500:] = 2 * gallery[:500]
    found = nearest(queries, gallery, 5, device)
    positions, similarities = sorted_by_cosine(queries, gallery, 5)
    assert found[0].tolist() == positions.tolist()
    assert found[1].tolist() == similarities.tolist()


def test_rows_that_only_float64_tells_apart() -> None:
    """Single precision has both orders of these, depending on how it sums 9216 products."""
    rng = np.random.default_rng(0)
    query = normal(rng, 1, 9216)
    gallery = (query + 1e-3 * normal(rng, 3000, 9216)).astype(np.float32)
    positions, _ = sorted_by_cosine(query, gallery, 50)
    assert nearest(query, gallery, 50)[0].tolist() == positions.tolist()
    lengths = np.linalg.norm(gallery, axis=1, keepdims=True).astype(np.float32)
    assert np.argsort(-(query @ (gallery / lengths).T))[:, :50].tolist() != positions.tolist()


@pytest.mark.parametrize(
    ("dtype", "scale"), [(np.float16, 1), (np.float32, 1e-20), (np.float64, 1e-9), (np.float64, 1e60)]
)
def test_features_of_other_types_and_sizes(dtype: type, scale: float) -> None:
    rng = np.random.default_rng(0)
    queries, gallery = ((normal(rng, rows) * np.float64(scale)).astype(dtype) for rows in (9, 3000))
    found = nearest(queries, gallery, 10, block_sizes=(4, ROWS))
    assert found[0].tolist() == sorted_by_cosine(queries, gallery, 10)[0].tolist()


def test_a_memory_mapped_gallery(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    gallery, queries = normal(rng, 3000), normal(rng, 9)
    np.save(tmp_path / "gallery.npy", gallery)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    found = nearest(queries, mapped, 10, block_sizes=(4, ROWS))
    assert found[0].tolist() == sorted_by_cosine(queries, gallery, 10)[0].tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_feature_that_is_not_finite(value: float) -> None:
    good, bad = np.ones((2, 3), np.float32), np.array([[1, 2, 3], [1, value, 1]], np.float32)
    for queries, gallery in ((good, bad), (bad, good)):
        with pytest.raises(DataError, match="a feature is not finite"):
            nearest(queries, gallery, 1)


def test_rows_of_zeros_are_like_nothing() -> None:
    positions, similarities = nearest(np.array([[0.0, 0], [1, 1]]), np.array([[-1.0, 0], [0, 0], [1, 0]]), 3)
    assert positions.tolist() == [[0, 1, 2], [2, 1, 0]]
    assert similarities[0].tolist() == [0, 0, 0]
    assert torch.tensor(similarities[1]).tolist() == pytest.approx([0.5**0.5, 0, -(0.5**0.5)])
