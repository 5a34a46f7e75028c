"""Linear probe: multinomial logistic regression on features of a frozen encoder, solved to the optimum.

The objective is that of Tian et al. (ECCV 2020) and of scikit-learn, written as a mean:

    mean over videos of cross-entropy(W x + b, class) + l2 / 2 * |W|^2

The bias b is not penalised. In scikit-learn's terms, C = 1 / (l2 * videos). Features are standardised first.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

log = logging.getLogger(__name__)

L2_STRENGTHS = tuple(10.0**exponent for exponent in range(2, -7, -1))
"""The strengths of the regularisation that are tried, from strong to weak, a power of ten apart."""

GRADIENT_TOLERANCE = 1e-8
"""The solver stops when no entry of the gradient of the objective is larger than this."""

MAX_NEWTON_STEPS = 200
MAX_CONJUGATE_GRADIENT_STEPS = 500


def linear_settings(num_videos: int) -> list[dict[str, float]]:
    """Returns the settings that are tried, whatever the number of videos, with strong regularisation first."""
    return [{"l2": l2} for l2 in L2_STRENGTHS]


def linear_scores(
    features: np.ndarray,
    train: Sequence[int],
    classes: np.ndarray,
    queries: Sequence[int],
    settings: Sequence[Mapping[str, float]],
    device: str | torch.device = "cpu",
) -> Iterator[np.ndarray]:
    """Classifies videos by linear probes.

    Args:
        features: Floats [V, F], the features of all videos.
        train: The positions of the videos to learn from.
        classes: Integers, the classes of these, each from 0 to C - 1 at least once.
        queries: The positions of the Q videos to classify.
        settings: The settings, each with `l2`.
        device: The device that computes.

    Yields:
        The logits for each setting, float64 [Q, C].
    """
    for probe in fit_linear_probes(features[train], classes, [setting["l2"] for setting in settings], device):
        yield probe.scores(features[queries])


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearClassifier:
    """A linear layer on standardised features."""

    mean: Tensor
    """float64 [F], subtracted from features."""
    deviation: Tensor
    """float64 [F], by which features are divided afterwards."""
    weight: Tensor
    """float64 [F, C]."""
    bias: Tensor
    """float64 [C]."""

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Computes the logits of videos.

        Args:
            features: Floats [V, F].

        Returns:
            float64 [V, C].
        """
        x = torch.from_numpy(np.asarray(features, np.float64)).to(self.weight.device)
        return ((x - self.mean) / self.deviation @ self.weight + self.bias).cpu().numpy()


def fit_linear_probes(
    features: np.ndarray,
    classes: np.ndarray,
    l2_strengths: Sequence[float] = L2_STRENGTHS,
    device: str | torch.device = "cpu",
) -> Iterator[LinearClassifier]:
    """Fits one probe for each strength of the regularisation. Each starts from the optimum of the one before.

    The features are rotated to their principal components, of which there are no more than videos. As the penalty is
    the same in every direction, the optimum stays what it is; the solver needs far fewer steps there.

    Args:
        features: Floats [V, F], the features of the V videos to learn from.
        classes: Integers [V], their classes, each from 0 to C - 1 at least once: the optimum would be at infinity.
        l2_strengths: The strengths. From large to small they are the quickest to solve.
        device: The device that computes, in float64.

    Yields:
        The probe of each strength.
    """
    x = torch.from_numpy(np.asarray(features, np.float64)).to(device)
    mean, deviation = x.mean(0), x.std(0, correction=0)
    # What is constant but for rounding would otherwise be blown up to noise.
    deviation = torch.where(deviation > 1e-7 * mean.abs(), deviation, 1.0)
    x = (x - mean) / deviation
    rotation = _principal_directions(x)  # [F, R]
    objective = _Objective(x @ rotation, torch.from_numpy(np.asarray(classes, np.int64)).to(device))
    solution = x.new_zeros(rotation.shape[1] + 1, int(classes.max()) + 1)
    for l2 in l2_strengths:
        solution = objective.minimise(solution, l2)
        yield LinearClassifier(mean=mean, deviation=deviation, weight=rotation @ solution[:-1], bias=solution[-1])


