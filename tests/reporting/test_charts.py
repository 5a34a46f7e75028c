"""Charts: every text inside the picture, and none upon another."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from cacl.reporting.charts import MARGIN, PAPER, Bar, draw, draw_ratios

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
    draw(file, title="Clips per second", subtitle=["two views", LONG], series=series, bars=BARS, footnotes=[LONG])


def ratios(file: Path) -> None:
    sections = {"contrast": [Bar("cacl", 1, 1.0, 1.0, 1.0, "1 (614 ms)"), *BARS[2:]], "symmetric " + LONG: BARS[:1]}
    draw_ratios(file, title=LONG, subtitle=[LONG], sections=sections, footnotes=[LONG, UNBROKEN])


@pytest.mark.parametrize("chart", [bars, ratios])
def test_texts_stay_in_the_picture_and_apart(
    chart: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes: list[tuple[str, tuple[float, float, float, float]]] = []
    drawn = ImageDraw.ImageDraw.text

    def observed(pen: ImageDraw.ImageDraw, place: Any, text: str, fill: Any, font: Any, anchor: str = "la") -> None:
        boxes.append((text, pen.textbbox(place, text, font, anchor)))
        drawn(pen, place, text, fill, font, anchor)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", observed)
    chart(tmp_path / "chart.png")
    with Image.open(tmp_path / "chart.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    height, width, _ = pixels.shape
    paper = np.array([int(PAPER[at : at + 2], 16) for at in (1, 3, 5)])
    assert (pixels[:, : MARGIN // 2] == paper).all()
    assert (pixels[:, -MARGIN // 2 :] == paper).all()
    for text, (left, top, right, bottom) in boxes:
        assert 0 <= left <= right <= width, text
        assert 0 <= top <= bottom <= height, text
    for (one, a), (other, b) in combinations(boxes, 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, f"{one!r} on {other!r}"


def test_a_legend_is_told_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda pen, place, text, *_, **__: texts.append(text))
    bars(tmp_path / "chart.png")
    assert SIZES in " ".join(texts)
