"""Where the time of the `cpu` backend goes: reading, decoding, making views."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cacl.benchmarks.loader.run import VideoSet
from cacl.clips import ClipPlan, VideoRecord
from cacl.loaders.backends import cpu
from cacl.loaders.backends.thread_pool import ThreadPoolBackend
from cacl.loaders.decode.fragments import read_fragments
from cacl.loaders.decode.raw import decode_frames
from cacl.loaders.decode.storage import Location

TIMED_CLIPS = 32
"""Clips whose stages are timed one by one."""


@dataclass(frozen=True, slots=True)
class Stages:
    """Milliseconds per clip in one thread, each the median over some clips."""

    read: float | None
    """Reading and checking the bytes; None where that cannot be told from decoding."""
    decode: float
    augment: float


def time_stages(videos: VideoSet) -> Stages:
    """Times the stages of the `cpu` backend.

    Each clip is read, then decoded, then loaded in full. Each of these repeats the ones before, so that a stage takes
    the difference of two times.
    """
    seconds: list[tuple[float, float, float]] = []  # One entry for each moment of each clip.

    def load(location: Location, video: VideoRecord, plan: ClipPlan, size: int, out: Sequence[Tensor]) -> None:
        times = [time.perf_counter()]
        if video.fragments:
            read_fragments(location, video, plan.start, plan.frame_numbers[-1])
        times.append(time.perf_counter())
        decode_only(location, video, plan, size, out)
        times.append(time.perf_counter())
        cpu.load_clip(location, video, plan, size, out)
        times.append(time.perf_counter())
        reading, decoding, loading = np.diff(times)
        seconds.append((reading, decoding - reading, loading - decoding))

    backend = ThreadPoolBackend(load, videos.catalog, size=videos.config.clip.size, threads=1, prefetch=1)
    plans = videos.plans[: -(-TIMED_CLIPS // len(videos.plans[0]))]
    for _ in backend.batches(plans):
        pass
    by_clip = np.reshape(seconds, (-1, len(plans[0][0].moments), 3)).sum(1)
    read, decode, augment = (1000 * np.median(by_clip, 0)).tolist()
    return Stages(read if videos.catalog.videos[0].fragments else None, decode, augment)


def decode_only(location: Location, video: VideoRecord, plan: ClipPlan, size: int, out: Sequence[Tensor]) -> None:
    """Does what the `cpu` backend does, up to the decoded frames, which are dropped."""
    for _ in decode_frames(location, video, plan.frame_numbers):
        pass
