"""Charts of a report, each for a paper as PNG and SVG, and in the colours of the page for a browser."""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names

from cacl.reports.page import report_file

INK, FAINT, RULE = "#1d2733", "#69747f", "#e3e7eb"
SERIES = ("#1f7a8c", "#c8641b", "#7b5ea7", "#4d8a3d", "#b8405e", "#6b7885")
"""The colours of curves. Each differs from its neighbours in lightness, too."""
FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "Microsoft YaHei",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Arial Unicode MS",
)
"""The fonts of letters, of those that are installed: each where the ones before it lack a letter. Matplotlib has the
first."""
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.parse_math": False,  # Names may have dollar signs.
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=SERIES),
    "grid.color": RULE,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "legend.frameon": False,
    "svg.hashsalt": "cacl",  # the same figure, the same file
}
PNG_DPI = 200
NAME_LENGTH = 50
"""The letters of the name of a file at most: with four bytes for each, file systems take it."""

_VARIABLES = {INK: "--ink", FAINT: "--faint", RULE: "--rule"} | {
    color: f"--series-{number}" for number, color in enumerate(SERIES)
}
"""The variables of `page.css` that take the place of colours in a page, so that they fit its dark form, too."""


@contextmanager
def new_figure(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """Yields an empty figure with one pair of axes, in the style of all reports.

    Args:
        width: Inches.
        height: Inches.
    """
    fonts = [name for name in FONTS if name in get_font_names()]
    style: dict[Any, Any] = STYLE | {"font.family": fonts}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # The figure has a box in its place.
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def figure_names(titles: Iterable[str]) -> list[str]:
    """Names the files of the figures of a page: by their titles, with an underscore for all but letters and digits.

    Where two names would differ in nothing but upper and lower case, which some file systems take for the same, a
    number is added.

    Args:
        titles: Some words for each of the figures.
    """
    names: list[str] = []
    for title in titles:
        name = re.sub(r"[\W_]+", "_", title).strip("_")[:NAME_LENGTH] or "figure"
        numbered = (f"{name}_{number}" for number in itertools.count(2))
        taken = {other.casefold() for other in names}
        names.append(next(free for free in itertools.chain([name], numbered) if free.casefold() not in taken))
    return names


def save_figure(figure: Figure, folder: Path, name: str, alt: str) -> Markup:
    """Saves a figure as NAME.png and NAME.svg, inside the block of `new_figure`.

    Args:
        figure: The figure.
        folder: The folder of the report.
        name: The name of both files, of letters, digits and underscores.
        alt: What the figure shows, for those who do not see it.

    Returns:
        The figure as SVG for a page, where its colours are those of the page.

    Raises:
        DataError: The files cannot be written.
    """
    FigureCanvasAgg(figure)
    with report_file(folder / f"{name}.png") as temporary:
        figure.savefig(temporary, format="png", dpi=PNG_DPI, facecolor="white")
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    with report_file(folder / f"{name}.svg") as temporary:
        temporary.write_text(svg, encoding="utf-8")
    return _for_page(svg, name, alt)


def _for_page(svg: str, name: str, alt: str) -> Markup:
    """The element of an SVG file, with colours that are variables, and with names that no other figure has."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", element)
    for color, variable in _VARIABLES.items():
        element = element.replace(color, f"var({variable})")
    label = Markup(' role="img" aria-label="{}"').format(alt)
    return Markup(element.replace("<svg", f"<svg{label}", 1))
