"""What the commands that measure have in common when they tell their figures."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from cacl.errors import UsageError

WIDTH = 132
"""Of tables, in columns, where stdout is no terminal."""


@dataclass(frozen=True, slots=True)
class Spread:
    median: float
    min: float
    max: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        return Spread(statistics.median(values), min(values), max(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Of two series that were measured in turn, the ratio within each repeat: a machine that changes its speed from one
    repeat to the next changes none of them, but does change the ratio of the medians."""
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def number(value: float | None) -> str:
    """Three digits, or all before the point."""
    if value is None:
        return "n/a"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def table() -> Table:
    return Table(box=SIMPLE, pad_edge=False, collapse_padding=True)


def show_table(shown: Table) -> None:
    """On stdout."""
    Console(markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else WIDTH).print(shown)


def make_output_dir(folder: Path) -> None:
    """Makes the folder that figures go into. Raises UsageError if that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {folder}: is no folder and cannot be made one ({error.strerror})") from None


def machine_line(known: dict[str, Any], packages: Sequence[str]) -> str:
    """known: as `machine.describe` tells it."""
    versions = ", ".join(f"{name} {known[name]}" for name in ("python", *packages) if name in known)
    return f"{known['cores']} cores of {known['cpu']}; {versions}; cacl {known['commit'] or known.get('cacl')}"
