"""The scalars of a training as figures and as a table, from the file in the run folder that keeps them all."""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cacl.config import Config
from cacl.reporting.sinks.jsonl import METRICS_NAME
from cacl.reports.figures import FAINT, SERIES, figure_names, new_figure, save_figure
from cacl.reports.scalar_groups import Group, describe_group, group_scalars, reference_line

LogLine: TypeAlias = Mapping[str, float | None]
"""The scalars of a logging step by name, with `step` among them. None stands for what is infinite or not a number."""

MOST_POINTS = 1000
"""The points of a curve; of longer ones, neighbours are averaged."""
MARKED_POINTS = 40
"""A curve of at most so many points shows each of them."""
WIDTH, HEIGHT, LEGEND_HEIGHT = 4.2, 2.5, 0.19
"""Inches of a figure, and of each line of its legend on top of it. A phone shows it nearly in its full size."""
SHORT_LABEL = 16
"""Letters of labels of which two stand beside each other."""
LABEL_LENGTH = 26
"""Letters that fit along an axis. The heading of the figure tells the whole of what is longer than two lines."""


class Curve(NamedTuple):
    """A scalar over the steps."""

    label: str
    """Its name in the figure; empty where it is the only one."""
    steps: np.ndarray
    """The steps at which it was logged."""
    values: np.ndarray
    """float64, NaN where it was infinite or not a number."""


class CurveFigure(NamedTuple):
    """A figure as the page shows it."""

    title: str
    section: str
    caption: str
    svg: Markup


def read_metrics(run: Path) -> list[LogLine]:
    """Reads the scalars of a run.

    Args:
        run: The run folder.

    Returns:
        The log lines; none where nothing was logged yet. A line that was cut off is left out.
    """
    file = run / METRICS_NAME
    if not file.exists():
        return []
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.endswith("}\n")]


def draw_curves(log: Sequence[LogLine], config: Config, folder: Path) -> list[CurveFigure]:
    """Draws all scalars, those that belong together in one figure, as PNG, SVG, and for the page.

    Args:
        log: The log lines, in the order of their steps.
        config: The configuration of the run.
        folder: The folder of the report.

    Returns:
        The figures, in the order of the page.

    Raises:
        DataError: A file cannot be written.
    """
    last_step = log[-1]["step"] or 0 if log else 0
    groups = group_scalars(_names(log), config)
    return [
        _draw(name, group, [_curve(scalar, group, log) for scalar in groups[group]], last_step, config, folder)
        for name, group in zip(figure_names(groups), groups, strict=True)
    ]


def summarize_scalars(log: Sequence[LogLine], config: Config) -> list[tuple[str, list[str]]]:
    """Returns a row for each scalar, in the order of the figures: its name, and three values as text.

    Args:
        log: The log lines.
        config: The configuration of the run.

    Returns:
        The name, and the last, the lowest and the highest value. The last is that of the last line that has the scalar.
    """
    rows = []
    for name in [name for group in group_scalars(_names(log), config).values() for name in group]:
        values = [line[name] for line in log if name in line]
        finite = [value for value in values if value is not None]
        shown = [values[-1], min(finite, default=None), max(finite, default=None)]
        rows.append((name, ["not finite" if value is None else f"{value:.4g}" for value in shown]))
    return rows


def _names(log: Sequence[LogLine]) -> list[str]:
    return list(dict.fromkeys(name for line in log for name in line))


def thin(steps: np.ndarray, values: np.ndarray, most: int = MOST_POINTS) -> tuple[np.ndarray, np.ndarray, int]:
    """Averages neighbouring points of a curve until there are few enough of them.

    Args:
        steps: Numbers [N], rising.
        values: float64 [N]. NaN does not count, unless there is nothing else to average.
        most: The largest number of points that are left.

    Returns:
        Steps and values [M], and how many points were averaged for each of them; the last may have fewer.
    """
    size = math.ceil(len(steps) / most)
    starts = np.arange(0, len(steps), size)
    finite = np.isfinite(values)
    counts = np.add.reduceat(finite, starts, dtype=np.int64)
    sums = np.add.reduceat(np.where(finite, values, 0.0), starts)
    means = np.divide(sums, counts, out=np.full(len(starts), np.nan), where=counts > 0)
    lengths = np.diff(starts, append=len(steps))
    return np.add.reduceat(steps, starts) / lengths, means, size


