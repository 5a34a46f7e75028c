"""Retrieval scores against loops and enumerations, the learning rate, the optimisers and the untrained features."""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import timm.optim
import torch
from torch import Tensor, nn

from cacl.config import OptimConfig
from cacl.errors import ConfigError
from cacl.evaluation.features import frame_difference, mean_frame
from cacl.evaluation.metrics import QUERIES_AT_ONCE, recall_at, recall_by_chance
from cacl.training.optim import create_optimizer, learning_rate

# ------------------------------------------------------------------------------------------------------- recall


def vectors(rng: np.random.Generator, rows: int, dim: int = 12) -> np.ndarray:
    """float32, of a few directions and any length: four entries are 1 or -1 times a power of two, so that cosines are
    exact in float32, and many are equal."""
    x = np.zeros((rows, dim), np.float32)
    for row in x:
        row[rng.choice(dim, 4, replace=False)] = rng.choice([-1, 1], 4)
    return x * np.exp2(rng.integers(-3, 4, (rows, 1))).astype(np.float32)


def names(rng: np.random.Generator, rows: int, classes: int = 4) -> list[str]:
    return [f"class {number}" for number in rng.integers(0, classes, rows)]


def recall_by_loop(
    queries: np.ndarray, gallery: np.ndarray, wanted: Sequence[str], known: Sequence[str], k: int
) -> float:
    """In float64. A gallery video is among the k nearest if fewer than k are nearer, or as near and earlier."""
    hits = 0
    for query, label in zip(queries.astype(np.float64), wanted, strict=True):
        length = math.sqrt(sum(query**2))
        cosines = [sum(query * video) / (length * math.sqrt(sum(video**2))) for video in gallery.astype(np.float64)]
        for j, cosine in enumerate(cosines):
            ahead = sum(other > cosine or (other == cosine and i < j) for i, other in enumerate(cosines))
            if known[j] == label and ahead < k:
                hits += 1
                break
    return hits / len(queries)


RANKS = [1, 2, 5, 10, 20, 50]


@pytest.mark.parametrize(("queries", "gallery"), [(1, 1), (1, 30), (40, 7), (30, 30)])
def test_recall_with_ties_against_a_loop(queries: int, gallery: int) -> None:
    """Ranks beyond the gallery count all of it."""
    rng = np.random.default_rng((queries, gallery))
    q, g = vectors(rng, queries), vectors(rng, gallery)
    wanted, known = names(rng, queries), names(rng, gallery)
    expected = [recall_by_loop(q, g, wanted, known, k) for k in RANKS]
    assert recall_at(q, g, wanted, known, RANKS) == expected
    assert recall_at(q, g, wanted, known, RANKS[::-1]) == expected[::-1]
    assert [recall_at(q, g, wanted, known, [k]) for k in RANKS] == [[value] for value in expected]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_recall_without_ties_against_a_loop(dtype: type) -> None:
    rng = np.random.default_rng(0)
    q, g = (rng.standard_normal((30, 5)).astype(dtype) for _ in range(2))
    wanted, known = names(rng, 30, 6), names(rng, 30, 6)
    expected = [recall_by_loop(q, g, wanted, known, k) for k in RANKS]
    assert 0 < expected[0] < expected[-1]
    assert recall_at(q, g, wanted, known, RANKS) == expected


def test_among_equally_near_ones_the_earlier_counts() -> None:
    query, gallery = np.ones((1, 4)), np.repeat([[1.0], [2.0], [0.5]], 4, axis=1)
    assert recall_at(query, gallery, ["b"], ["a", "b", "c"], [1, 2, 3]) == [0, 1, 1]
    assert recall_at(query, gallery, ["a"], ["a", "b", "c"], [1, 2, 3]) == [1, 1, 1]
    assert recall_at(query, gallery, ["d"], ["a", "b", "c"], [1, 2, 3]) == [0, 0, 0]


@pytest.mark.parametrize(
    ("queries", "gallery", "dim"), [(1, 15, 99), (1, 73, 72), (2, 11, 216), (3, 7, 217), (6, 73, 163), (7, 13, 487)]
)
def test_copies_of_a_video_are_equally_near(queries: int, gallery: int, dim: int) -> None:
    """The matrix product must not tell them apart, which it does where it rounds some columns in another way."""
    rng = np.random.default_rng((queries, gallery, dim))
    video = rng.standard_normal((1, dim))
    near, copies = video + 0.5 * rng.standard_normal((queries, dim)), video.repeat(gallery, 0)
    for place in range(gallery):
        known = ["other"] * place + ["right"] + ["other"] * (gallery - place - 1)
        recalls = recall_at(near, copies, ["right"] * queries, known, [max(1, place), place + 1])
        assert recalls == [float(place == 0), 1.0], f"the video at {place} does not have rank {place + 1}"


