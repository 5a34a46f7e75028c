"""One loader on one kind of files: whether it shows what was asked for, and then how fast.

What it should show is what the `reference` backend shows. A contender that shows other frames or other pictures is not
timed, and the reason stands in the place of its figures.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from cacl.benchmarks.harness import machine
from cacl.benchmarks.harness.stats import Spread
from cacl.clips import ClipBatch, ClipPlan, VideoRecord
from cacl.config import Config, override
from cacl.errors import DataError
from cacl.loaders.backends import cpu
from cacl.loaders.backends.select import Backend, build_backend
from cacl.loaders.backends.thread_pool import ThreadPoolBackend
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.decode.fragments import read_fragments
from cacl.loaders.decode.raw import decode_frames
from cacl.loaders.decode.storage import Location
from cacl.loaders.sampling.sampler import ClipSampler

CHECKED_CLIPS, TIMED_CLIPS = 8, 32
"""Clips that are compared with the reference, and clips whose stages are timed one by one."""
TOLERANCE = 3.0
"""In levels of 255."""
SHIFTS = {0: "", -1: "earlier", 1: "later"}
"""Frames by which the reference is moved to see what a contender shows."""
CLEARLY = 0.9
"""Another frame is what it shows only if the distance to that is less than this share: many videos hardly move."""

Decodes: TypeAlias = Literal["stretch", "file", "unknown"]
"""For a clip: from the nearest frame at which that can begin to the last one needed, or all of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    name: str
    how: str
    """In a few words, for readers of the figures."""
    build: Callable[[Catalog, Config], Backend]
    tolerance: float | None = TOLERANCE
    """How far a clip may be from the reference, as `Row.difference`; None where there are no views to look at."""
    own_colors: bool = False
    """It draws colours of its own, and is compared without any."""
    files: tuple[str, ...] = ("raw", "prepared")
    decodes: Decodes = "stretch"
    unavailable_reason: str = ""
    """Why it cannot run here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    clips_per_second: Spread
    """Over the repeats, as all that follows."""
    each_clips_per_second: tuple[float, ...]
    decoded_frames_per_second: float | None
    returned_frames_per_second: float
    """Frames of the clips; that views and shuffled copies hold them several times does not count."""
    cores: float | None
    """Processor time over time, with that of worker processes."""
    core_ms_per_clip: float | None
    """Processor time, which others on the same machine hardly change."""
    first_batch_seconds: float
    """In the warm-up, with the start of threads or processes."""
    wait_ms_p50: float | None
    wait_ms_p99: float | None
    """From one batch to the next."""
    bytes_read_per_clip: float | None
    dropped_clips: int


@dataclass(slots=True, kw_only=True)
class Row:
    """What came of a contender."""

    loader: str
    how: str
    files: str
    tolerance: float | None
    difference: float | None = None
    """To the reference: the mean absolute one of the worst clip, in levels of 255."""
    reason: str = ""
    """Why there are no figures."""
    figures: Figures | None = None
    ratio: float | None = None
    """Of clips per second, to `cacl cpu` on prepared videos, or on raw ones where there are no others: the median of
    the ratios within each repeat."""


class Videos:
    """One kind of files, and the clips that are taken of them."""

    def __init__(self, files: str, catalog: Catalog, config: Config, steps: int) -> None:
        self.files, self.catalog, self.config = files, catalog, config
        sampler = ClipSampler(catalog.videos, config.clip, config.augment, config.seed)
        self.plans = list(sampler.batches(0, steps, config.train.batch_size))
        self.truth = cache(partial(Truth, catalog))

    def decoded_frames(self, how: Decodes) -> float | None:
        """Per clip, on average; None if it is not known."""
        if how == "unknown":
            return None
        plans = [plan for batch in self.plans for plan in batch]
        videos = [self.catalog.videos[plan.video] for plan in plans]
        if how == "file":
            return statistics.mean(video.frames for video in videos)
        pairs = zip(plans, videos, strict=True)
        return statistics.mean(plan.frame_numbers[-1] + 1 - _entry(video, plan.start) for plan, video in pairs)


def entries(video: VideoRecord) -> list[int]:
    """Frames at which decoding may begin, rising from 0."""
    if video.fragments:
        return video.fragments.first.tolist()
    return [0, *(point.frame for point in video.seek_points)]


def _entry(video: VideoRecord, frame: int) -> int:
    return max(entry for entry in entries(video) if entry <= frame)


class Truth:
    """A few clips as the reference shows them, and the frames before and after them."""

    def __init__(self, catalog: Catalog, config: Config) -> None:
        sampler = ClipSampler(catalog.videos, config.clip, config.augment, config.seed)
        self.plans = [sampler.plan(index) for index in range(min(CHECKED_CLIPS, len(catalog.videos)))]
        self.videos = [catalog.videos[plan.video] for plan in self.plans]
        reference = build_backend("reference", catalog, config, torch.device("cpu"))
        moved = [[_moved(*pair, by) for pair in zip(self.plans, self.videos, strict=True)] for by in SHIFTS]
        self.batches = list(reference.batches(moved))
        for failure in (failure for batch in self.batches for failure in batch.failures):
            raise DataError(failure.reason)

    def compare(self, backend: Backend, tolerance: float) -> tuple[float | None, str]:
        """`Row.difference`, and what is wrong, if anything."""
        (shown,) = backend.batches([self.plans])
        if shown.failures:
            return None, f"cannot load {len(shown.failures)} of {len(self.plans)} clips: {shown.failures[0].reason}"
        distances = np.stack([_distance(shown, batch) for batch in self.batches])
        worst = int(distances[0].argmax())
        difference = float(distances[0, worst])
        nearest = (distances * [[CLEARLY], [1], [1]]).argmin(0)
        if nearest.any():
            clip = int(nearest.argmax())
            shift, count = list(SHIFTS.values())[nearest[clip]], np.count_nonzero(nearest)
            where = f"{count} of {len(nearest)} clips, such as one of {self.videos[clip].path}"
            return difference, f"shows {shift} frames than asked for in {where}"
        if not difference <= tolerance:  # it may be nan
            return difference, f"is {difference:.1f} of 255 away from the reference in {self.videos[worst].path}"
        return difference, ""


def _moved(plan: ClipPlan, video: VideoRecord, by: int) -> ClipPlan:
    last = video.frames - 1 - plan.stride * (plan.length - 1)
    return replace(plan, start=min(max(plan.start + by, 0), last))


def _distance(shown: ClipBatch, truth: ClipBatch) -> np.ndarray:
    """[B]. Without what leaves the range of RGB, which not all keep."""
    differences = [
        (view.cpu().float().clamp(0, 1) - true.float().clamp(0, 1)).abs().mean((1, 2, 3, 4))
        for view, true in zip(shown.views, truth.views, strict=False)  # some make more than the views
    ]
    return 255 * torch.stack(differences).mean(0).numpy()


class _Measurement(NamedTuple):
    seconds: float
    waits: list[float]
    """Seconds until each batch, from the one before."""
    clips: int
    used: machine.Usage | None


class Run:
    """A contender on one kind of files."""

    def __init__(self, contender: Contender, videos: Videos) -> None:
        self.contender, self.videos = contender, videos
        self.row = Row(
            loader=contender.name,
            how=contender.how,
            files=videos.files,
            tolerance=contender.tolerance,
            reason=f"skipped: {contender.unavailable_reason}" if contender.unavailable_reason else "",
        )
        self.backend: Backend | None = None
        self.measurements: list[_Measurement] = []

    def check(self) -> None:
        """Compares it with the reference. Raises DataError if that fails itself."""
        config, tolerance = self.videos.config, self.contender.tolerance
        if self.contender.own_colors:
            config = override(config, ["augment.color_jitter_prob=0.0", "augment.grayscale_prob=0.0"])
        if tolerance is not None and not self.row.reason:
            truth = self.videos.truth(config)
            self._attempt(lambda: self._compare(truth, config, tolerance))

    def measure(self) -> None:
        """Times all clips once. The first time is the warm-up."""
        if not self.row.reason:
            self._attempt(self._time)

    def finish(self) -> Row:
        """Lets the workers go."""
        self.backend = None
        if not self.row.reason:
            self.row.figures = _figures(self.contender, self.videos, self.measurements)
        return self.row

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # rivals fail in ways of their own
            self._leave_out("fails", (str(error).strip() or type(error).__name__).splitlines()[-1])

    def _leave_out(self, what: str, why: str) -> None:
        self.row.reason = f"{what}: {why.replace(f'{self.videos.catalog.root}/', '')}"  # figures name no folder

    def _compare(self, truth: Truth, config: Config, tolerance: float) -> None:
        # Not the backend that is timed, whose workers start in the warm-up.
        self.row.difference, fault = truth.compare(self.contender.build(self.videos.catalog, config), tolerance)
        if fault:
            self._leave_out("refused", fault)

    def _time(self) -> None:
        self.backend = self.backend or self.contender.build(self.videos.catalog, self.videos.config)
        if self.measurements:
            # Others had the machine since: the system may have taken away memory that lay idle, which it does not do to
            # a run. A few batches bring it back.
            lead = self.videos.plans[: self.videos.config.loader.prefetch + 2]
            deque(self.backend.batches(lead), maxlen=0)
        waits, clips = [], 0
        before, start = machine.usage(), time.perf_counter()
        asked = start
        for batch in self.backend.batches(self.videos.plans):
            if batch.query.is_cuda:
                torch.cuda.synchronize()
            now = time.perf_counter()
            waits.append(now - asked)
            asked, clips = now, clips + len(batch)
        seconds, after = time.perf_counter() - start, machine.usage()
        used = after.since(before) if before and after else None
        self.measurements.append(_Measurement(seconds, waits, clips, used))


def _figures(contender: Contender, videos: Videos, measurements: Sequence[_Measurement]) -> Figures:
    warm_up, *timed = measurements
    seconds, clips = sum(m.seconds for m in timed), sum(m.clips for m in timed)
    each = [m.clips / m.seconds for m in timed]
    spread = Spread.of(each)
    used = [m.used for m in timed if m.used]
    processor_seconds = sum(u.processor_seconds for u in used)
    waits_ms = [1000 * wait for m in timed for wait in m.waits[1:]]
    decoded = videos.decoded_frames(contender.decodes)
    return Figures(
        clips_per_second=spread,
        each_clips_per_second=tuple(each),
        decoded_frames_per_second=decoded and spread.median * decoded,
        returned_frames_per_second=spread.median * videos.config.clip.frames,
        cores=processor_seconds / seconds if used else None,
        core_ms_per_clip=1000 * processor_seconds / clips if used else None,
        first_batch_seconds=warm_up.waits[0],
        wait_ms_p50=float(np.percentile(waits_ms, 50)) if waits_ms else None,
        wait_ms_p99=float(np.percentile(waits_ms, 99)) if waits_ms else None,
        bytes_read_per_clip=sum(u.bytes_read for u in used) / clips if used else None,
        dropped_clips=len(timed) * sum(map(len, videos.plans)) - clips,
    )


# --- The stages of `cpu`


@dataclass(frozen=True, slots=True)
class Stages:
    """Milliseconds per clip in one thread, the median of some clips."""

    read: float | None
    """And checked; None where that cannot be told from decoding."""
    decode: float
    augment: float


def stages(videos: Videos) -> Stages:
    """Where `cpu` spends its time."""
    seconds: list[tuple[float, float, float]] = []

    def load(location: Location, video: VideoRecord, plan: ClipPlan, size: int, out: Sequence[Tensor]) -> None:
        times = [time.perf_counter()]
        if video.fragments:
            read_fragments(location, video, plan.start, plan.frame_numbers[-1])
        times.append(time.perf_counter())
        decode_only(location, video, plan, size, out)
        times.append(time.perf_counter())
        cpu.load_clip(location, video, plan, size, out)
        times.append(time.perf_counter())
        read, decoded, all_of_it = np.diff(times)
        seconds.append((read, decoded - read, all_of_it - decoded))

    backend = ThreadPoolBackend(load, videos.catalog, size=videos.config.clip.size, threads=1, prefetch=1)
    for _ in backend.batches(videos.plans[: -(-TIMED_CLIPS // len(videos.plans[0]))]):
        pass
    read, decode, augment = (1000 * statistics.median(column) for column in zip(*seconds, strict=True))
    return Stages(read if videos.catalog.videos[0].fragments else None, decode, augment)


def decode_only(location: Location, video: VideoRecord, plan: ClipPlan, size: int, out: Sequence[Tensor]) -> None:
    """What `cpu` does, up to the decoded frames."""
    for _ in decode_frames(location, video, plan.frame_numbers):
        pass


def planes_only(location: Location, video: VideoRecord, plan: ClipPlan, size: int, out: Sequence[Tensor]) -> None:
    """What `cpu` does, up to the planes that views are made of."""
    cpu.decode_planes(location, video, plan)
