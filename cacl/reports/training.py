"""The page of a training, which `--report` writes while it goes on: curves, warnings and sample clips."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from cacl import config as configuration
from cacl.checkpoints.checkpoint import first_line
from cacl.clips import ClipBatch
from cacl.config import Config
from cacl.errors import CaclError
from cacl.loaders.catalog.catalog import Catalog
from cacl.reports.curves import LogLine, draw_curves, read_metrics, summarize_scalars
from cacl.reports.page import write_page
from cacl.reports.scalar_groups import SECTIONS, largest_rank
from cacl.reports.training_samples import Samples, take_samples
from cacl.training.embedding_warnings import find_problems, what_helps
from cacl.training.run_state import RunState
from cacl.training.train_state import TrainState

log = logging.getLogger(__name__)

RELOAD_SECONDS = 30
"""How often the page of a run that goes on is written and loaded anew, at most."""
LARGEST_SHARE = 0.03
"""The share of the time that writing the page may take: after a slow one the next comes later."""


class Progress(NamedTuple):
    """How far a run is."""

    steps: int
    """The steps of the whole run; 0 where that is not known."""
    ended: str
    """How it ended, in a sentence; empty while it goes on."""


class TrainingReport:
    """Writes the page of a run, whenever the run has logged something and enough time has passed, and at the end.

    It is the `LogWatcher` of a training that runs in its block.
    """

    def __init__(self, folder: Path, run: Path) -> None:
        """Writes nothing yet.

        Args:
            folder: The folder of the page, which exists.
            run: The run folder.
        """
        self.folder, self.run = folder, run
        self._samples: Samples | None = None
        self._steps = 0
        self._due = 0.0

    def __enter__(self) -> TrainingReport:
        return self

    def __call__(self, state: RunState[Any], catalog: Catalog, batch: ClipBatch, last: bool) -> None:
        """Writes the page if it is time to. See `LogWatcher`.

        Args:
            state: The state of the run, which stays as it is.
            catalog: The training videos.
            batch: The clips of this rank.
            last: Whether this is the last step; its page is written when the block ends.
        """
        self._steps = state.num_steps
        began = time.monotonic()
        if not last and began < self._due:
            return
        if isinstance(state, TrainState):
            with _training_goes_on():
                self._samples = take_samples(state, catalog, batch)
        if not last:
            self._write("")
            ended = time.monotonic()
            self._due = ended + max(RELOAD_SECONDS, (ended - began) / LARGEST_SHARE)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A run that is complete already, or that never began, was not watched. The first has a page, too.
        watched, is_main = self._steps > 0, os.environ.get("RANK", "0") == "0"
        if watched or (error is None and is_main):
            self._write(_ending(error))

    def _write(self, ended: str) -> None:
        with _training_goes_on():
            write_training_page(self.folder, self.run, self._samples, Progress(self._steps, ended))


@contextmanager
def _training_goes_on() -> Iterator[None]:
    """Lets nothing that fails about a page end a training: it is named, and the run goes on without the page."""
    try:
        yield
    except (CaclError, OSError) as error:
        log.warning("warning: --report: %s", error)
    except Exception as error:
        log.warning("warning: --report: the page cannot be made (%s: %s)", type(error).__name__, first_line(error))


def write_training_page(folder: Path, run: Path, samples: Samples | None, progress: Progress) -> Path:
    """Writes the page of a run: a function of what stands in the run folder, and of the sample clips.

    Args:
        folder: The folder of the page, which exists.
        run: The run folder.
        samples: Clips of one of its steps; None: the page has none, as with labels.
        progress: How far the run is.

    Returns:
        The page.
    """
    config, lines = configuration.load(run / "config.toml", [], {}), read_metrics(run)
    figures = draw_curves(lines, config, folder)
    last = lines[-1] if lines else {}
    step = int(last.get("step") or 0)
    return write_page(
        folder,
        "training.html",
        title=f"Training {config.name}",
        run=str(run),
        step=step,
        steps=progress.steps or step,
        epoch=last.get("epoch"),
        left=_time_left(last, config, progress.steps - step),
        ended=progress.ended,
        reload_seconds=RELOAD_SECONDS,
        problems=_problems(lines, config),
        helps=what_helps(config.contrast),
        sections=[(name, [figure for figure in figures if figure.section == name]) for name in SECTIONS],
        scalars=summarize_scalars(lines, config),
        lines=len(lines),
        samples=samples,
        frames=config.clip.frames,
        config=configuration.to_toml(config),
    )


def _ending(error: BaseException | None) -> str:
    if error is None:
        return "The run has ended."
    if isinstance(error, CaclError):
        return f"The run was ended early: {error}"
    return f"The run was ended early by {type(error).__name__}: {error}"


def _time_left(last: LogLine, config: Config, steps: int) -> str:
    """How long the steps that are left take at the speed of the last ones, in words; empty where that is not known."""
    speed = last.get("clips_per_second")
    if not speed or steps <= 0:
        return ""
    minutes = steps * config.train.batch_size / speed / 60
    if minutes < 1:
        return "less than a minute"
    return f"about {minutes:.0f} min" if minutes < 120 else f"about {minutes / 60:.0f} hours"


def _problems(lines: Sequence[LogLine], config: Config) -> list[str]:
    """What `EmbeddingWarnings` warns of, each problem once, with its first and its last step."""
    rank, found = largest_rank(config), {}
    for line in lines:
        finite = {name: value for name, value in line.items() if value is not None}
        for problem, evidence in find_problems(finite, rank, config.contrast).items():
            found.setdefault(problem, []).append((int(line["step"] or 0), evidence))
    told = []
    for problem, steps in found.items():
        (first, _), (latest, evidence) = steps[0], steps[-1]
        lasting = latest == lines[-1]["step"]
        when = f"since step {first}" if lasting else f"in {len(steps)} log lines from step {first} to {latest}"
        told.append(f"{when[0].upper()}{when[1:]}, {problem} {evidence}")
    return told
