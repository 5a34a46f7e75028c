"""What a run tells: a live display on a terminal, one plain line per log step elsewhere, and TensorBoard scalars."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from cacl.loaders.catalog.catalog import Catalog

SHOWN = 10
"""Rejected and missing files that are named, of each."""


class Report:
    """Messages and progress go to stderr; results, on stdout, are for the command to print."""

    def __init__(self, run: Path | None = None, *, enabled: bool = True) -> None:
        self.run, self.enabled = run, enabled
        self.console = Console(
            stderr=True, quiet=not enabled, highlight=False, markup=False, emoji=False, soft_wrap=True
        )
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=not (enabled and self.console.is_terminal),
        )
        self.tasks: dict[str, TaskID] = {}
        self.writer: SummaryWriter | None = None
        self.logger = logging.getLogger("cacl")

    def __enter__(self) -> Report:
        self.handler = self._make_handler()
        self.level = self.logger.level
        self.logger.addHandler(self.handler)
        self.logger.setLevel(logging.INFO)
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()
        self.logger.removeHandler(self.handler)
        self.logger.setLevel(self.level)
        if self.writer is not None:
            self.writer.close()

    def say(self, text: str) -> None:
        log.info(text)

    def _make_handler(self) -> logging.Handler:
        """Makes what shows the messages of the loggers below "cacl": one line on stderr each, and none on other ranks.

        On a terminal rich prints them above the progress bars. Elsewhere rich would wrap them at 80 columns.
        """
        if not self.enabled:
            return logging.NullHandler()  # Without any handler, Python itself would print the warnings.
        if not self.console.is_terminal:
            return logging.StreamHandler()
        return RichHandler(
            console=self.console,
            show_time=False,
            show_level=False,
            show_path=False,
            highlighter=NullHighlighter(),
            keywords=[],
        )

    def advance(self, what: str, done: int, total: int, note: str = "") -> None:
        """Moves the bar of this name, on a terminal."""
        if what not in self.tasks:
            self.tasks[what] = self.progress.add_task(what, total=total, note=note)
        self.progress.update(self.tasks[what], completed=done, total=total, note=note)

    def scanned(self, done: int, total: int, path: str) -> None:
        self.advance("scanning", done, total, path)

    def found(self, catalog: Catalog) -> None:
        """Passes on the notes of a scan, and names the files that are left out or missing, and how many there are."""
        for note in catalog.notes:
            self.say(f"note: {note}")
        if catalog.rejected:
            self.say(f"{len(catalog.rejected)} of {len(catalog.rejected) + len(catalog.videos)} files cannot be used:")
        for path, reason in catalog.rejected[:SHOWN]:
            self.say(f"  {path}: {reason}")
        if catalog.missing:
            self.say(f"listed videos that are not there: {len(catalog.missing)}")
        for name in catalog.missing[:SHOWN]:
            self.say(f"  {name}")
        if max(len(catalog.rejected), len(catalog.missing)) > SHOWN:
            self.say(f"  ... `cacl data scan {catalog.root}` lists all")

    def start(self, step: int, steps: int) -> None:
        """Opens the log of the run; entries after `step` from an earlier attempt are dropped."""
        if self.enabled and self.run is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.run), purge_step=step)
        self.first, self.steps, self.started = step, steps, time.monotonic()
        self.advance("training", step, steps)

    def log(self, step: int, scalars: dict[str, float]) -> None:
        similarities = [value for name, value in scalars.items() if name.startswith("similarity/")]
        parts = [f"loss {scalars['loss']:.3f}"]
        if similarities:
            parts += [f"contrast {scalars['contrast']:.3f}", f"positives {sum(similarities) / len(similarities):.2f}"]
        if "order_accuracy" in scalars:
            parts += [f"order {scalars['order']:.3f}", f"order accuracy {scalars['order_accuracy']:.2f}"]
        parts += [f"{scalars['clips_per_second']:.1f} clips/s", f"data wait {scalars['data_wait_share']:.0%}"]
        if "clips_skipped" in scalars:
            parts.append(f"skipped {scalars['clips_skipped']:.0f}")
        note = ", ".join(parts)
        self.advance("training", step, self.steps, note)
        if self.progress.disable:
            left = (time.monotonic() - self.started) / (step - self.first) * (self.steps - step)
            self.say(f"step {step}/{self.steps}, epoch {scalars['epoch']:.1f}: {note}, {left:.0f} s left")
        if self.writer is not None:
            for name, value in scalars.items():
                self.writer.add_scalar(name, value, step)
