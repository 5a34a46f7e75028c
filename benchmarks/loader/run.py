"""One loader on one set of videos: whether it shows the clips that were asked for, and then how fast it loads them."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch

from cacl.benchmarks.harness import machine
from cacl.benchmarks.harness.comparison import Contender, ContenderResult, ContenderRun
from cacl.benchmarks.harness.stats import Spread
from cacl.benchmarks.loader.reference import Reference
from cacl.config import Config, override
from cacl.loaders.backends.select import Backend
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.sampling.sampler import ClipSampler

TOLERANCE = 3.0
"""How far a clip may be from the reference, in levels of 255."""

DecodedPart: TypeAlias = Literal["from seek point", "whole file", "unknown"]
"""What a loader decodes for a clip: from the nearest seek point to the last frame needed, or all of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderContender(Contender[[Catalog, Config], Backend]):
    """A loader, prepared from a catalog and a configuration."""

    tolerance: float | None = TOLERANCE
    """How far a clip may be from the reference, in levels of 255; None for a loader that shows no views."""
    own_colors: bool = False
    """Whether it draws colours of its own. Such a loader is compared with the reference without any."""
    files: tuple[str, ...] = ("raw", "prepared")
    """The kinds of files that it is measured on."""
    decodes: DecodedPart = "from seek point"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderStats:
    """How fast a loader was, over all repeats."""

    clips_per_second: Spread
    each_clips_per_second: tuple[float, ...]
    """One value per repeat."""
    decoded_frames_per_second: float | None
    """None if it is not known what the loader decodes."""
    returned_frames_per_second: float
    """Frames of the clips. That views and shuffled copies hold each of them several times does not count."""
    cores: float | None
    """Processor time over time, with the processor time of worker processes; None where the system does not tell."""
    core_ms_per_clip: float | None
    """Processor time in milliseconds, which other work on the same machine hardly changes."""
    first_batch_seconds: float
    """Time to the first batch of the warm-up, in which threads or processes start."""
    wait_ms_p50: float | None
    """The median of the times from one batch to the next, in milliseconds; None with one batch per repeat."""
    wait_ms_p99: float | None
    """The 99th percentile of the same."""
    bytes_read_per_clip: float | None
    dropped_clips: int
    """Clips that were asked for and did not come."""


@dataclass(slots=True, kw_only=True)
class LoaderResult(ContenderResult[LoaderStats]):
    """The result of a loader on one kind of files. The ratio is one of clips per second."""

    files: str
    """`raw` or `prepared`."""
    tolerance: float | None
    difference: float | None
    """Mean absolute difference of the worst clip to the reference, in levels of 255; None if it was not compared."""


class VideoSet:
    """The videos of one kind of files, and the clips that every loader takes of them.

    The clips are planned here and not by `ClipLoader`, since rivals and parts of our loader are to load the same ones.
    """

    def __init__(self, files: str, catalog: Catalog, config: Config, steps: int) -> None:
        self.files, self.catalog, self.config = files, catalog, config
        sampler = ClipSampler(catalog.videos, config.clip, config.augment, config.seed)
        self.plans = list(sampler.batches(0, steps, config.train.batch_size))
        self.reference = cache(partial(Reference, catalog))

    def decoded_frames_per_clip(self, decodes: DecodedPart) -> float | None:
        """The mean number of frames that a loader decodes for a clip; None if that is not known."""
        if decodes == "unknown":
            return None
        plans = [plan for batch in self.plans for plan in batch]
        videos = [self.catalog.videos[plan.video] for plan in plans]
        if decodes == "whole file":  # All moments of the clip are taken of it.
            return statistics.mean(video.frames for video in videos)
        return statistics.mean(
            sum(moment.frame_numbers[-1] + 1 - video.decoding_start(moment.start) for moment in plan.moments)
            for plan, video in zip(plans, videos, strict=True)
        )


class LoaderMeasurement(NamedTuple):
    """What was measured while all clips were loaded once."""

    seconds: float
    waits: list[float]
    """Seconds until each batch, from the one before."""
    clips: int
    used: machine.Usage | None


