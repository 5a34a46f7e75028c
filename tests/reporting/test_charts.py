"""Charts: every text inside the picture, and none upon another."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cacl.reporting.charts import COLORS, MARGIN, PAPER, Bar, draw_bars, draw_ratios
from tests.drawn_texts import DrawnText, assert_in_the_picture_and_apart, observe_texts

SIZES = ", ".join(f"{16 * n}x{12 * n}" for n in range(1, 41))
LONG = "a sentence that goes on for very long, " * 12
UNBROKEN = "word" * 80
BARS = [
    Bar("cacl cpu", 0, 162.0, 139.0, 166.0),
    Bar("cacl cpu", 1, 565.4, 516.0, 616.0),
    Bar("a loader " + UNBROKEN, 0, 0.3, 0.2, 0.4),
    Bar("refused", 0, note="refused: " + LONG),
]


def bars(file: Path, sizes: str = SIZES) -> None:
    series = [f"{kind}: 48 videos, h264, {sizes}, 96 KiB and 180 frames each" for kind in ("raw", "prepared")]
    draw_bars(file, title="Clips per second", subtitle=["two views", LONG], series=series, bars=BARS, footnotes=[LONG])


def ratios(file: Path) -> None:
    sections = {"contrast": [Bar("cacl", 1, 1.0, 1.0, 1.0, "1 (614 ms)"), *BARS[2:]], "symmetric " + LONG: BARS[:1]}
    draw_ratios(file, title=LONG, subtitle=[LONG], sections=sections, footnotes=[LONG, UNBROKEN])


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> Collection[DrawnText]:
    """Every text that a chart shows."""
    return observe_texts(monkeypatch)


def pixels_of(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def color(name: str) -> np.ndarray:
    return np.array([int(name[at : at + 2], 16) for at in (1, 3, 5)])


@pytest.mark.parametrize("chart", [bars, ratios])
def test_texts_stay_in_the_picture_and_apart(
    chart: Callable[[Path], None], tmp_path: Path, texts: Collection[DrawnText]
) -> None:
    chart(tmp_path / "chart.png")
    pixels = pixels_of(tmp_path / "chart.png")
    height, width, _ = pixels.shape
    assert (pixels[:, : MARGIN // 2] == color(PAPER)).all()
    assert (pixels[:, -MARGIN // 2 :] == color(PAPER)).all()
    assert len(texts) > 10
    assert_in_the_picture_and_apart(texts, width, height)


def test_a_legend_is_told_in_full(tmp_path: Path, texts: Collection[DrawnText]) -> None:
    bars(tmp_path / "chart.png")
    assert SIZES in " ".join(text.text for text in texts)


def test_bars_are_as_long_as_their_medians(tmp_path: Path) -> None:
    """Without whiskers, the length of a bar in pixels is its median times a constant."""
    lengths = [40.0, 100.0, 80.0]
    draw_bars(
        tmp_path / "chart.png",
        title="",
        subtitle=[],
        series=["one"],
        bars=[Bar(str(length), 0, length, length, length) for length in lengths],
        footnotes=[],
    )
    pixels = pixels_of(tmp_path / "chart.png")
    near = np.abs(pixels.astype(int) - color(COLORS[0])).max(2) < 12
    drawn = near[:, MARGIN + 100 :].sum(1)  # The swatch of the legend lies to the left.
    edges = np.flatnonzero(np.diff(np.concatenate([[0], drawn > 50, [0]])))
    found = [drawn[start:stop].max() for start, stop in edges.reshape(-1, 2)]
    assert len(found) == len(lengths)
    assert np.array(found) / found[1] == pytest.approx(np.array(lengths) / 100, abs=0.01)


def test_names_with_letters_that_the_font_lacks_and_with_dollars(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_bars(
            tmp_path / "chart.png",
            title="$x^2$ and $",
            subtitle=[],
            series=["raw"],
            bars=[Bar("動画", 0, note="refused: shows 動画/$\\frac{.avi")],
            footnotes=["$"],
        )
    assert pixels_of(tmp_path / "chart.png").shape[1] == 1600
