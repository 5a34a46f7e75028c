"""What a command tells on stderr while it works: messages as lines, progress as bars. Results go to stdout elsewhere.

Every module writes its messages to `logging.getLogger(__name__)`. They are shown while a `Console` is open: by rich,
above the progress bars, on a terminal, and as plain lines elsewhere. With several processes only that of rank 0 opens
an enabled one.
"""

from __future__ import annotations

import logging
from types import TracebackType

from rich import console as rich_console
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from cacl.loaders.catalog.catalog import Catalog

log = logging.getLogger(__name__)

MAX_NAMED_FILES = 10
"""Rejected and missing files that `log_catalog` names, of each."""


class Console:
    """The messages and the progress bars of one command, on stderr.

    Messages of the loggers below "cacl", from INFO upwards, are shown between `__enter__` and `__exit__`.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        """Prepares the console; it is opened by `with`.

        Args:
            enabled: False shows nothing at all, as on every rank but the first.
        """
        self.enabled = enabled
        self._stderr = rich_console.Console(
            stderr=True, quiet=not enabled, highlight=False, markup=False, emoji=False, soft_wrap=True
        )
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._stderr,
            disable=not self.shows_bars,
        )
        self._tasks: dict[str, TaskID] = {}
        self._logger = logging.getLogger("cacl")

    @property
    def shows_bars(self) -> bool:
        """Whether `progress` shows anything: stderr is a terminal, and this is not a silent rank."""
        return self.enabled and self._stderr.is_terminal

    def __enter__(self) -> Console:
        self._handler, self._level = self._make_handler(), self._logger.level
        self._logger.addHandler(self._handler)
        self._logger.setLevel(logging.INFO)
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        self._logger.removeHandler(self._handler)
        self._logger.setLevel(self._level)

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """Moves the bar of a task, and makes it at the first call.

        Args:
            task: The name of the bar, such as "scanning".
            done: How much of the task is done.
            total: How much there is to do.
            note: What stands behind the bar, such as the file at hand.
        """
        if task not in self._tasks:
            self._tasks[task] = self._bars.add_task(task, total=total, note=note)
        self._bars.update(self._tasks[task], completed=done, total=total, note=note)

    def _make_handler(self) -> logging.Handler:
        """Makes what shows the messages: one line on stderr each, and none on other ranks.

        On a terminal rich prints them above the progress bars. Elsewhere rich would wrap them at 80 columns.
        """
        if not self.enabled:
            return logging.NullHandler()  # Without any handler, Python itself would print the warnings.
        if not self._stderr.is_terminal:
            return logging.StreamHandler()
        return RichHandler(
            console=self._stderr,
            show_time=False,
            show_level=False,
            show_path=False,
            highlighter=NullHighlighter(),
            keywords=[],
        )


def log_catalog(catalog: Catalog) -> None:
    """Logs the notes of a scan, and the number and the first names of the files that cannot be used or are missing."""
    for part in catalog.parts:
        if len(catalog.parts) > 1 and (part.notes or part.rejected or part.missing):
            log.info(f"{part.root}:")
        for note in part.notes:
            log.info(f"note: {note}")
        if part.rejected:
            log.info(f"{len(part.rejected)} of {len(part.rejected) + len(part.videos)} files cannot be used:")
        for path, reason in part.rejected[:MAX_NAMED_FILES]:
            log.info(f"  {path}: {reason}")
        if part.missing:
            log.info(f"listed videos that are not there: {len(part.missing)}")
        for name in part.missing[:MAX_NAMED_FILES]:
            log.info(f"  {name}")
        if max(len(part.rejected), len(part.missing)) > MAX_NAMED_FILES:
            log.info(f"  ... `cacl data scan {part.root}` lists all")
