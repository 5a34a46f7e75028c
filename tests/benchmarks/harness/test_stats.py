"""What figures are made of."""

from __future__ import annotations

from statistics import median

from cacl.benchmarks.harness.stats import ratios


def test_a_machine_that_changes_its_speed_changes_no_ratio() -> None:
    """It does change that of the medians: here one is half as fast as the other, more or less, in every repeat."""
    base, half = [100.0, 10.0, 90.0, 400.0, 95.0], [50.0, 5.5, 40.5, 200.0, 42.75]
    assert median(ratios(half, base)) == 0.5
    assert median(half) / median(base) == 0.45
