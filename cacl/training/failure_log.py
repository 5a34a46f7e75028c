"""The account of the clips that a run does not train on, and the one place that says when they are too many."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cacl.clips import Failure
from cacl.config import Config
from cacl.errors import DataError
from cacl.loaders.catalog.catalog import Catalog

NAME = "failures.jsonl"
IN_A_ROW = 100
"""So many clips of the stream do not fail one after the other because of bad files: a disk or a network went away."""
NAMED = 3
"""Failures that the last message names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A clip that was not trained on: one line of the account."""

    step: int
    index: int
    """See ClipPlan.index."""
    path: str
    """Of the video, as in the catalog."""
    reason: str | None
    """Why it failed; None: it loaded, but too few others of its step did."""


class FailureLog:
    """Kept by all ranks alike, from the failures of all of them, so that they go on or stop together."""

    clips: int
    """How many were not trained on, from the first step of the run."""
    files: Counter[str]
    """How many clips of each file failed."""

    def __init__(
        self, catalog: Catalog, config: Config, step: int, say: Callable[[str], None], *, writes: bool
    ) -> None:
        """step: the one that the run goes on from; entries of later ones, from an attempt that was cut off, are
        dropped. writes: for one of the ranks, which keeps the account in the folder of the run.
        """
        self.catalog, self.config, self.say, self.writes = catalog, config, say, writes
        self.file = Path(config.run) / NAME
        self.clips, self.files = 0, Counter()
        self.told: set[int] = set()
        self.recent: dict[int, Failure] = {}  # by index
        if self.file.exists():
            self._go_on_from(step)

    def enter(self, step: int, failures: Sequence[Failure], unused: Sequence[tuple[int, int]] = ()) -> None:
        """Accounts for the clips of a step, in rising order, that are not trained on.

        unused: index and video of those that loaded, if the step is passed over. Raises DataError at the first failure
        if `loader.on_failure` says so, or when too many failed.
        """
        clips = [(f.index, f.video, f.reason) for f in failures] + [(*clip, None) for clip in unused]
        entries = [
            Entry(step=step, index=index, path=self.catalog.videos[video].path, reason=reason)
            for index, video, reason in clips
        ]
        self._count(entries)
        if self.writes:
            with self.file.open("a") as file:
                file.writelines(json.dumps(asdict(entry)) + "\n" for entry in entries)
                file.flush()
                os.fsync(file.fileno())  # a checkpoint of this step comes later
        if self.config.loader.on_failure == "fail":
            raise DataError(f'{failures[0].reason}; loader.on_failure = "skip" goes on without it')
        for failure in failures:
            if failure.video not in self.told:
                self.told.add(failure.video)
                self.say(f"step {step}: skipping clip {failure.index}: {failure.reason}")
        if unused:
            self.say(f"step {step}: passed over, too few of its clips loaded")
        self._check(step, failures)

    def _check(self, step: int, failures: Sequence[Failure]) -> None:
        """Raises DataError if more than `data.max_rejected` of the videos, or all of them, failed within the last epoch
        (and as much before it as makes whole steps), or many clips in a row.

        What failed before the run was resumed does not count: it may have been mended.
        """
        videos, batch, allowed = len(self.catalog.videos), self.config.train.batch_size, self.config.data.max_rejected
        end = step * batch  # of the stream so far
        self.recent |= {failure.index: failure for failure in failures}
        self.recent = {i: failure for i, failure in self.recent.items() if i >= end - max(videos + batch, IN_A_ROW)}
        failing = {failure.video: failure for i, failure in self.recent.items() if i >= end - videos - batch}
        if all(i in self.recent for i in range(end - IN_A_ROW, end)):
            what = f"the last {IN_A_ROW} clips all failed"
        elif len(failing) == videos:
            what = f"all {videos} training videos fail"
        elif len(failing) / videos > allowed:
            what = f"{len(failing)} of {videos} training videos fail, more than data.max_rejected = {allowed} allows"
        else:
            return
        reasons = "; ".join(failure.reason for failure in list(failing.values())[:NAMED])
        reasons += f"; and {len(failing) - NAMED} more" if len(failing) > NAMED else ""
        raise DataError(f"data.root = {self.catalog.root}: {what}: {reasons}. Mend that, and go on with --resume")

    def _count(self, entries: Sequence[Entry]) -> None:
        self.clips += len(entries)
        self.files.update(entry.path for entry in entries if entry.reason is not None)

    def _go_on_from(self, step: int) -> None:
        kept = []
        with self.file.open() as lines:
            for line in lines:
                if not line.endswith("}\n"):
                    break  # torn when the machine went down, and so written after the checkpoint
                entry = Entry(**json.loads(line))
                if entry.step > step:
                    break
                kept.append(line)
                self._count([entry])
        if self.writes:
            temporary = self.file.with_name(f".{NAME}.writing")
            temporary.write_text("".join(kept))
            os.replace(temporary, self.file)
