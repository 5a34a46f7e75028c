"""The linear probe: its optimum against solvers and formulas that share nothing with it."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from cacl.evaluation.linear_probe import GRADIENT_TOLERANCE, L2_STRENGTHS, LinearClassifier, fit_linear_probes


def problem(videos: int, features: int, classes: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated features of different scales, far from zero, which tell a little of the classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, videos)
    x = rng.standard_normal((videos, features)) + 0.7 * rng.standard_normal((classes, features))[labels]
    return (x @ rng.standard_normal((features, features)) + 3) * np.exp(rng.standard_normal(features)), labels


def standardised(x: np.ndarray) -> np.ndarray:
    deviation = x.std(0)
    return (x - x.mean(0)) / np.where(deviation > 0, deviation, 1)


def objective(x: np.ndarray, labels: np.ndarray, weight: np.ndarray, bias: np.ndarray, l2: float) -> float:
    logits = x @ weight + bias
    largest = logits.max(1)
    loss = np.log(np.exp(logits - largest[:, None]).sum(1)) + largest - logits[np.arange(len(x)), labels]
    return loss.mean() + l2 / 2 * (weight**2).sum()


def gradient(x: np.ndarray, labels: np.ndarray, weight: np.ndarray, bias: np.ndarray, l2: float) -> np.ndarray:
    """The gradient for weights and bias [F + 1, C], with the videos summed up one by one."""
    total = np.zeros((x.shape[1] + 1, weight.shape[1]))
    for row, label in zip(x, labels, strict=True):
        exponentials = np.exp(row @ weight + bias - (row @ weight + bias).max())
        error = exponentials / exponentials.sum()
        error[label] -= 1
        total += np.outer([*row, 1], error)
    total /= len(x)
    total[:-1] += l2 * weight
    return total


def parts(probe: LinearClassifier) -> tuple[np.ndarray, np.ndarray]:
    return probe.weight.numpy(), probe.bias.numpy()


SHAPES = [(60, 8, 4), (40, 90, 3), (200, 30, 10)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_gradient_is_zero_at_the_optimum(shape: tuple[int, int, int]) -> None:
    x, labels = problem(*shape)
    for l2, probe in zip(L2_STRENGTHS, fit_linear_probes(x, labels), strict=True):
        assert np.abs(gradient(standardised(x), labels, *parts(probe), l2)).max() <= 10 * GRADIENT_TOLERANCE, l2


def test_the_optimum_against_plain_gradient_descent() -> None:
    """Steps of 1 / L, with the Lipschitz constant L of the gradient, cannot overshoot."""
    x, labels = problem(60, 8, 4)
    x = standardised(x)
    for l2, probe in zip((0.1, 0.01), fit_linear_probes(x, labels, (0.1, 0.01)), strict=True):
        lipschitz = np.linalg.eigvalsh(np.column_stack([x, np.ones(60)]).T @ np.column_stack([x, np.ones(60)]) / 60)[-1]
        weight, bias = np.zeros((8, 4)), np.zeros(4)
        for _ in range(3000):
            step = gradient_of_all(x, labels, weight, bias, l2) / (lipschitz / 2 + l2)
            weight, bias = weight - step[:-1], bias - step[-1]
        np.testing.assert_allclose(probe.weight, weight, atol=1e-6)
        np.testing.assert_allclose(probe.bias - probe.bias.mean(), bias - bias.mean(), atol=1e-6)


def gradient_of_all(x: np.ndarray, labels: np.ndarray, weight: np.ndarray, bias: np.ndarray, l2: float) -> np.ndarray:
    logits = x @ weight + bias
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    error = exponentials / exponentials.sum(1, keepdims=True) - np.eye(weight.shape[1])[labels]
    return np.vstack([x.T @ error / len(x) + l2 * weight, error.mean(0)])


@pytest.mark.filterwarnings("ignore:.*[Ll]ine [Ss]earch")  # It goes on to where rounding stops it.
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_optimum_against_scikit_learn(shape: tuple[int, int, int]) -> None:
    x, labels = problem(*shape)
    for l2, probe in zip(L2_STRENGTHS, fit_linear_probes(x, labels), strict=True):
        other = LogisticRegression(C=1 / (l2 * len(x)), tol=1e-12, max_iter=10_000, solver="newton-cg")
        other.fit(standardised(x), labels)
        weight, bias = parts(probe)
        np.testing.assert_allclose(weight, other.coef_.T, atol=1e-3 * np.abs(weight).max())
        found, expected = (
            objective(standardised(x), labels, *values, l2)
            for values in ((weight, bias), (other.coef_.T, np.asarray(other.intercept_)))
        )
        assert abs(found - expected) < 1e-9


def test_where_it_starts_does_not_matter() -> None:
    """A probe after a stronger one is the same as a probe on its own."""
    x, labels = problem(60, 8, 4)
    *_, last = fit_linear_probes(x, labels, (1.0, 0.1, 0.01))
    (alone,) = fit_linear_probes(x, labels, (0.01,))
    np.testing.assert_allclose(last.weight, alone.weight, atol=1e-5)


def test_units_and_constant_features_do_not_matter() -> None:
    x, labels = problem(60, 8, 4)
    other = np.column_stack([x * np.logspace(-4, 4, 8) + 1000, np.full(60, 0.1), np.zeros(60)])
    (probe,), (same,) = (fit_linear_probes(features, labels, (0.01,)) for features in (x, other))
    np.testing.assert_allclose(same.scores(other[:5]), probe.scores(x[:5]), atol=1e-5)
