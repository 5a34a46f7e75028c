"""Which classes are taken for which: as a picture, and as a list of the most frequent cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline

from cacl.reports.figures import FAINT, INK, SERIES, new_figure, save_figure
from cacl.reports.page import printable

MOST_NUMBERS, MOST_NAMES = 10, 40
"""Up to so many classes have numbers in the cells, and names at the axes."""
NAME_LENGTH = 24
"""The number of characters of a name at an axis; the list beside the picture has whole names."""
LEVELS = 20
"""The number of shades. The cells of a shade are one path of the picture, which keeps it small with 400 classes."""
FAINTEST = 0.2
"""The opacity of a cell with few of the videos of its row, as a share of the strongest one."""
STRONGEST_BEHIND_NUMBERS = 0.5
"""The opacity of a cell with all videos of its row where a number stands in it, which can then be read."""
LISTED = 15
"""The number of cases that `frequent_confusions` returns."""


class Confusion(NamedTuple):
    """A class that is taken for another one."""

    true_class: str
    other: str
    videos: int
    """How many videos of the class are taken for the other one."""
    share: float
    """Which share they are of the videos of their class, from 0 to 1."""


def frequent_confusions(counts: np.ndarray, classes: Sequence[str]) -> list[Confusion]:
    """Lists the most frequent confusions, and of equally frequent ones those of rarer classes first.

    Args:
        counts: int64 [C, C]: how many videos of the class of the row are taken for the class of the column.
        classes: The names of the C classes.

    Returns:
        At most `LISTED` of them.
    """
    totals = counts.sum(1)
    found = [
        Confusion(classes[row], classes[column], int(counts[row, column]), float(counts[row, column] / totals[row]))
        for row, column in np.argwhere(counts).tolist()
        if row != column
    ]
    return sorted(found, key=lambda case: (-case.videos, -case.share, case.true_class, case.other))[:LISTED]


def confusion_figure(
    folder: Path, name: str, counts: np.ndarray, classes: Sequence[str], rows: str, columns: str
) -> Markup:
    """Draws the confusion matrix. Cells are the stronger, the more videos of their row they have.

    The cells of the diagonal have another colour than the others. In a page, both colours follow its light or dark
    form, since cells are shaded by their opacity.

    Args:
        folder: The folder of the report.
        name: The name of the files, as for `save_figure`.
        counts: As for `frequent_confusions`.
        classes: The names of the C classes.
        rows: What a row stands for, such as `true class`.
        columns: What a column stands for.

    Returns:
        The picture for a page.
    """
    count = len(classes)
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    diagonal = np.eye(count, dtype=bool)
    side = 6.8 if count > MOST_NAMES else max(3.2, 2.2 + (0.42 if count <= MOST_NUMBERS else 0.18) * count)
    with new_figure(side + 0.6, side) as (figure, axes):
        axes.set(xlim=(0, count), ylim=(count, 0), aspect="equal", xlabel=columns, ylabel=rows)
        axes.grid(visible=False)
        for color, cells in ((SERIES[0], diagonal), (SERIES[1], ~diagonal)):
            _shade(axes, np.where(cells, shares, 0), color, STRONGEST_BEHIND_NUMBERS if count <= MOST_NUMBERS else 1)
        if count <= MOST_NUMBERS:
            for row, column in zip(*np.nonzero(counts), strict=True):
                text = f"{100 * shares[row, column]:.0f}"
                axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=INK, fontsize=8)
        _name_classes(axes, classes)
        alt = f"Confusion of {count} classes, {rows} against {columns}: {100 * np.trace(counts) / counts.sum():.1f} % "
        alt += "of the videos are on the diagonal. The most frequent confusions are listed beside the picture."
        return save_figure(figure, folder, name, alt)


def _shade(axes: Axes, shares: np.ndarray, color: str, strongest: float) -> None:
    """Fills cells by their share of the row."""
    levels = np.ceil(shares * LEVELS - 1e-9).astype(int)
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])
    codes = [Outline.MOVETO, Outline.LINETO, Outline.LINETO, Outline.LINETO, Outline.CLOSEPOLY]
    for level in np.unique(levels[levels > 0]):
        cells = np.argwhere(levels == level)[:, None, ::-1] + corners  # [cells, 5, 2], x and y
        opacity = FAINTEST + (1 - FAINTEST) * level / LEVELS
        outline = Outline(cells.reshape(-1, 2), np.tile(codes, len(cells)))
        axes.add_patch(PathPatch(outline, facecolor=color, alpha=strongest * opacity, linewidth=0))


def _name_classes(axes: Axes, classes: Sequence[str]) -> None:
    if len(classes) > MOST_NAMES:
        axes.set_xticks([], [])
        axes.set_yticks([], [])
        return
    ticks = np.arange(len(classes)) + 0.5
    names = [printable(name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…") for name in classes]
    size = 9 if len(classes) <= MOST_NUMBERS else 7
    axes.set_xticks(ticks, names, rotation=90, fontsize=size)
    axes.set_yticks(ticks, names, fontsize=size)
    axes.tick_params(length=0, labelcolor=FAINT)