@pytest.mark.parametrize("rest", [-1, 0, 1])
def test_more_queries_than_fit_at_once(rest: int) -> None:
    """Each query finds itself, with a label of its own, and the next one finds a stranger."""
    count = 2 * QUERIES_AT_ONCE + rest
    angles = 2 * np.pi * np.arange(count) / count
    x, labels = np.column_stack([np.cos(angles), np.sin(angles)]), [str(number) for number in range(count)]
    assert recall_at(x, x, labels, labels, [1]) == [1.0]
    assert recall_at(x, x, labels, labels[1:] + labels[:1], [1, 3]) == [0.0, 1.0]
    assert recall_at(x, x, [*labels[:-1], "nobody"], labels, [1]) == [(count - 1) / count]


def test_videos_without_features_do_not_break_the_score() -> None:
    gallery = np.array([[0.0, 0.0], [1.0, 0.0]])
    assert recall_at(gallery, gallery, ["a", "b"], ["a", "b"], [1, 2]) == [1.0, 1.0]


# --------------------------------------------------------------------------------------------- recall by chance


@pytest.mark.parametrize("known", ["a", "b", "ab", "aab", "abbcc", "aaaaaa", "abcabc"])
def test_recall_by_chance_against_every_order(known: str) -> None:
    ranks, wanted = [1, 2, 3, 5, 9], ["a", "a", "b", "d"]
    orders = list(itertools.permutations(known))
    for k, recall in zip(ranks, recall_by_chance(wanted, list(known), ranks), strict=True):
        hits = sum(label in order[:k] for order in orders for label in wanted)
        assert recall == pytest.approx(hits / len(orders) / len(wanted), abs=1e-12)


def test_recall_by_chance_is_the_mean_of_recall_at() -> None:
    """With features that know nothing: over many draws, within four standard errors."""
    rng = np.random.default_rng(1)
    wanted, known, ranks, repeats = names(rng, 20, 9), names(rng, 40, 9), [1, 5, 20, 39], 400
    seen = np.array(
        [
            recall_at(rng.standard_normal((20, 6)), rng.standard_normal((40, 6)), wanted, known, ranks)
            for _ in range(repeats)
        ]
    )
    error = seen.std(0, ddof=1) / math.sqrt(repeats)
    assert (np.abs(seen.mean(0) - recall_by_chance(wanted, known, ranks)) <= 4 * error + 1e-12).all()


def test_recall_by_chance_of_large_galleries_is_binomial() -> None:
    """UCF101: 9537 training videos, of one class 94."""
    known = ["a"] * 94 + ["b"] * (9537 - 94)
    expected = [1 - math.comb(9537 - 94, k) / math.comb(9537, k) for k in RANKS]
    np.testing.assert_allclose(recall_by_chance(["a"], known, RANKS), expected, rtol=1e-10)


# ------------------------------------------------------------------------------------------------ learning rate


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (7, 0), (100, 10), (101, 1), (50, 50)])
def test_learning_rate_rises_to_its_peak_and_falls_to_nothing(steps: int, warmup: int) -> None:
    rates = [learning_rate(step, steps, warmup, 0.3) for step in range(steps)]
    expected = [
        0.3 * (s + 1) / warmup if s < warmup else 0.15 * (1 + math.cos(math.pi * (s - warmup) / (steps - warmup)))
        for s in range(steps)
    ]
    assert rates == pytest.approx(expected, rel=1e-12)
    assert max(rates) == pytest.approx(0.3, rel=1e-12)
    assert min(rates) > 0
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert np.allclose(np.diff(rates[:warmup]), 0.3 / max(1, warmup), rtol=1e-9)
    if warmup < steps:
        assert learning_rate(steps, steps, warmup, 0.3) == pytest.approx(0, abs=1e-12)
        middle = warmup + (steps - warmup) / 2
        assert learning_rate(int(middle), steps, warmup, 0.3) >= 0.15 - 1e-12


# --------------------------------------------------------------------------------------------------- optimisers


def regression() -> tuple[nn.Sequential, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 8, generator=generator)
    module = nn.Sequential(nn.Linear(8, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 3))
    for p in module.parameters():
        nn.init.normal_(p, generator=generator)
    return module, x, torch.randn(64, 3, generator=generator)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adamw", "lars", "lamb"])
