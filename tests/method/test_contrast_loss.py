"""The contrastive loss against its formula in float64, with its gradients and its metrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cacl.method.losses import contrast_loss, reversed_contrast_loss
from cacl.method.pairs import CNN, CROSS, OFFICIAL
from cacl.registry import PAIRS
from tests.method.contrast_truth import (
    F_K,
    F_Q,
    KINDS_OF_NEGATIVES,
    PUBLISHED_PAIRS,
    SIZES,
    SMALL_GRADIENT,
    SMALL_LOSS,
    T_K,
    T_Q,
    TEMPERATURES,
    assert_metrics,
    contrast_in_numpy,
    contrast_in_torch,
    random_embeddings,
    reversed_contrast_in_torch,
    unit_rows,
)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("pairs", PUBLISHED_PAIRS)
def test_contrast_is_the_formula(pairs: str, size: tuple[int, int, int], temperature: float) -> None:
    embeddings, queue = random_embeddings(size)
    expected, expected_metrics = contrast_in_numpy(embeddings, queue, temperature, pairs)
    plain, _ = contrast_in_torch(embeddings, queue, temperature, pairs, torch.float32)
    allowed = abs(plain.item() - expected) + SMALL_LOSS / temperature
    loss, metrics = contrast_loss(embeddings, queue, temperature, PAIRS.load(pairs))
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert abs(loss.item() - expected) <= allowed
    assert_metrics(metrics, expected_metrics, allowed)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("pairs", PUBLISHED_PAIRS)
def test_contrast_has_the_gradients_of_the_formula(pairs: str, size: tuple[int, int, int], temperature: float) -> None:
    """Every query that takes part has the gradient of the formula, and no other one has any."""
    embeddings, queue = random_embeddings(size)
    value, expected = contrast_in_torch(embeddings, queue, temperature, pairs, torch.float64)
    written = contrast_in_numpy(embeddings, queue, temperature, pairs)[0]
    assert value.item() == pytest.approx(written, rel=1e-12, abs=1e-12)
    _, plain = contrast_in_torch(embeddings, queue, temperature, pairs, torch.float32)
    contrast_loss(embeddings, queue, temperature, PAIRS.load(pairs))[0].backward()

    gradients = {name: x.grad for name, x in embeddings.items() if x.grad is not None}
    took_part = {name for pair in PUBLISHED_PAIRS[pairs] for name in pair if name.side == "query"}
    assert gradients.keys() == took_part == expected.keys()
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        allowed = (plain[name] - expected[name]).abs().max() + SMALL_GRADIENT / temperature
        assert (gradient - expected[name]).abs().max() <= allowed, name


@pytest.mark.parametrize("negatives", KINDS_OF_NEGATIVES)
@pytest.mark.parametrize("weight", [0.3, 4.0])
@pytest.mark.parametrize("pairs", PUBLISHED_PAIRS)
def test_pairs_across_the_architectures_have_their_weight(pairs: str, weight: float, negatives: str) -> None:
    embeddings, queue = random_embeddings((17, 65, 33))
    expected, expected_metrics = contrast_in_numpy(embeddings, queue, 0.1, pairs, negatives, weight)
    loss, metrics = contrast_loss(embeddings, queue, 0.1, PAIRS.load(pairs), negatives, cross_weight=weight)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert_metrics(metrics, expected_metrics, 1e-5 * expected)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("weight", [1.0, 0.3])
@pytest.mark.parametrize("pairs", PUBLISHED_PAIRS)
def test_the_contrast_with_backward_clips_is_the_formula(pairs: str, weight: float, temperature: float) -> None:
    """In value, metrics and gradients. Backward clips lie near the others, for some videos nearer than the positive."""
    embeddings, _ = random_embeddings((17, 1, 33))
    noise = np.random.default_rng(5).standard_normal((2, 17, 33))
    reversed_keys = {
        key.encoder: unit_rows(embeddings[key].numpy() + 0.2 * x) for key, x in zip((F_K, T_K), noise, strict=True)
    }
    expected, expected_metrics = reversed_contrast_in_torch(embeddings, reversed_keys, temperature, pairs, weight)
    assert any(0 < value < 1 for value in expected_metrics.values())
    queries = [embeddings[name] for name in (F_Q, T_Q)]
    truth = torch.autograd.grad(expected, queries, allow_unused=True)
    loss, metrics = reversed_contrast_loss(
        embeddings, reversed_keys, temperature, PAIRS.load(pairs), cross_weight=weight
    )
    assert (loss.shape, loss.dtype) == ((), torch.float32)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert_metrics(metrics, expected_metrics, 1e-5 * expected.item())
    for gradient, right in zip(torch.autograd.grad(loss, queries, allow_unused=True), truth, strict=True):
        assert (gradient is None) == (right is None)
        if right is not None:
            assert (gradient - right).abs().max() <= SMALL_GRADIENT / temperature


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("batch", [1, 2, 5, 17])
@pytest.mark.parametrize("negatives", ["batch", "both"])
@pytest.mark.parametrize("pairs", PUBLISHED_PAIRS)
def test_contrast_within_the_batch_is_the_formula(pairs: str, negatives: str, batch: int, temperature: float) -> None:
    """A video that is alone in its batch has nothing to be told apart from, so its loss is zero."""
    embeddings, queue = random_embeddings((batch, 65, 33))
    expected, expected_metrics = contrast_in_numpy(embeddings, queue, temperature, pairs, negatives)
    plain, _ = contrast_in_torch(embeddings, queue, temperature, pairs, torch.float32, negatives)
    allowed = abs(plain.item() - expected) + SMALL_LOSS / temperature
    loss, metrics = contrast_loss(embeddings, queue, temperature, PAIRS.load(pairs), negatives)
    assert (loss.shape, loss.dtype) == ((), torch.float32)
    assert abs(loss.item() - expected) <= allowed
    assert_metrics(metrics, expected_metrics, allowed)
    if batch == 1:
        assert (metrics["contrast/batch"] if negatives == "both" else loss) == 0


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("batch", [1, 2, 5, 17])
@pytest.mark.parametrize("negatives", ["batch", "both"])
@pytest.mark.parametrize("pairs", PUBLISHED_PAIRS)
def test_contrast_within_the_batch_has_the_gradients_of_the_formula(
    pairs: str, negatives: str, batch: int, temperature: float
) -> None:
    embeddings, queue = random_embeddings((batch, 65, 33))
    value, expected = contrast_in_torch(embeddings, queue, temperature, pairs, torch.float64, negatives)
    written = contrast_in_numpy(embeddings, queue, temperature, pairs, negatives)[0]
    assert value.item() == pytest.approx(written, rel=1e-12, abs=1e-12)
    _, plain = contrast_in_torch(embeddings, queue, temperature, pairs, torch.float32, negatives)
    contrast_loss(embeddings, queue, temperature, PAIRS.load(pairs), negatives)[0].backward()

    gradients = {name: x.grad for name, x in embeddings.items() if x.grad is not None}
    took_part = {name for pair in PUBLISHED_PAIRS[pairs] for name in pair if name.side == "query"}
    assert gradients.keys() == took_part == expected.keys()
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        allowed = (plain[name] - expected[name]).abs().max() + SMALL_GRADIENT / temperature
        assert (gradient - expected[name]).abs().max() <= allowed, name


@pytest.mark.parametrize("pairs", PUBLISHED_PAIRS)
def test_both_is_the_mean_of_the_two(pairs: str) -> None:
    embeddings, queue = random_embeddings((17, 65, 33))
    leaves = [x for x in embeddings.values() if x.requires_grad]
    results = {}
    for negatives in KINDS_OF_NEGATIVES:
        loss, metrics = contrast_loss(embeddings, queue, 0.07, PAIRS.load(pairs), negatives)
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


def test_negatives_come_from_the_queue_by_default() -> None:
    """In that case nothing is gathered."""
    embeddings, queue = random_embeddings((17, 65, 33))
    leaves = [x for x in embeddings.values() if x.requires_grad]
    results = []
    for options in ({}, {"negatives": "queue", "gather": None, "rank_offset": 5}):
        loss, metrics = contrast_loss(embeddings, queue, 0.07, CROSS, **options)
        results.append([loss, *metrics.values(), *torch.autograd.grad(loss, leaves)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("negatives", KINDS_OF_NEGATIVES)
@pytest.mark.parametrize("pairs", PUBLISHED_PAIRS)
def test_gradients_of_the_contrast_are_its_finite_differences(pairs: str, negatives: str) -> None:
    """The differences are those of the formula in numpy, which knows nothing of autograd."""
    embeddings, queue = random_embeddings((3, 7, 5))
    contrast_loss(embeddings, queue, 0.5, PAIRS.load(pairs), negatives)[0].backward()
    for name, x in embeddings.items():
        if x.grad is None:
            continue
        numeric = np.zeros(x.shape)
        for entry in np.ndindex(*x.shape):
            sides = []
            for step in (-1e-5, 1e-5):
                moved = x.detach().double().clone()
                moved[entry] += step
                sides.append(contrast_in_numpy({**embeddings, name: moved}, queue, 0.5, pairs, negatives)[0])
            numeric[entry] = (sides[1] - sides[0]) / 2e-5
        np.testing.assert_allclose(x.grad.numpy(), numeric, rtol=0, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.001, 0.01])
@pytest.mark.parametrize("pairs", PUBLISHED_PAIRS)
def test_contrast_of_the_most_unlike_does_not_overflow(pairs: str, temperature: float) -> None:
    """The formula is worked out by hand, since e^(1/T) is beyond float32, and at T = 0.001 beyond float64."""
    axis = torch.eye(1, 8).expand(3, 8)
    queries = {F_Q: axis.clone().requires_grad_(), T_Q: axis.clone().requires_grad_()}
    loss, metrics = contrast_loss(
        {**queries, F_K: -axis, T_K: -axis}, axis.repeat(7, 1), temperature, PAIRS.load(pairs)
    )
    loss.backward()
    similarities = [1 if pair[:2] == (F_Q, T_Q) else -1 for pair in PUBLISHED_PAIRS[pairs]]
    expected = [math.log(22) if p == 1 else 2 / temperature + math.log(21) for p in similarities]
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-6)
    assert [v.item() for name, v in metrics.items() if name.startswith("top1")] == [p == 1 for p in similarities]

    for name, x in queries.items():
        if x.grad is None:
            continue
        # A positive that is opposite has weight 0, and each of the 21 keys has 1/21: what is left is key - positive.
        gradient = torch.zeros(3, 8)
        for (first, second, anchor), p in zip(PUBLISHED_PAIRS[pairs], similarities, strict=True):
            weight = 1 if p == -1 else 21 / 22
            gradient += weight * axis * (anchor == name)
            gradient -= weight * p * axis * ((first == name) + (second == name))
        gradient /= len(PUBLISHED_PAIRS[pairs]) * 3 * temperature
        # A logit of 1/T is rounded by 6e-8/T, and with it the logarithm of a weight.
        torch.testing.assert_close(x.grad, gradient, rtol=1e-7 / temperature, atol=1e-7 / temperature)


@pytest.mark.parametrize("temperature", [0.001, 0.01])
@pytest.mark.parametrize("pairs", PUBLISHED_PAIRS)
def test_contrast_of_the_most_alike_vanishes(pairs: str, temperature: float) -> None:
    axis = torch.eye(1, 8).expand(3, 8)
    queries = {F_Q: axis.clone().requires_grad_(), T_Q: axis.clone().requires_grad_()}
    loss, metrics = contrast_loss({**queries, F_K: axis, T_K: axis}, -axis, temperature, PAIRS.load(pairs))
    loss.backward()
    assert loss.item() == 0
    assert all(value == 1 for value in metrics.values())
    assert all(x.grad is None or not x.grad.any() for x in queries.values())


def test_a_positive_as_near_as_the_nearest_key_is_counted_first() -> None:
    axes = torch.eye(4)
    embeddings = {F_Q: axes[:3], F_K: axes[:3]}
    _, metrics = contrast_loss(embeddings, axes[2:], 0.07, CNN)  # axis 2 is in the queue
    assert metrics["top1/cnn_query.cnn_key"] == 1
    _, metrics = contrast_loss({**embeddings, F_K: axes[[0, 1, 3]]}, axes[2:], 0.07, CNN)
    assert metrics["top1/cnn_query.cnn_key"].item() == pytest.approx(2 / 3)
    assert metrics["similarity/cnn_query.cnn_key"].item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("negatives", KINDS_OF_NEGATIVES)
@pytest.mark.parametrize("keys", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_embeddings_are_contrasted_in_float32(
    dtype: torch.dtype, keys: torch.dtype, negatives: str
) -> None:
    """They are first brought to the precision of the queue."""
    embeddings, queue = random_embeddings((5, 513, 128))
    half = {name: x.detach().to(dtype).requires_grad_(x.requires_grad) for name, x in embeddings.items()}
    loss, metrics = contrast_loss(half, queue.to(keys), 0.07, OFFICIAL, negatives)
    loss.backward()
    single = {name: x.detach().to(keys).float().requires_grad_(x.requires_grad) for name, x in half.items()}
    queue = queue.to(keys).float()
    expected, expected_metrics = contrast_in_numpy(single, queue, 0.07, "official", negatives)
    assert loss.dtype == torch.float32
    assert abs(loss.item() - expected) <= 2 * SMALL_LOSS / 0.07
    assert_metrics(metrics, expected_metrics, 2 * SMALL_LOSS / 0.07)
    _, gradients = contrast_in_torch(single, queue, 0.07, "official", torch.float64, negatives)
    for name, gradient in gradients.items():
        found = half[name].grad
        assert found is not None
        assert found.dtype == dtype
        # Four pairs add up, each rounded to the coarser of the two types by half a place, and their sum once more.
        rounding = 2.5 * max(torch.finfo(x).eps for x in (dtype, keys))
        assert (found - gradient).abs().max() <= rounding * gradient.abs().max() + SMALL_GRADIENT / 0.07, name


def test_a_queue_with_a_gradient_is_refused() -> None:
    embeddings, queue = random_embeddings((5, 7, 3))
    with pytest.raises(ValueError, match="constants"):
        contrast_loss(embeddings, queue.requires_grad_(), 0.07, CROSS)
