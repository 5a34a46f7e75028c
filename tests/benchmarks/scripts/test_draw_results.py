"""The charts that are saved with the results."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from cacl.benchmarks.scripts.draw_results import DRAW, draw_results
from tests.launch import ROOT

RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    draw_results(RESULTS, folder)
    return folder


@pytest.mark.parametrize("name", DRAW)
def test_a_chart_is_drawn_from_the_json_beside_it(drawn: Path, name: str) -> None:
    """Letters differ a little from one version of matplotlib to the next, and lines of text do not."""
    with Image.open(drawn / f"{name}.png") as new, Image.open(RESULTS / f"{name}.png") as saved:
        assert new.size == saved.size


@pytest.mark.parametrize("name", DRAW)
def test_a_chart_is_small_enough_for_a_page(drawn: Path, name: str) -> None:
    assert (drawn / f"{name}.png").stat().st_size < 300_000
