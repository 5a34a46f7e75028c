"""The account of the clips that a run does not train on, and the one place that says when they are too many."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cacl import distributed
from cacl.clips import ClipBatch, Failure
from cacl.config import Config
from cacl.errors import DataError
from cacl.files import atomic_write, lines_until
from cacl.loaders.catalog.catalog import Catalog

log = logging.getLogger(__name__)

FAILURE_LOG_NAME = "skipped_clips.jsonl"
"""The name of the file in a run folder."""
MAX_FAILURES_IN_A_ROW = 100
"""A run stops when this many clips in a row fail: that is no matter of single files, but of a disk or a network."""
REASONS_SHOWN = 3
"""How many failures the message names that ends a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedClip:
    """A clip that was not trained on: one line of the file."""

    step: int
    """The step that it belonged to, counted from 1."""
    index: int
    """See ClipPlan.index."""
    path: str
    """The path of the video, as in the catalog."""
    reason: str | None
    """Why it failed; None if it loaded, but too few others of its step did."""


class FailureLog:
    """Counts and writes down the clips that are not trained on, and ends the run when too many fail.

    All ranks keep the same account, of the failures of all of them, so that they go on or stop together.
    """

    clips_skipped: int
    """How many clips were not trained on, from the first step of the run."""
    files_failed: Counter[str]
    """How many clips of each file failed, by the path in the catalog."""

    def __init__(self, catalog: Catalog, config: Config, step: int, *, writes: bool) -> None:
        """Reads what an earlier attempt at the run wrote down.

        Args:
            catalog: The training videos.
            config: The configuration of the run.
            step: The number of steps after which the run goes on. Clips of later steps, from an attempt that was cut
                off, are dropped.
            writes: Whether this rank writes the file in the run folder. One rank does.
        """
        self.catalog, self.config, self.writes = catalog, config, writes
        self.file = Path(config.run) / FAILURE_LOG_NAME
        self.clips_skipped, self.files_failed = 0, Counter()
        self.videos_named: set[int] = set()
        self.recent: dict[int, Failure] = {}  # by index
        if self.file.exists():
            self._go_on_from(step)

    @property
    def scalars(self) -> dict[str, float]:
        """What is logged beside the scalars of the steps: how many clips were skipped, once there are any."""
        return {"clips_skipped": self.clips_skipped} if self.clips_skipped else {}

    def log_summary(self) -> None:
        """Logs how many clips were not trained on, of how many files, if there are any."""
        if self.clips_skipped:
            skipped, failed = self.clips_skipped, len(self.files_failed)
            log.info("clips not trained on: %s, files that failed: %s (%s)", skipped, failed, self.file)

    def record_batch(self, step: int, batch: ClipBatch, *, skipped: bool) -> None:
        """Exchanges and records the clips of all ranks that a step is not trained on. All ranks call it.

        Args:
            step: The number of the step, counted from 1.
            batch: The batch of this rank.
            skipped: Whether the step is skipped, so that the clips that loaded are not trained on either.

        Raises:
            DataError: As in `record`.
        """
        unused = list(zip(batch.index.tolist(), batch.video.tolist(), strict=True)) if skipped else []
        ranks = distributed.all_gather_objects((batch.failures, unused))
        failures = [failure for failures, _ in ranks for failure in failures]
        self.record(step, failures, [clip for _, unused in ranks for clip in unused])

    def record(self, step: int, failures: Sequence[Failure], unused: Sequence[tuple[int, int]] = ()) -> None:
        """Records the clips of a step that are not trained on.

        Args:
            step: The number of the step, counted from 1. It rises from call to call.
            failures: The clips that did not load, in rising order of their index.
            unused: The index and the video of each clip that loaded, if the step is skipped.

        Raises:
            DataError: A clip failed and `loader.on_failure` is "fail", or too many clips failed.
        """
        clips = [(f.index, f.video, f.reason) for f in failures] + [(*clip, None) for clip in unused]
        entries = [
            SkippedClip(step=step, index=index, path=self.catalog.videos[video].path, reason=reason)
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
            if failure.video not in self.videos_named:
                self.videos_named.add(failure.video)
                log.info("step %s: skipping clip %s: %s", step, failure.index, failure.reason)
        if unused:
            log.info("step %s: skipped, too few of its clips loaded", step)
        self._check(step, failures)

    def _check(self, step: int, failures: Sequence[Failure]) -> None:
        """Raises DataError if too many videos of a root, or many clips in a row failed.

        Too many are more than `data.max_rejected_share` of the videos of a root, or all of them. Videos count that
        failed within the last epoch, or within as many as visit each video of the root, and as much before it as makes
        whole steps. What failed before the run was resumed does not count: it may have been mended.
        """
        batch_size, allowed = self.config.train.batch_size, self.config.data.max_rejected_share
        end, shares = step * batch_size, self.catalog.shares  # The end of the stream so far.
        one_visit_each = [self.catalog.clips_per_epoch * max(s.videos, s.clips) // s.clips for s in shares]
        remembered = max(*one_visit_each, MAX_FAILURES_IN_A_ROW) + batch_size
        self.recent |= {failure.index: failure for failure in failures}
        self.recent = {index: failure for index, failure in self.recent.items() if index >= end - remembered}
        if all(index in self.recent for index in range(end - MAX_FAILURES_IN_A_ROW, end)):
            what = f"the last {MAX_FAILURES_IN_A_ROW} clips all failed"
            raise self._error(self.catalog, what, {f.video: f for f in self.recent.values()})
        first = 0
        for part, share, clips in zip(self.catalog.parts, shares, one_visit_each, strict=True):
            videos = range(first, first + share.videos)
            first = videos.stop
            recent = (f for index, f in self.recent.items() if index >= end - clips - batch_size)
            failing = {failure.video: failure for failure in recent if failure.video in videos}
            if len(failing) == len(videos):
                raise self._error(part, f"all {len(videos)} training videos fail", failing)
            if len(failing) / len(videos) > allowed:
                some = f"{len(failing)} of {len(videos)} training videos fail"
                raise self._error(part, f"{some}, more than data.max_rejected_share = {allowed} allows", failing)

    def _error(self, catalog: Catalog, what: str, failing: Mapping[int, Failure]) -> DataError:
        key = "data.roots" if self.config.data.roots else "data.root"
        reasons = "; ".join(failure.reason for failure in list(failing.values())[:REASONS_SHOWN])
        reasons += f"; and {len(failing) - REASONS_SHOWN} more" if len(failing) > REASONS_SHOWN else ""
        return DataError(f"{key} = {catalog.root}: {what}: {reasons}. Mend that, and go on with --resume")

    def _count(self, entries: Sequence[SkippedClip]) -> None:
        self.clips_skipped += len(entries)
        self.files_failed.update(entry.path for entry in entries if entry.reason is not None)

    def _go_on_from(self, step: int) -> None:
        kept = lines_until(self.file, step)
        self._count([SkippedClip(**json.loads(line)) for line in kept])
        if self.writes:
            with atomic_write(self.file) as temporary:
                temporary.write_text("".join(kept))
