"""Results go to stdout, for people or for programs, and messages to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cacl.reports.training import TrainingReport


def is_first_process() -> bool:
    """Returns whether this process is the one of rank 0, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def print_result(result: Any, as_json: bool, print_text: Callable[[], None]) -> None:
    """Prints the result of a command. With several processes only that of rank 0 prints.

    Args:
        result: The result as plain values that JSON can hold.
        as_json: Whether to print one JSON document instead of text.
        print_text: Prints the result for people.
    """
    if not is_first_process():
        return
    try:
        if as_json:
            print(json.dumps(result, indent=2))
        else:
            print_text()
        sys.stdout.flush()
    except BrokenPipeError:  # The reader has seen enough, as in `cacl ... | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table on stdout, with its first column to the left and the others to the right.

    Args:
        header: The names of the columns.
        rows: The cells of each row.
    """
    from rich.console import Console
    from rich.table import Table

    shown = Table()
    for number, name in enumerate(header):
        shown.add_column(name, justify="right" if number else "left")
    for row in rows:
        shown.add_row(*row)
    # Without a terminal rich would take 80 columns, which some of the tables do not fit into.
    Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else 100).print(shown)


def print_message(message: str) -> None:
    """Prints a line about what a command does. With several processes only that of rank 0 prints."""
    if is_first_process():
        print(message, file=sys.stderr)


@contextmanager
def report_on(folder: Path | None, run: str) -> Iterator[TrainingReport | None]:
    """Yields what writes the page of a training in the block, and names the page on stderr.

    Args:
        folder: The folder of the page, which is made; None: there is no page.
        run: The run folder.

    Raises:
        UsageError: No such folder can be made.
    """
    if folder is None:
        yield None
        return
    from cacl.reports.page import PAGE_NAME, make_report_folder
    from cacl.reports.training import TrainingReport

    with TrainingReport(make_report_folder(folder), Path(run)) as report:
        print_message(f"{folder / PAGE_NAME} shows this training from its first log line on")
        yield report
