"""Draws charts of horizontal bars, with nothing but Pillow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

WIDTH, MARGIN, LABELS, VALUES = 1600, 48, 370, 110
"""Pixels: of the picture, around it, of the column of labels, and to the right of the longest bar."""
BAR, GAP, LINE = 34, 26, 34
"""Heights in pixels: of a bar, between groups of bars, and of a line of text."""
KEY = 34
"""Pixels: from a colour of the legend to what it stands for."""
RATIOS, HEADING = 220, 44
"""Pixels: to the right of the longest bar, and the height of a heading, where ratios are drawn."""
INK, FAINT, RULE, PAPER = "#1d2733", "#69747f", "#e3e7eb", "#ffffff"
COLORS = ["#9fb3c4", "#1f7a8c"]


class Bar(NamedTuple):
    label: str
    """Bars side by side that share it form a group."""
    series: int
    median: float | None = None
    """None: there is only a note."""
    min: float = 0.0
    max: float = 0.0
    note: str = ""
    """Stands in the place of a median, or beside a ratio."""


def draw(
    file: Path,
    *,
    title: str,
    subtitle: Sequence[str],
    series: Sequence[str],
    bars: Sequence[Bar],
    footnotes: Sequence[str],
) -> None:
    """Writes a PNG file. A bar ends at the median; whiskers go from the minimum to the maximum."""
    groups = [list(group) for _, group in groupby(bars, key=lambda bar: bar.label)]
    subtitle = _lines(subtitle, 24)
    legend = [_wrapped(name, 24, WIDTH - 2 * MARGIN - KEY) for name in series]
    start, top = MARGIN + LABELS, MARGIN + 60 + (len(subtitle) + sum(map(len, legend))) * LINE + 2 * GAP
    bottom = top + len(bars) * BAR + len(groups) * GAP
    image, pen = _page(bottom, title, subtitle, footnotes)

    y = MARGIN + 60 + len(subtitle) * LINE + GAP // 2
    for lines, color in zip(legend, COLORS, strict=False):
        pen.rectangle((MARGIN, y + 6, MARGIN + 22, y + 28), color)
        for line in lines:
            pen.text((MARGIN + KEY, y + 17), line, INK, _font(24), anchor="lm")
            y += LINE

    highest = max(bar.max for bar in bars)
    per_unit = (WIDTH - MARGIN - VALUES - start) / highest if highest else 0.0
    for tick in _ticks(highest):
        x = start + tick * per_unit
        pen.line((x, top, x, bottom), RULE, 2)
        pen.text((x, bottom + 10), f"{tick:g}", FAINT, _font(22), anchor="ma")
    y = top + GAP // 2
    for group in groups:
        label = _shortened(group[0].label, 25, LABELS - 20)
        pen.text((start - 20, y + len(group) * BAR / 2), label, INK, _font(25), anchor="rm")
        for bar in group:
            _bar(pen, bar, start, y, per_unit)
            y += BAR
        y += GAP
    image.save(file)


def draw_ratios(
    file: Path, *, title: str, subtitle: Sequence[str], sections: Mapping[str, Sequence[Bar]], footnotes: Sequence[str]
) -> None:
    """Writes a PNG file of bars under headings, on a logarithmic axis: each goes from 1 to the median."""
    subtitle = _lines(subtitle, 24)
    start, top = MARGIN + LABELS, MARGIN + 60 + len(subtitle) * LINE + GAP
    bottom = top + sum(HEADING + len(bars) * BAR + GAP for bars in sections.values())
    image, pen = _page(bottom, title, subtitle, footnotes)

    ratios = [ratio for bars in sections.values() for bar in bars if bar.median for ratio in (bar.min, bar.max)]
    low, high = min([1 / 1.2, *ratios]), max([1.2, *ratios])
    per_unit = (WIDTH - MARGIN - RATIOS - start) / math.log(high / low)

    def place(ratio: float) -> float:
        return start + math.log(ratio / low) * per_unit

    ticks = {tick: place(tick) for tick in _ratio_ticks(low, high)}
    y = top
    for heading, bars in sections.items():
        pen.text((MARGIN, y + HEADING / 2), _shortened(heading, 24, WIDTH - 2 * MARGIN), INK, _font(24), anchor="lm")
        y += HEADING
        for tick, x in ticks.items():
            pen.line((x, y, x, y + len(bars) * BAR), FAINT if tick == 1 else RULE, 2)
        for bar in bars:
            _ratio_bar(pen, bar, start, y, place)
            y += BAR
        y += GAP
    for tick, x in ticks.items():
        pen.text((x, bottom - GAP / 2), f"{tick:g}", FAINT, _font(22), anchor="ma")
    image.save(file)


def _ratio_bar(pen: ImageDraw.ImageDraw, bar: Bar, start: float, top: float, place: Callable[[float], float]) -> None:
    middle = top + BAR / 2
    label = _shortened(bar.label, 23, LABELS - 20)
    pen.text((start - 20, middle), label, INK if bar.series else FAINT, _font(23), anchor="rm")
    if bar.median is None:
        _note(pen, bar.note, place(1), middle)
        return
    left, right = sorted((place(1), place(bar.median)))
    pen.rectangle((left - 3, top + 3, right + 3, top + BAR - 3), COLORS[bar.series])
    _whiskers(pen, place(bar.min), place(bar.max), middle)
    pen.text((max(right, place(bar.max)) + 14, middle), bar.note, INK, _font(22), anchor="lm")


def _page(
    bottom: int, title: str, subtitle: Sequence[str], footnotes: Sequence[str]
) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """With what stands above and below a chart that ends at this height. subtitle: in lines that fit."""
    small = _lines(footnotes, 21)
    image = Image.new("RGB", (WIDTH, bottom + 2 * LINE + len(small) * LINE + MARGIN // 2), PAPER)
    pen = ImageDraw.Draw(image)
    pen.text((MARGIN, MARGIN - 8), _shortened(title, 40, WIDTH - 2 * MARGIN), INK, _font(40))
    for number, line in enumerate(subtitle):
        pen.text((MARGIN, MARGIN + 60 + number * LINE), line, FAINT, _font(24))
    for number, line in enumerate(small):
        pen.text((MARGIN, bottom + 2 * LINE + number * LINE), line, FAINT, _font(21))
    return image, pen


def _bar(pen: ImageDraw.ImageDraw, bar: Bar, start: int, top: int, per_unit: float) -> None:
    middle = top + BAR / 2
    if bar.median is None:
        _note(pen, bar.note, start, middle)
        return
    value, low, high = (start + x * per_unit for x in (bar.median, bar.min, bar.max))
    pen.rectangle((start, top + 3, value, top + BAR - 3), COLORS[bar.series])
    _whiskers(pen, low, high, middle)
    text = f"{bar.median:.0f}" if bar.median >= 100 else f"{bar.median:.1f}"
    pen.text((max(value, high) + 12, middle), text, INK, _font(24), anchor="lm")


def _whiskers(pen: ImageDraw.ImageDraw, low: float, high: float, middle: float) -> None:
    pen.line((low, middle, high, middle), INK, 2)
    for x in (low, high):
        pen.line((x, middle - 6, x, middle + 6), INK, 2)


def _note(pen: ImageDraw.ImageDraw, note: str, start: float, middle: float) -> None:
    pen.text((start + 10, middle), _shortened(note, 21, WIDTH - MARGIN - start - 10), FAINT, _font(21), anchor="lm")


def _lines(texts: Sequence[str], size: int) -> list[str]:
    """These texts in lines from one margin to the other."""
    return [line for text in texts for line in _wrapped(text, size, WIDTH - 2 * MARGIN)]


def _wrapped(text: str, size: int, width: float) -> list[str]:
    """The text in lines of up to so many pixels, broken between words."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and _font(size).getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [_shortened(line, size, width) for line in lines]


def _shortened(text: str, size: int, width: float) -> str:
    """The text, or as much of its beginning as fits into so many pixels."""
    while _font(size).getlength(text) > width:
        text = text.rstrip("…")[:-1] + "…"
    return text


def _ticks(highest: float) -> list[float]:
    """Four to ten round numbers from 0 on; none if there is nothing to measure."""
    if not highest:
        return []
    power = 10 ** math.floor(math.log10(highest / 4))
    step = next(factor * power for factor in (5, 2, 1) if factor * power <= highest / 4)
    return [number * step for number in range(int(highest / step) + 1)]


def _ratio_ticks(low: float, high: float) -> list[float]:
    """Round numbers, further apart where they are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(powers) <= 5 else (1,)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    return [tick for tick in ticks if low <= tick <= high]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