class LoaderRun(ContenderRun[LoaderMeasurement]):
    """A loader on one kind of files."""

    contender: LoaderContender

    def __init__(self, contender: LoaderContender, videos: VideoSet) -> None:
        super().__init__(contender)
        self.videos = videos
        self.difference: float | None = None
        self.backend: Backend | None = None

    def load_reference(self) -> None:
        """Decodes the clips that the check needs.

        Raises:
            DataError: The reference itself cannot load one of them.
        """
        if self.contender.tolerance is not None and not self.reason:
            self.videos.reference(self._checked_config)

    def check(self) -> str:
        """Compares a few clips with the reference.

        Returns:
            What is wrong with them, or an empty string.
        """
        if self.contender.tolerance is None:
            return ""
        # This is not the backend that is timed: the workers of that one start in the warm-up.
        backend = self.contender.prepare(self.videos.catalog, self._checked_config)
        reference = self.videos.reference(self._checked_config)
        self.difference, fault = reference.compare(backend, self.contender.tolerance)
        return self._without_folder(fault)

    @property
    def _checked_config(self) -> Config:
        """The configuration of the check, in which no loader draws colours of its own."""
        if self.contender.own_colors:
            return override(self.videos.config, ["augment.color_jitter_prob=0.0", "augment.grayscale_prob=0.0"])
        return self.videos.config

    def warm_up(self) -> None:
        """Builds the loader and loads all clips once."""
        self.backend = self.contender.prepare(self.videos.catalog, self.videos.config)
        self.first_batch_seconds = self._load_all(self.backend).waits[0]

    def measure(self) -> LoaderMeasurement:
        """Times how long it takes to load all clips once."""
        assert self.backend is not None
        # Other loaders had the machine since: the system may have taken away memory that lay idle, which it does not do
        # during a long run. A few batches bring it back.
        lead = self.videos.plans[: self.videos.config.loader.prefetch + 2]
        deque(self.backend.batches(lead), maxlen=0)
        return self._load_all(self.backend)

    def _load_all(self, backend: Backend) -> LoaderMeasurement:
        waits, clips = [], 0
        before, start = machine.usage(), time.perf_counter()
        waiting_since = start
        for batch in backend.batches(self.videos.plans):
            if batch.query.is_cuda:
                torch.cuda.synchronize()
            now = time.perf_counter()
            waits.append(now - waiting_since)
            waiting_since, clips = now, clips + len(batch)
        seconds, after = time.perf_counter() - start, machine.usage()
        used = after.since(before) if before and after else None
        return LoaderMeasurement(seconds, waits, clips, used)

    @property
    def values(self) -> list[float]:
        """Clips per second of each repeat."""
        return [m.clips / m.seconds for m in self.measurements]

    def describe_error(self, error: Exception) -> str:
        """The last line of the message: an error in a worker process brings its traceback along."""
        return self._without_folder((str(error).strip() or type(error).__name__).splitlines()[-1])

    def release(self) -> None:
        """Lets the worker threads or processes go."""
        self.backend = None

    def result(self, baseline: ContenderRun[LoaderMeasurement] | None) -> LoaderResult:
        """The result of the loader, relative to the baseline if there is one."""
        return LoaderResult(
            contender=self.contender.name,
            description=self.contender.description,
            files=self.videos.files,
            tolerance=self.contender.tolerance,
            difference=self.difference,
            reason=self.reason,
            stats=None if self.reason else self._stats(),
            ratio=self.ratio_to(baseline) if baseline else None,
        )

    def _without_folder(self, text: str) -> str:
        """Results name no folder of this machine."""
        return text.replace(f"{self.videos.catalog.root}/", "")

    def _stats(self) -> LoaderStats:
        videos, measured = self.videos, self.measurements
        seconds, clips = sum(m.seconds for m in measured), sum(m.clips for m in measured)
        spread = Spread.of(self.values)
        decoded = videos.decoded_frames_per_clip(self.contender.decodes)
        used = [m.used for m in measured if m.used]
        processor_seconds = sum(u.processor_seconds for u in used)
        waits_ms = [1000 * wait for m in measured for wait in m.waits[1:]]
        return LoaderStats(
            clips_per_second=spread,
            each_clips_per_second=tuple(self.values),
            decoded_frames_per_second=decoded and spread.median * decoded,
            returned_frames_per_second=spread.median * len(videos.plans[0][0].moments) * videos.config.clip.frames,
            cores=processor_seconds / seconds if used else None,
            core_ms_per_clip=1000 * processor_seconds / clips if used else None,
            first_batch_seconds=self.first_batch_seconds,
            wait_ms_p50=_percentile(waits_ms, 50),
            wait_ms_p99=_percentile(waits_ms, 99),
            bytes_read_per_clip=sum(u.bytes_read for u in used) / clips if used else None,
            dropped_clips=len(measured) * sum(map(len, videos.plans)) - clips,
        )


def _percentile(values: Sequence[float], percent: float) -> float | None:
    return float(np.percentile(values, percent)) if values else None
