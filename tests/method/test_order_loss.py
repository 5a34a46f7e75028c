"""The classes of frame orders against the facts of the method, and their loss against numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from cacl.kernels.edit_distance import edit_distance_to_identity
from cacl.loaders.sampling.rng import RandomStream
from cacl.loaders.sampling.sampler import draw_frame_order
from cacl.method.losses import order_classes, order_distances, order_loss


@pytest.fixture(scope="module")
def orders() -> Tensor:
    """Frame orders as training draws them, uint8 [20000, 16]."""
    return torch.tensor(
        [draw_frame_order(RandomStream(0, 1, 0, video), 16) for video in range(20_000)], dtype=torch.uint8
    )


def test_every_class_is_a_distance_and_one_never_occurs(orders: Tensor) -> None:
    distances, classes = edit_distance_to_identity(orders), order_classes(orders)
    assert torch.equal(order_distances(classes), distances.long())
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
    # Of 16 positions n are permuted, and one of n! permutations is the identity.
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
