"""Charts of horizontal bars with whiskers, drawn by matplotlib without a display."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import Affine2D
from PIL import Image

from cacl.files import atomic_write

WIDTH, MARGIN, LABELS = 1600, 48, 380
"""Pixels: of the chart, around it, and of the column of labels."""
BAR, GAP, LINE, HEADING = 34, 26, 34, 44
"""Heights in pixels: of a bar, between groups of bars, of a line of text, and of a heading."""
SWATCH = 34
"""Pixels from a colour of the legend to what it stands for."""
VALUE_ROOM, RATIO_ROOM = 120, 260
"""Pixels to the right of the longest whisker, for the value of a bar and for the note beside a ratio."""
DPI = 100
COLOR_COUNT = 128
"""Colours of the file, with those of the edges of letters."""
INK, FAINT, RULE, PAPER = "#1d2733", "#69747f", "#e3e7eb", "#ffffff"
COLORS = ["#9fb3c4", "#1f7a8c"]
TITLE_SIZE, TEXT_SIZE, SMALL_SIZE = 36, 22, 20
"""Sizes of letters in pixels."""


class Bar(NamedTuple):
    """A bar of a chart, or a note in place of one."""

    label: str
    """Bars that follow each other and share their label form a group."""
    series: int
    """The number of its colour."""
    median: float | None = None
    """Where the bar ends; None if there is only a note."""
    min: float = 0.0
    max: float = 0.0
    note: str = ""
    """Stands in place of a median, or beside a ratio."""


@contextmanager
def _missing_glyphs_ignored() -> Iterator[None]:
    """Silences a warning of matplotlib: file names may have letters that the font lacks, which show as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)
        yield


@_missing_glyphs_ignored()
def draw_bars(
    file: Path,
    *,
    title: str,
    subtitle: Sequence[str],
    series: Sequence[str],
    bars: Sequence[Bar],
    footnotes: Sequence[str],
) -> None:
    """Writes a PNG file of bars that go from 0 to their median. Whiskers go from the minimum to the maximum.

    Args:
        file: The file to write.
        title: The heading of the chart.
        subtitle: What stands below the title.
        series: What each colour stands for.
        bars: The bars, from top to bottom.
        footnotes: What stands below the chart.
    """
    groups = [list(group) for _, group in groupby(bars, key=lambda bar: bar.label)]
    height = len(bars) * BAR + len(groups) * GAP
    page = _Page(title, subtitle, footnotes, series, height)
    axes = page.add_axes(page.top, height, VALUE_ROOM)
    highest = max((bar.max for bar in bars), default=0.0)
    axes.set_xlim(0, highest or 1)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]) if highest else NullLocator())
    _show_ticks(axes)
    middle = (GAP + BAR) / 2
    for group in groups:
        page.add_label(page.top + middle + (len(group) - 1) * BAR / 2, group[0].label, INK)
        for bar in group:
            if bar.median is None:
                _add_note(axes, bar, 0, middle)
            else:
                axes.barh(middle, bar.median, BAR - 6, color=COLORS[bar.series], zorder=2)
                _add_whiskers(axes, bar, bar.median, middle)
                value = f"{bar.median:.0f}" if bar.median >= 100 else f"{bar.median:.1f}"
                _add_text(axes, max(bar.median, bar.max), middle, value, INK)
            middle += BAR
        middle += GAP
    page.save(file)


