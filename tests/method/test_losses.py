"""The losses against their formulas in float64, and the classes of frame orders against the facts of the method."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from cacl.kernels.edit_distance import edit_distance_to_identity
from cacl.loaders.sampling.rng import RandomStream
from cacl.loaders.sampling.sampler import draw_order
from cacl.method.losses import contrast_loss, encoders_of, order_classes, order_loss

METHOD = {
    "official": (("f_q", "f_k", "f_q"), ("f_q", "t_q", "f_q"), ("f_q", "t_k", "f_q"), ("t_q", "t_k", "f_q")),
    "within": (("f_q", "f_k", "f_q"), ("t_q", "t_k", "t_q")),
    "cross": (("f_q", "f_k", "f_q"), ("f_q", "t_k", "f_q"), ("t_q", "f_k", "t_q"), ("t_q", "t_k", "t_q")),
    "cnn": (("f_q", "f_k", "f_q"),),
    "transformer": (("t_q", "t_k", "t_q"),),
}
"""Positive pairs, and whose similarities to the queue are their negatives: from the description of the method."""

NAMES = ("f_q", "f_k", "t_q", "t_k")
SIZES = [(1, 1, 3), (5, 1, 128), (1, 7, 128), (5, 7, 3), (1, 513, 3), (5, 513, 128)]  # B, K, D
TEMPERATURES = [0.01, 0.07, 1.0]
SMALL_LOSS, SMALL_GRADIENT = 1e-6, 5e-6
"""What we may get wrong beyond the errors of plain torch in float32, times T: logits reach 1/T, where float32 rounds by
6e-8/T, and gradients are keys times softmax weights over T. At T = 0.01 the second is the 5e-4 stated for kernels."""
KINDS = {"queue": ("queue",), "batch": ("batch",), "both": ("queue", "batch")}
"""Of negatives, by what they are called together."""


def drawn(size: tuple[int, int, int]) -> tuple[dict[str, Tensor], Tensor]:
    """Unit embeddings, the queries with a gradient, and a queue. The embeddings of a video are near each other, for
    some videos less so; every third key of the queue is near a video too. So positives win and lose."""
    batch, keys, dim = size
    rng = np.random.default_rng(size)
    videos = rng.standard_normal((batch, dim))
    spread = np.linspace(0.3, 1.5, batch)[:, None]
    embeddings = {name: unit(videos + spread * rng.standard_normal((batch, dim))) for name in NAMES}
    for name, x in embeddings.items():
        x.requires_grad_(name.endswith("q"))
    queue = rng.standard_normal((keys, dim))
    queue[::3] += 1.5 * videos[rng.integers(0, batch, len(queue[::3]))]
    return embeddings, unit(queue)


def unit(x: np.ndarray) -> Tensor:
    return torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True)).float()


def in_numpy(
    embeddings: Mapping[str, Tensor], queue: Tensor, temperature: float, pairs: str, negatives: str = "queue"
) -> tuple[float, dict[str, float]]:
    """float64, as the formula is written."""
    e = {name: x.detach().numpy().astype(np.float64) for name, x in embeddings.items()}
    keys = queue.numpy().astype(np.float64)
    losses: dict[str, list[float]] = {kind: [] for kind in KINDS[negatives]}
    metrics = {}
    for first, second, anchor in METHOD[pairs]:
        batch = len(e["f_q"])
        similarity = np.array([a @ b for a, b in zip(e[first], e[second], strict=True)])
        metrics[f"similarity/{first}.{second}"] = similarity.mean()
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
            metrics[f"top1/{first}.{second}"] = np.mean(similarity >= (e[anchor] @ keys.T).max(1))
        if "batch" in losses:
            nearest = np.where(np.eye(batch, dtype=bool), -np.inf, e[first] @ e[second].T).max(1)
            metrics[f"batch_top1/{first}.{second}"] = np.mean(similarity >= nearest)
    if len(losses) > 1:
        metrics |= {f"contrast/{kind}": float(np.mean(values)) for kind, values in losses.items()}
    return float(np.mean([np.mean(values) for values in losses.values()])), metrics


def in_torch(
    embeddings: Mapping[str, Tensor],
    queue: Tensor,
    temperature: float,
    pairs: str,
    dtype: torch.dtype,
    negatives: str = "queue",
) -> tuple[Tensor, dict[str, Tensor]]:
    """The plain way: logits of the positive and all negatives, cross-entropy with class 0; in a batch, all similarities
    and cross-entropy with the place, of rows and columns. And the gradients."""
    e = {name: x.detach().to(dtype).requires_grad_(x.requires_grad) for name, x in embeddings.items()}
    losses = []
    for first, second, anchor in METHOD[pairs]:
        if "queue" in KINDS[negatives]:
            positive = (e[first] * e[second]).sum(1, keepdim=True)
            logits = torch.cat([positive, e[anchor] @ queue.to(dtype).T], 1) / temperature
            losses.append(torch.nn.functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long)))
        if "batch" in KINDS[negatives]:
            logits = e[first] @ e[second].T / temperature
            own = torch.arange(len(logits))
            sides = [torch.nn.functional.cross_entropy(x, own) for x in (logits, logits.T)]
            losses.append(torch.stack(sides).mean())
    loss = torch.stack(losses).mean()
    loss.backward()
    return loss.detach(), {name: x.grad for name, x in e.items() if x.grad is not None}


# -------------------------------------------------------------------------------------------------- contrast


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("pairs", METHOD)
def test_contrast_is_the_formula(pairs: str, size: tuple[int, int, int], temperature: float) -> None:
    embeddings, queue = drawn(size)
    expected, expected_metrics = in_numpy(embeddings, queue, temperature, pairs)
    plain, _ = in_torch(embeddings, queue, temperature, pairs, torch.float32)
    allowed = abs(plain.item() - expected) + SMALL_LOSS / temperature
    loss, metrics = contrast_loss(embeddings, queue, temperature, pairs)
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert abs(loss.item() - expected) <= allowed
    assert_metrics(metrics, expected_metrics, allowed)


def assert_metrics(metrics: Mapping[str, Tensor], expected: Mapping[str, float], allowed: float) -> None:
    """allowed: error of losses; other metrics know nothing of T."""
    assert metrics.keys() == expected.keys()
    for name, value in metrics.items():
        assert not value.requires_grad
        error = allowed if name.startswith("contrast/") else 1e-6
        assert value.item() == pytest.approx(expected[name], rel=0, abs=error), name


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("pairs", METHOD)
def test_contrast_has_the_gradients_of_the_formula(pairs: str, size: tuple[int, int, int], temperature: float) -> None:
    """For every query that takes part, and for no other."""
    embeddings, queue = drawn(size)
    value, expected = in_torch(embeddings, queue, temperature, pairs, torch.float64)
    assert value.item() == pytest.approx(in_numpy(embeddings, queue, temperature, pairs)[0], rel=1e-12, abs=1e-12)
    _, plain = in_torch(embeddings, queue, temperature, pairs, torch.float32)
    contrast_loss(embeddings, queue, temperature, pairs)[0].backward()

    gradients = {name: x.grad for name, x in embeddings.items() if x.grad is not None}
    took_part = {name for pair in METHOD[pairs] for name in pair if name.endswith("q")}
    assert gradients.keys() == took_part == expected.keys()
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        allowed = (plain[name] - expected[name]).abs().max() + SMALL_GRADIENT / temperature
        assert (gradient - expected[name]).abs().max() <= allowed, name


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("batch", [1, 2, 5, 17])
@pytest.mark.parametrize("negatives", ["batch", "both"])
@pytest.mark.parametrize("pairs", METHOD)
def test_contrast_within_the_batch_is_the_formula(pairs: str, negatives: str, batch: int, temperature: float) -> None:
    """A video that is alone has nothing to be told apart from: its loss is zero."""
    embeddings, queue = drawn((batch, 65, 33))
    expected, expected_metrics = in_numpy(embeddings, queue, temperature, pairs, negatives)
    plain, _ = in_torch(embeddings, queue, temperature, pairs, torch.float32, negatives)
    allowed = abs(plain.item() - expected) + SMALL_LOSS / temperature
    loss, metrics = contrast_loss(embeddings, queue, temperature, pairs, negatives)
    assert (loss.shape, loss.dtype) == ((), torch.float32)
    assert abs(loss.item() - expected) <= allowed
    assert_metrics(metrics, expected_metrics, allowed)
    if batch == 1:
        assert (metrics["contrast/batch"] if negatives == "both" else loss) == 0


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("batch", [1, 2, 5, 17])
@pytest.mark.parametrize("negatives", ["batch", "both"])
@pytest.mark.parametrize("pairs", METHOD)
def test_contrast_within_the_batch_has_the_gradients_of_the_formula(
    pairs: str, negatives: str, batch: int, temperature: float
) -> None:
    embeddings, queue = drawn((batch, 65, 33))
    value, expected = in_torch(embeddings, queue, temperature, pairs, torch.float64, negatives)
    written = in_numpy(embeddings, queue, temperature, pairs, negatives)[0]
    assert value.item() == pytest.approx(written, rel=1e-12, abs=1e-12)
    _, plain = in_torch(embeddings, queue, temperature, pairs, torch.float32, negatives)
    contrast_loss(embeddings, queue, temperature, pairs, negatives)[0].backward()

    gradients = {name: x.grad for name, x in embeddings.items() if x.grad is not None}
    took_part = {name for pair in METHOD[pairs] for name in pair if name.endswith("q")}
    assert gradients.keys() == took_part == expected.keys()
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        allowed = (plain[name] - expected[name]).abs().max() + SMALL_GRADIENT / temperature
        assert (gradient - expected[name]).abs().max() <= allowed, name


@pytest.mark.parametrize("pairs", METHOD)
def test_both_is_the_mean_of_the_two(pairs: str) -> None:
    embeddings, queue = drawn((17, 65, 33))
    leaves = [x for x in embeddings.values() if x.requires_grad]
    results = {}
    for negatives in KINDS:
        loss, metrics = contrast_loss(embeddings, queue, 0.07, pairs, negatives)
        results[negatives] = loss, metrics, torch.autograd.grad(loss, leaves, materialize_grads=True)
    both, metrics, gradients = results["both"]
    for kind in ("queue", "batch"):
        loss, own, _ = results[kind]
        assert metrics[f"contrast/{kind}"] == loss
        for name, value in own.items():
            torch.testing.assert_close(metrics[name], value, rtol=0, atol=1e-6)
    assert torch.equal(both, (results["queue"][0] + results["batch"][0]) / 2)
    for both_sides, of_queue, of_batch in zip(gradients, results["queue"][2], results["batch"][2], strict=True):
        torch.testing.assert_close(both_sides, (of_queue + of_batch) / 2, rtol=1e-5, atol=1e-6)


def test_the_queue_is_what_is_meant_if_nothing_is_said() -> None:
    """And then nothing is gathered."""
    embeddings, queue = drawn((17, 65, 33))
    leaves = [x for x in embeddings.values() if x.requires_grad]
    results = []
    for options in ({}, {"negatives": "queue", "gather": None, "rank_offset": 5}):
        loss, metrics = contrast_loss(embeddings, queue, 0.07, "cross", **options)
        results.append([loss, *metrics.values(), *torch.autograd.grad(loss, leaves)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("negatives", KINDS)
@pytest.mark.parametrize("pairs", METHOD)
def test_gradients_of_the_contrast_are_its_finite_differences(pairs: str, negatives: str) -> None:
    """Of the formula in numpy, which knows nothing of autograd."""
    embeddings, queue = drawn((3, 7, 5))
    contrast_loss(embeddings, queue, 0.5, pairs, negatives)[0].backward()
    for name, x in embeddings.items():
        if x.grad is None:
            continue
        numeric = np.zeros(x.shape)
        for rank_offset in np.ndindex(*x.shape):
            sides = []
            for step in (-1e-5, 1e-5):
                moved = x.detach().double().clone()
                moved[rank_offset] += step
                sides.append(in_numpy({**embeddings, name: moved}, queue, 0.5, pairs, negatives)[0])
            numeric[rank_offset] = (sides[1] - sides[0]) / 2e-5
        np.testing.assert_allclose(x.grad.numpy(), numeric, rtol=0, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.001, 0.01])
@pytest.mark.parametrize("pairs", METHOD)
def test_contrast_of_the_most_unlike_does_not_overflow(pairs: str, temperature: float) -> None:
    """e^(1/T) is beyond float32, and at T = 0.001 beyond float64: so the formula is worked out by hand."""
    axis = torch.eye(1, 8).expand(3, 8)
    queries = {"f_q": axis.clone().requires_grad_(), "t_q": axis.clone().requires_grad_()}
    loss, metrics = contrast_loss({**queries, "f_k": -axis, "t_k": -axis}, axis.repeat(7, 1), temperature, pairs)
    loss.backward()
    similarities = [1 if pair[:2] == ("f_q", "t_q") else -1 for pair in METHOD[pairs]]
    expected = [math.log(22) if p == 1 else 2 / temperature + math.log(21) for p in similarities]
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-6)
    assert [v.item() for name, v in metrics.items() if name.startswith("top1")] == [p == 1 for p in similarities]

    for name, x in queries.items():
        if x.grad is None:
            continue
        # the positive, where it is opposite, has weight 0, and each of 21 keys 1/21: what is left is key - positive
        gradient = torch.zeros(3, 8)
        for (first, second, anchor), p in zip(METHOD[pairs], similarities, strict=True):
            weight = 1 if p == -1 else 21 / 22
            gradient += weight * axis * (anchor == name)
            gradient -= weight * p * axis * ((first == name) + (second == name))
        gradient /= len(METHOD[pairs]) * 3 * temperature
        # a logit of 1/T is rounded by 6e-8/T, and with it the logarithm of a weight
        torch.testing.assert_close(x.grad, gradient, rtol=1e-7 / temperature, atol=1e-7 / temperature)


@pytest.mark.parametrize("temperature", [0.001, 0.01])
@pytest.mark.parametrize("pairs", METHOD)
def test_contrast_of_the_most_alike_vanishes(pairs: str, temperature: float) -> None:
    axis = torch.eye(1, 8).expand(3, 8)
    queries = {"f_q": axis.clone().requires_grad_(), "t_q": axis.clone().requires_grad_()}
    loss, metrics = contrast_loss({**queries, "f_k": axis, "t_k": axis}, -axis, temperature, pairs)
    loss.backward()
    assert loss.item() == 0
    assert all(value == 1 for value in metrics.values())
    assert all(x.grad is None or not x.grad.any() for x in queries.values())


def test_a_positive_as_near_as_the_nearest_key_is_counted_first() -> None:
    axes = torch.eye(4)
    embeddings = {"f_q": axes[:3], "f_k": axes[:3]}
    _, metrics = contrast_loss(embeddings, axes[2:], 0.07, "cnn")  # axis 2 is in the queue
    assert metrics["top1/f_q.f_k"] == 1
    _, metrics = contrast_loss({**embeddings, "f_k": axes[[0, 1, 3]]}, axes[2:], 0.07, "cnn")
    assert metrics["top1/f_q.f_k"].item() == pytest.approx(2 / 3)
    assert metrics["similarity/f_q.f_k"].item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("negatives", KINDS)
@pytest.mark.parametrize("keys", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_embeddings_are_contrasted_in_float32(
    dtype: torch.dtype, keys: torch.dtype, negatives: str
) -> None:
    """As soon as they have the precision of the queue."""
    embeddings, queue = drawn((5, 513, 128))
    half = {name: x.detach().to(dtype).requires_grad_(x.requires_grad) for name, x in embeddings.items()}
    loss, metrics = contrast_loss(half, queue.to(keys), 0.07, "official", negatives)
    loss.backward()
    single = {name: x.detach().to(keys).float().requires_grad_(x.requires_grad) for name, x in half.items()}
    queue = queue.to(keys).float()
    expected, expected_metrics = in_numpy(single, queue, 0.07, "official", negatives)
    assert loss.dtype == torch.float32
    assert abs(loss.item() - expected) <= 2 * SMALL_LOSS / 0.07
    assert_metrics(metrics, expected_metrics, 2 * SMALL_LOSS / 0.07)
    _, gradients = in_torch(single, queue, 0.07, "official", torch.float64, negatives)
    for name, gradient in gradients.items():
        found = half[name].grad
        assert found is not None
        assert found.dtype == dtype
        # Four pairs add up, each rounded to the coarser of the two types by half a place, and their sum once more.
        rounding = 2.5 * max(torch.finfo(x).eps for x in (dtype, keys))
        assert (found - gradient).abs().max() <= rounding * gradient.abs().max() + SMALL_GRADIENT / 0.07, name


def test_a_queue_with_a_gradient_is_refused() -> None:
    embeddings, queue = drawn((5, 7, 3))
    with pytest.raises(ValueError, match="constants"):
        contrast_loss(embeddings, queue.requires_grad_(), 0.07, "cross")


@pytest.mark.parametrize(
    ("pairs", "order_weight", "expected"),
    [
        ("cross", 0.0, (True, True)),
        ("official", 0.0, (True, True)),
        ("within", 0.0, (True, True)),
        ("cnn", 0.0, (True, False)),
        ("cnn", 1.0, (True, False)),
        ("transformer", 0.0, (False, True)),
        ("none", 0.5, (True, False)),
    ],
)
def test_only_the_encoders_that_the_losses_need(pairs: str, order_weight: float, expected: tuple[bool, bool]) -> None:
    assert encoders_of(pairs, order_weight) == expected


# ----------------------------------------------------------------------------------------------------- order


@pytest.fixture(scope="module")
def orders() -> Tensor:
    """uint8 [20000, 16], as training draws them."""
    return torch.tensor([draw_order(RandomStream(0, 1, 0, video), 16) for video in range(20_000)], dtype=torch.uint8)


def test_every_class_is_a_distance_and_one_never_occurs(orders: Tensor) -> None:
    distances, classes = edit_distance_to_identity(orders), order_classes(orders)
    assert classes.dtype == torch.int64
    assert set(distances.tolist()) == {0, *range(2, 17)}
    assert set(classes.tolist()) == set(range(16))  # T classes
    identity = (orders == torch.arange(16)).all(1)
    assert torch.equal(classes == 0, identity)
    assert torch.equal(classes[~identity], distances[~identity].long() - 1)


def test_frequencies_of_the_distances_are_those_of_the_method(orders: Tensor) -> None:
    """The published shares were simulated with 40000 draws and rounded to 0.1 %."""
    seen = torch.bincount(edit_distance_to_identity(orders).long(), minlength=17) / len(orders)
    shares = {0: (0.109, 0.109), 2: (0.086, 0.086), 15: (0.032, 0.032), 16: (0.007, 0.007)}
    shares |= dict.fromkeys(range(3, 15), (0.057, 0.070))
    for distance, (low, high) in shares.items():
        error = math.sqrt(high * (1 - high) * (1 / len(orders) + 1 / 40_000))
        assert low - 0.0005 - 4 * error <= seen[distance] <= high + 0.0005 + 4 * error, distance
    # n of 16 positions are permuted, and one of n! permutations is the identity
    unmoved = sum(1 / math.factorial(n) for n in range(1, 17)) / 16
    assert abs(seen[0] - unmoved) <= 4 * math.sqrt(unmoved * (1 - unmoved) / len(orders))


@pytest.mark.parametrize(("batch", "scale"), [(1, 1.0), (5, 1.0), (64, 100.0)])
def test_order_loss_is_the_cross_entropy(orders: Tensor, batch: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(batch)
    logits = (scale * torch.randn(batch, 16, generator=generator)).requires_grad_()
    loss, metrics = order_loss(logits, orders[:batch])
    loss.backward()

    x, classes = logits.detach().numpy().astype(np.float64), order_classes(orders[:batch]).numpy()
    shares = np.exp(x - x.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    expected = -np.mean([x[i, c] - x[i].max() - np.log(np.exp(x[i] - x[i].max()).sum()) for i, c in enumerate(classes)])
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), (shares - np.eye(16)[classes]) / batch, rtol=1e-5, atol=1e-7)
    accuracy = metrics["order_accuracy"]
    assert not accuracy.requires_grad
    assert accuracy.item() == pytest.approx(np.mean(x.argmax(1) == classes))


def test_order_accuracy_of_known_answers(orders: Tensor) -> None:
    classes = order_classes(orders[:10])
    logits = torch.nn.functional.one_hot(classes, 16).float()
    assert order_loss(logits, orders[:10])[1]["order_accuracy"] == 1
    logits[:3] = logits[:3].roll(1, dims=1)
    assert order_loss(logits, orders[:10])[1]["order_accuracy"].item() == pytest.approx(0.7)