def test_known_optimisers_learn(name: str) -> None:
    module, x, y = regression()
    optimizer = create_optimizer(module, OptimConfig(name=name, lr=0.01))
    losses = []
    for _ in range(30):
        loss = nn.functional.mse_loss(module(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(math.isfinite(loss) for loss in losses)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adamw"])
def test_first_two_steps_are_those_of_the_papers(name: str) -> None:
    """Nesterov's and Polyak's momentum with weight decay in the gradient; Adam with decoupled weight decay."""
    lr, decay, m = 0.02, 0.3, 0.8
    module, x, y = regression()
    optimizer = create_optimizer(module, OptimConfig(name=name, lr=lr, momentum=m, weight_decay=decay))
    weights = [p.detach().double().numpy().copy() for p in module.parameters()]
    first, second = ([np.zeros_like(w) for w in weights] for _ in range(2))
    for step in (1, 2):
        optimizer.zero_grad()
        nn.functional.mse_loss(module(x), y).backward()
        for i, p in enumerate(module.parameters()):
            assert p.grad is not None
            g, w = p.grad.double().numpy(), weights[i]
            if name == "adamw":
                first[i] = 0.9 * first[i] + 0.1 * g
                second[i] = 0.999 * second[i] + 0.001 * g**2
                scale = np.sqrt(second[i] / (1 - 0.999**step)) + 1e-8
                weights[i] = w * (1 - lr * decay) - lr * first[i] / (1 - 0.9**step) / scale
            else:
                g = g + decay * w  # biases and norms too, as published
                first[i] = g if step == 1 else m * first[i] + g
                weights[i] = w - lr * (g + m * first[i] if name == "sgd" else first[i])
        optimizer.step()
        for p, w in zip(module.parameters(), weights, strict=True):
            np.testing.assert_allclose(p.detach().numpy(), w, rtol=1e-5, atol=1e-6)


def test_optimiser_has_what_is_trained() -> None:
    module, _, _ = regression()
    module[0].requires_grad_(False)
    optimizer = create_optimizer(module, OptimConfig(lr=0.5, weight_decay=0.1))
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in module.parameters() if p.requires_grad}
    assert len(held) == 4
    assert all((group["lr"], group["weight_decay"]) == (0.5, 0.1) for group in optimizer.param_groups)


@pytest.mark.parametrize(
    ("name", "nearest"), [("sdg", "sgd"), ("adamww", "adamw"), ("larss", "lars"), ("lambb", "lamb")]
)
def test_unknown_optimisers_name_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=rf"^optim\.name = '{name}': no such optimiser; did you mean {nearest}\?$"):
        create_optimizer(nn.Linear(2, 2), OptimConfig(name=name))


def test_unknown_optimisers_like_no_other_name_them_all() -> None:
    with pytest.raises(ConfigError, match=r"'zzzzzz': no such optimiser; known are .*\badamw\b.*\bsgd\b"):
        create_optimizer(nn.Linear(2, 2), OptimConfig(name="zzzzzz"))


@pytest.mark.parametrize(("name", "library"), [("fusedlamb", "apex"), ("bnbadamw", "bitsandbytes")])
def test_optimisers_that_cannot_be_made_here_are_a_fault_of_the_configuration(name: str, library: str) -> None:
    """timm lists them everywhere, but they need a GPU and a library."""
    assert name in timm.optim.list_optimizers()
    if torch.cuda.is_available() and importlib.util.find_spec(library):
        pytest.skip(f"{name} can be made here")
    with pytest.raises(ConfigError, match=rf"^optim\.name = '{name}'"):
        create_optimizer(nn.Linear(2, 2), OptimConfig(name=name))


# --------------------------------------------------------------------------------------------- untrained features


def cells(pictures: np.ndarray) -> np.ndarray:
    """Means over a grid of 16 x 16 cells, whose edges are rounded outwards to whole pixels; flattened."""
    height, width = pictures.shape[-2:]
    out = np.empty((*pictures.shape[:-2], 16, 16))
    for i, j in np.ndindex(16, 16):
        rows = slice(i * height // 16, -(-(i + 1) * height // 16))
        columns = slice(j * width // 16, -(-(j + 1) * width // 16))
        out[..., i, j] = pictures[..., rows, columns].mean((-2, -1))
    return out.reshape(len(out), -1)


@pytest.mark.parametrize("size", [(16, 16), (64, 32), (50, 37), (8, 20)])
def test_untrained_features_against_numpy(size: tuple[int, int]) -> None:
    clips = torch.rand(3, 3, 5, *size, generator=torch.Generator().manual_seed(0))
    order = torch.arange(5).expand(3, 5)
    x = clips.double().numpy()
    mean, difference = mean_frame(clips, order), frame_difference(clips, order)
    assert mean.shape == difference.shape == (3, 3 * 16 * 16)
    np.testing.assert_allclose(mean.numpy(), cells(x.mean(2)), rtol=0, atol=1e-6)
    changes = np.mean([np.abs(x[:, :, t + 1] - x[:, :, t]) for t in range(4)], axis=0)
    np.testing.assert_allclose(difference.numpy(), cells(changes), rtol=0, atol=1e-6)


def test_untrained_features_see_what_they_are_named_for() -> None:
    still = torch.rand(2, 3, 1, 32, 32).expand(2, 3, 6, 32, 32)
    order = torch.arange(6).expand(2, 6)
    assert not frame_difference(still, order).any()
    torch.testing.assert_close(mean_frame(still, order), mean_frame(still[:, :, :2], order[:, :2]))