def _principal_directions(x: Tensor) -> Tensor:
    """Returns an orthonormal basis [F, min(V, F)] of a space that holds all rows of x [V, F], sorted by variance."""
    basis = torch.linalg.qr(x.T).Q if x.shape[1] > x.shape[0] else torch.eye(x.shape[1]).to(x)
    projected = x @ basis
    return basis @ torch.linalg.eigh(projected.T @ projected).eigenvectors.flip(1)


class _Objective:
    """The objective as a function of the weights and, in the last row, the biases: float64 [R + 1, C].

    Args:
        x: float64 [V, R], the features.
        classes: int64 [V].
    """

    def __init__(self, x: Tensor, classes: Tensor) -> None:
        self.x = torch.cat([x, x.new_ones(len(x), 1)], 1)
        self.classes = classes
        self.targets = torch.nn.functional.one_hot(classes).to(x)
        self.penalised = x.new_ones(self.x.shape[1], 1)
        self.penalised[-1] = 0

    def minimise(self, start: Tensor, l2: float) -> Tensor:
        """Finds the minimum by Newton's method, whose steps come from preconditioned conjugate gradients.

        Args:
            start: Where to begin, float64 [R + 1, C].
            l2: The strength of the regularisation.

        Returns:
            The minimum, float64 [R + 1, C].
        """
        solution = start
        value, gradient, probabilities = self._evaluate(solution, l2)
        for _ in range(MAX_NEWTON_STEPS):
            if gradient.abs().max() <= GRADIENT_TOLERANCE:
                return solution
            step = self._newton_step(gradient, probabilities, l2)
            slope = float((gradient * step).sum())
            length, rounding = 1.0, 1e-14 * (1 + abs(value))
            while True:  # Armijo's rule, which a step that is short enough meets as the objective is convex
                candidate = solution + length * step
                found = self._evaluate(candidate, l2)
                if found[0] <= value + 1e-4 * length * slope + rounding:
                    break
                length /= 2
            solution, (value, gradient, probabilities) = candidate, found
        log.warning(
            "linear probe: after %s Newton steps at l2 = %.1e the gradient is %.1e, above %.0e",
            *(MAX_NEWTON_STEPS, l2, float(gradient.abs().max()), GRADIENT_TOLERANCE),
        )
        return solution

    def _evaluate(self, solution: Tensor, l2: float) -> tuple[float, Tensor, Tensor]:
        """Returns the objective, its gradient [R + 1, C], and the probabilities [V, C]."""
        log_probabilities = (self.x @ solution).log_softmax(1)
        probabilities, weights = log_probabilities.exp(), self.penalised * solution
        value = -log_probabilities.gather(1, self.classes[:, None]).mean() + l2 / 2 * weights.square().sum()
        gradient = self.x.T @ (probabilities - self.targets) / len(self.x) + l2 * weights
        return float(value), gradient, probabilities

    def _newton_step(self, gradient: Tensor, probabilities: Tensor, l2: float) -> Tensor:
        """Solves Hessian @ step = -gradient by conjugate gradients, preconditioned by the diagonal of the Hessian."""
        count = len(self.x)

        def hessian_product(v: Tensor) -> Tensor:
            change = probabilities * (self.x @ v)
            change -= probabilities * change.sum(1, keepdim=True)
            return self.x.T @ change / count + l2 * self.penalised * v

        diagonal = self.x.square().T @ (probabilities * (1 - probabilities)) / count + l2 * self.penalised
        diagonal = diagonal.clamp_min(torch.finfo(diagonal.dtype).tiny ** 0.5)
        residual_norm = float(gradient.norm())
        # The solution gets more exact the nearer the minimum is, which makes convergence superlinear (Nocedal and
        # Wright, Numerical Optimization, 2006, section 7.1).
        tolerance = min(0.5, residual_norm**0.5) * residual_norm
        step, residual = torch.zeros_like(gradient), -gradient
        scaled = residual / diagonal
        direction, product = scaled, float((residual * scaled).sum())
        for _ in range(MAX_CONJUGATE_GRADIENT_STEPS):
            image = hessian_product(direction)
            curvature = float((direction * image).sum())
            if curvature <= 0:  # The bias has a direction that changes nothing.
                break
            step = step + product / curvature * direction
            residual = residual - product / curvature * image
            if float(residual.norm()) <= tolerance:
                break
            scaled = residual / diagonal
            before, product = product, float((residual * scaled).sum())
            direction = scaled + product / before * direction
        return step if step.any() else -gradient / diagonal
