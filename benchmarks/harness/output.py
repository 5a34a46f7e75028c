"""How benchmarks print and write their results."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from cacl.errors import UsageError
from cacl.files import atomic_write

TABLE_WIDTH = 132
"""Columns of text that a table may take where stdout is no terminal."""

Row = TypeVar("Row")


class Column(NamedTuple, Generic[Row]):
    """A column of a table."""

    heading: str
    cell: Callable[[Row], str]
    """Makes the text of a row in this column."""
    numeric: bool = True
    """Whether the column is aligned to the right."""
    min_width: int | None = None


def print_table(rows: Iterable[Row], columns: Sequence[Column[Row]]) -> None:
    """Prints a table on stdout."""
    table = Table(box=SIMPLE, pad_edge=False, collapse_padding=True)
    for column in columns:
        justify = "right" if column.numeric else "left"
        table.add_column(column.heading, justify=justify, no_wrap=True, min_width=column.min_width)
    for row in rows:
        table.add_row(*(column.cell(row) for column in columns))
    width = None if sys.stdout.isatty() else TABLE_WIDTH
    Console(markup=False, emoji=False, highlight=False, width=width).print(table)


def format_number(value: float | None) -> str:
    """The value with three digits, or with all of them before the point; `n/a` for None."""
    if value is None:
        return "n/a"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def describe_machine(known: dict[str, Any], packages: Sequence[str]) -> str:
    """One line about the machine that a result comes from.

    Args:
        known: What `machine.describe` returned, with `gpu` and `cuda` where a GPU was measured.
        packages: The packages whose versions are named, if they were installed.
    """
    versions = ", ".join(f"{name} {known[name]}" for name in ("python", *packages) if name in known)
    gpu = f"{known['gpu']}, CUDA {known['cuda']}; " if known.get("gpu") else ""
    return f"{gpu}{known['cores']} cores of {known['cpu']}; {versions}; cacl {known['commit'] or known.get('cacl')}"


def make_output_dir(folder: Path) -> None:
    """Makes the folder that results are written to.

    Raises:
        UsageError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {folder}: is no folder and cannot be made one ({error.strerror})") from None


def write_json(file: Path, result: dict[str, Any]) -> None:
    """Writes a result for programs."""
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n")
