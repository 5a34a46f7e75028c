"""Charts of a report, each for a paper as PNG and SVG, and in the colours of the page for a browser."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cacl.files import atomic_write

INK, FAINT, RULE = "#1d2733", "#69747f", "#e3e7eb"
SERIES = ("#1f7a8c", "#c8641b", "#7b5ea7", "#4d8a3d", "#b8405e", "#6b7885")
"""The colours of curves. Each differs from its neighbours in lightness, too."""
STYLE: dict[Any, Any] = {
    "font.size": 9,
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
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def figure_name(*parts: str) -> str:
    """Returns the name of a figure's files: some words, with an underscore for all but letters and digits."""
    return re.sub(r"[\W_]+", "_", " ".join(parts)).strip("_")


def save_figure(figure: Figure, folder: Path, name: str, alt: str) -> Markup:
    """Saves a figure as NAME.png and NAME.svg, inside the block of `new_figure`.

    Args:
        figure: The figure.
        folder: The folder of the report.
        name: The name of both files, of letters, digits and underscores.
        alt: What the figure shows, for those who do not see it.

    Returns:
        The figure as SVG for a page, where its colours are those of the page.
    """
    FigureCanvasAgg(figure)
    with atomic_write(folder / f"{name}.png") as temporary:
        figure.savefig(temporary, format="png", dpi=PNG_DPI, facecolor="white")
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    with atomic_write(folder / f"{name}.svg") as temporary:
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
