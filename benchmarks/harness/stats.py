"""What is told of repeated measurements: their spread, and ratios that a changing machine does not disturb."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and range of the values of several repeats."""

    median: float
    min: float
    max: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """The spread of these values, of which there must be at least one."""
        return Spread(statistics.median(values), min(values), max(values))


def ratios(values: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """The ratio within each repeat, of two series that were measured in turn.

    A machine that changes its speed from one repeat to the next changes none of these ratios, but it does change the
    ratio of the medians.
    """
    return [value / base for value, base in zip(values, baseline, strict=True)]


def median_ratio(values: Sequence[float], baseline: Sequence[float]) -> float:
    """The median of the ratios within each repeat."""
    return statistics.median(ratios(values, baseline))
