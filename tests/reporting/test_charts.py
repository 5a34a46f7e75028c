"""Charts: every text inside the picture, and none upon another."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backend_bases import RendererBase
from matplotlib.text import Text
from PIL import Image

from cacl.reporting.charts import COLORS, MARGIN, PAPER, Bar, draw_bars, draw_ratios

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
def texts(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[float, float, float, float]]:
    """Every text that a chart shows, and its box in pixels: left, bottom, right, top."""
    boxes: dict[str, tuple[float, float, float, float]] = {}
    draw = Text.draw

    def observed(text: Text, renderer: RendererBase) -> None:
        draw(text, renderer)
        if text.get_visible() and text.get_text():
            box = Text.get_window_extent(text, renderer)
            boxes[f"{len(boxes)} {text.get_text()}"] = (box.x0, box.y0, box.x1, box.y1)

    monkeypatch.setattr(Text, "draw", observed)
    return boxes


def pixels_of(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def color(name: str) -> np.ndarray:
    return np.array([int(name[at : at + 2], 16) for at in (1, 3, 5)])


@pytest.mark.parametrize("chart", [bars, ratios])
def test_texts_stay_in_the_picture_and_apart(
    chart: Callable[[Path], None], tmp_path: Path, texts: dict[str, tuple[float, float, float, float]]
) -> None:
    chart(tmp_path / "chart.png")
    pixels = pixels_of(tmp_path / "chart.png")
    height, width, _ = pixels.shape
    assert (pixels[:, : MARGIN // 2] == color(PAPER)).all()
    assert (pixels[:, -MARGIN // 2 :] == color(PAPER)).all()
    assert len(texts) > 10
    for text, (left, bottom, right, top) in texts.items():
        assert 0 <= left <= right <= width, text
        assert 0 <= bottom <= top <= height, text
    for (one, a), (other, b) in combinations(texts.items(), 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, f"{one!r} on {other!r}"


def test_a_legend_is_told_in_full(tmp_path: Path, texts: dict[str, tuple[float, float, float, float]]) -> None:
    bars(tmp_path / "chart.png")
    assert SIZES in " ".join(text.partition(" ")[2] for text in texts)


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