@_missing_glyphs_ignored()
def draw_ratios(
    file: Path, *, title: str, subtitle: Sequence[str], sections: Mapping[str, Sequence[Bar]], footnotes: Sequence[str]
) -> None:
    """Writes a PNG file of bars on a logarithmic axis, each of which goes from 1 to its median.

    Args:
        file: The file to write.
        title: The heading of the chart.
        subtitle: What stands below the title.
        sections: The bars below each heading, from top to bottom.
        footnotes: What stands below the chart.
    """
    height = sum(HEADING + len(bars) * BAR + GAP for bars in sections.values()) - GAP
    page = _Page(title, subtitle, footnotes, [], height)
    ratios = [ratio for bars in sections.values() for bar in bars if bar.median for ratio in (bar.min, bar.max)]
    low, high = min([1 / 1.2, *ratios]), max([1.2, *ratios])
    top = page.top
    for number, (heading, bars) in enumerate(sections.items(), 1):
        page.add_text(MARGIN, top + HEADING / 2, _shorten(heading, TEXT_SIZE, WIDTH - 2 * MARGIN), TEXT_SIZE, INK)
        axes = page.add_axes(top + HEADING, len(bars) * BAR, RATIO_ROOM)
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.xaxis.set_major_locator(FixedLocator(_ratio_ticks(low, high)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.axvline(1, color=FAINT, linewidth=_points(2), zorder=1)
        if number == len(sections):
            _show_ticks(axes)
        for place, bar in enumerate(bars):
            middle = (place + 0.5) * BAR
            page.add_label(top + HEADING + middle, bar.label, INK if bar.series else FAINT)
            _add_ratio(axes, bar, middle)
        top += HEADING + len(bars) * BAR + GAP
    page.save(file)


class _Page:
    """A figure that is laid out in pixels from the top left corner: what stands above the chart and below it."""

    def __init__(
        self, title: str, subtitle: Sequence[str], footnotes: Sequence[str], series: Sequence[str], chart_height: float
    ) -> None:
        width = WIDTH - 2 * MARGIN
        head = _wrap_all(subtitle, TEXT_SIZE, width)
        legend = [_wrap(name, TEXT_SIZE, width - SWATCH) for name in series]
        foot = _wrap_all(footnotes, SMALL_SIZE, width)
        self.top = MARGIN + 60 + (len(head) + sum(map(len, legend))) * LINE + GAP + (GAP if series else 0)
        bottom = self.top + chart_height
        self.height = bottom + 2 * LINE + len(foot) * LINE + MARGIN // 2
        self.figure = Figure(figsize=(WIDTH / DPI, self.height / DPI), dpi=DPI, facecolor=PAPER)
        self.pixels = Affine2D().scale(1, -1).translate(0, self.height)
        self.add_text(MARGIN, MARGIN + 16, _shorten(title, TITLE_SIZE, width), TITLE_SIZE, INK)
        y = MARGIN + 60 + LINE / 2
        for line in head:
            self.add_text(MARGIN, y, line, TEXT_SIZE, FAINT)
            y += LINE
        y += GAP / 2
        for lines, color in zip(legend, COLORS, strict=False):
            swatch = Rectangle((MARGIN, y - 11), 22, 22, color=color, transform=self.pixels, linewidth=0)
            self.figure.add_artist(swatch)
            for line in lines:
                self.add_text(MARGIN + SWATCH, y, line, TEXT_SIZE, INK)
                y += LINE
        for number, line in enumerate(foot):
            self.add_text(MARGIN, bottom + (2.5 + number) * LINE, line, SMALL_SIZE, FAINT)

    def add_text(self, x: float, y: float, text: str, size: float, color: str, align: str = "left") -> None:
        """Adds a line of text whose middle is at this height."""
        self.figure.text(
            x,
            y,
            text,
            color=color,
            fontsize=_points(size),
            horizontalalignment=align,
            verticalalignment="center",
            transform=self.pixels,
            parse_math=False,
        )

    def add_label(self, y: float, text: str, color: str) -> None:
        """Adds a label to the left of the axes."""
        text = _shorten(text, TEXT_SIZE, LABELS - 20)
        self.add_text(MARGIN + LABELS - 20, y, text, TEXT_SIZE, color, align="right")

    def add_axes(self, top: float, height: float, room: float) -> Axes:
        """Adds axes whose vertical unit is a pixel, from 0 at their top. To their right `room` pixels stay free."""
        left, width = MARGIN + LABELS, WIDTH - 2 * MARGIN - LABELS - room
        rectangle = (
            left / WIDTH,
            1 - (top + height) / self.height,
            width / WIDTH,
            height / self.height,
        )
        axes = self.figure.add_axes(rectangle)
        axes.set_ylim(height, 0)
        axes.set_axisbelow(True)
        axes.grid(axis="x", color=RULE, linewidth=_points(2))
        axes.tick_params(length=0, labelsize=_points(SMALL_SIZE), labelcolor=FAINT, labelbottom=False, labelleft=False)
        axes.tick_params(which="minor", length=0)
        axes.yaxis.set_major_locator(NullLocator())
        for spine in axes.spines.values():
            spine.set_visible(False)
        return axes

    def save(self, file: Path) -> None:
        """Writes the PNG file."""
        with atomic_write(file) as temporary:
            canvas = FigureCanvasAgg(self.figure)
            canvas.draw()
            # A palette makes the file several times smaller, and there are few colours.
            image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(COLOR_COUNT)
            image.save(temporary, "PNG", optimize=True)


def _show_ticks(axes: Axes) -> None:
    axes.tick_params(labelbottom=True, pad=_points(12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}"))


def _add_ratio(axes: Axes, bar: Bar, middle: float) -> None:
    if bar.median is None:
        _add_note(axes, bar, 1, middle)
        return
    # The edge shows a ratio of 1, too.
    color, edge = COLORS[bar.series], 6
    width = bar.median - 1
    axes.barh(
        middle,
        width,
        BAR - 6 - edge,
        left=1,
        color=color,
        edgecolor=color,
        linewidth=_points(edge),
        zorder=2,
        clip_on=False,
        joinstyle="miter",
    )
    _add_whiskers(axes, bar, bar.median, middle)
    _add_text(axes, max(1, bar.median, bar.max), middle, bar.note, INK)


def _add_whiskers(axes: Axes, bar: Bar, median: float, middle: float) -> None:
    axes.errorbar(
        median,
        middle,
        xerr=[[median - bar.min], [bar.max - median]],
        color=INK,
        capsize=_points(6),
        capthick=_points(2),
        elinewidth=_points(2),
        clip_on=False,
        zorder=3,
    )


def _add_note(axes: Axes, bar: Bar, start: float, middle: float) -> None:
    left = axes.transData.transform((start, middle))[0]
    _add_text(axes, start, middle, _shorten(bar.note, SMALL_SIZE, WIDTH - MARGIN - left - 12), FAINT, SMALL_SIZE)


def _add_text(axes: Axes, x: float, y: float, text: str, color: str, size: float = TEXT_SIZE) -> None:
    """Adds a text to the right of a point of the axes."""
    axes.annotate(
        text,
        (x, y),
        (12, 0),
        textcoords="offset pixels",
        color=color,
        fontsize=_points(size),
        verticalalignment="center",
        annotation_clip=False,
        parse_math=False,
    )


def _points(pixels: float) -> float:
    """Lengths of lines and letters, which matplotlib takes in points."""
    return pixels * 72 / DPI


def _wrap_all(texts: Sequence[str], size: float, width: float) -> list[str]:
    return [line for text in texts for line in _wrap(text, size, width)]


def _wrap(text: str, size: float, width: float) -> list[str]:
    """The text in lines of at most `width` pixels, broken between words."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and _text_width(longer, size) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [_shorten(line, size, width) for line in lines]


def _shorten(text: str, size: float, width: float) -> str:
    """The text, or as much of its beginning as fits into `width` pixels."""
    while _text_width(text, size) > width:
        text = text.rstrip("…")[:-1] + "…"
    return text


def _text_width(text: str, size: float) -> float:
    """Pixels. At 72 points per inch, the unit of `text_to_path`, a point is a pixel."""
    return text_to_path.get_text_width_height_descent(text, FontProperties(size=size), False)[0]


def _ratio_ticks(low: float, high: float) -> list[float]:
    """Round numbers, further apart where they are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(powers) <= 5 else (1,)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    return [tick for tick in ticks if low <= tick <= high]