def _curve(name: str, group: str, log: Sequence[LogLine]) -> Curve:
    points = [(line["step"], line[name]) for line in log if name in line]
    steps, values = np.array(points, np.float64).T  # None becomes NaN.
    label = name if group == "loss" else name.partition("/")[2]
    return Curve(_spoken(label), steps, values)


def _spoken(label: str) -> str:
    """`cnn_query.transformer_key` as "CNN query, transformer key"."""
    return re.sub(r"\bcnn\b", "CNN", label.replace("_", " ").replace(".", ", "))


def _draw(
    name: str, group: str, curves: Sequence[Curve], last_step: float, config: Config, folder: Path
) -> CurveFigure:
    about = describe_group(group)
    labels = [curve.label for curve in curves]
    reference = reference_line(group, config)
    entries = [label for label in [*labels, reference[1] if reference else ""] if label]
    columns = 2 if max(map(len, entries), default=0) <= SHORT_LABEL else 1
    height = HEIGHT + LEGEND_HEIGHT * math.ceil(len(entries) / columns)
    size = 1
    with new_figure(WIDTH, height) as (figure, axes):
        for number, curve in enumerate(curves):
            steps, values, size = thin(curve.steps, curve.values)
            _draw_curve(axes, steps, values, curve.label, number)
        if reference:
            axes.axhline(reference[0], color=FAINT, linestyle=":", linewidth=1.2, label=reference[1])
        _set_up_axes(axes, about, last_step)
        if entries:
            figure.legend(loc="outside upper left", ncols=columns)
        svg = save_figure(figure, folder, name, _alternative(about.title, curves, reference))
    return CurveFigure(about.title, about.section, _caption(about, curves, size), svg)


def _draw_curve(axes: Axes, steps: np.ndarray, values: np.ndarray, label: str, number: int) -> None:
    finite = np.isfinite(values)
    before, after = np.r_[False, finite[:-1]], np.r_[finite[1:], False]
    alone = finite & ~before & ~after  # between gaps, where there is no line
    marked = finite if len(values) <= MARKED_POINTS else alone
    style = "-" if number < len(SERIES) else "--"  # Colours come again after six curves.
    # A label that begins with an underscore is left out of the legend.
    shown = {"marker": "o", "markersize": 3, "markevery": marked.nonzero()[0].tolist()} if marked.any() else {}
    axes.plot(steps, values, linestyle=style, linewidth=1.4, label=label or "_", **shown)


def _set_up_axes(axes: Axes, about: Group, last_step: float) -> None:
    axes.set_xlabel("step")
    axes.set_ylabel("\n".join(textwrap.wrap(about.title, LABEL_LENGTH, max_lines=2, placeholder="…")))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    axes.set_xlim(0, 1.02 * last_step)  # the same in all figures
    if about.is_share:
        axes.set_ylim(-0.02, 1.03)  # A curve along an end is not cut.
    elif about.begins_at_zero:
        axes.set_ylim(bottom=0)


def _alternative(title: str, curves: Sequence[Curve], reference: tuple[float, str] | None) -> str:
    """What the figure shows, in words."""
    first, last = min(curve.steps[0] for curve in curves), max(curve.steps[-1] for curve in curves)
    told = [
        f"Curves of {title} from step {first:.0f} to {last:.0f}." if last > first else f"{title} at step {last:.0f}."
    ]
    for curve in curves:
        finite = curve.values[np.isfinite(curve.values)]
        course = " to ".join(f"{value:.4g}" for value in dict.fromkeys([*finite[:1], *finite[-1:]])) or "never finite"
        told.append(f"{curve.label or title}: {course}.")
    if reference:
        told.append(f"Dotted line, {reference[1]}: {reference[0]:.3g}.")
    return " ".join(told)


def _caption(about: Group, curves: Sequence[Curve], size: int) -> str:
    missing = sum(int(np.isnan(curve.values).sum()) for curve in curves)
    caption = about.caption
    if size > 1:
        caption += f" Each point is the mean of {size} log lines."
    if missing:
        caption += f" Values that are infinite or not a number, and left out: {missing}."
    return caption
