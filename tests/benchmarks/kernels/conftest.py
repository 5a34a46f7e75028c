"""Measurements of kernels are short in these tests."""

import pytest

from tests.benchmarks.kernels.small import quick_measurements


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_measurements(monkeypatch)
