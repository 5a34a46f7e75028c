"""Which clip is taken, as pure functions of (seed, epoch, video): nothing here depends on ranks, threads or backends.

Training samples form one endless stream: sample number i is position i % n of epoch i // n. Each epoch visits each of
the n videos once, in its own order; a batch is a stretch of the stream and may straddle two epochs, so none is ever
short and none is dropped. The number of the next sample is the whole state of the data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

from cacl.clips import ClipPlan, VideoRecord
from cacl.config import AugmentConfig, ClipConfig
from cacl.loaders.sampling.augmentation import center_view, draw_view
from cacl.loaders.sampling.rng import RandomStream

EPOCH_ORDER_STREAM, CLIP_STREAM, TRAINING_STEP_STREAM = range(3)
"""What a stream of random numbers is for. It is the second value of the stream's key, behind the seed, so that streams
for different purposes never share a number."""


class ClipSampler:
    """Plans of the endless training stream over a list of videos."""

    def __init__(self, videos: Sequence[VideoRecord], clip: ClipConfig, augment: AugmentConfig, seed: int) -> None:
        self.videos, self.clip, self.augment, self.seed = videos, clip, augment, seed

    def plan(self, index: int) -> ClipPlan:
        epoch, position = divmod(index, len(self.videos))
        number = epoch_order(self.seed, epoch, len(self.videos))[position]
        video = self.videos[number]
        rng = RandomStream(self.seed, CLIP_STREAM, epoch, number)
        stride = fitting_stride(video, self.clip)
        start = rng.integer(0, video.frames - max(_span(self.clip.frames, stride), self.clip.min_remaining_frames) + 1)
        return ClipPlan(
            index=index,
            video=number,
            start=start,
            stride=stride,
            length=self.clip.frames,
            order=draw_order(rng, self.clip.frames),
            views=(draw_view(rng, video, self.augment), draw_view(rng, video, self.augment)),
            resize=_resize(self.augment),
        )

    def batches(self, start: int, stop: int, batch: int, rank: int = 0, world: int = 1) -> Iterator[list[ClipPlan]]:
        """For steps [start, stop): this rank's share of each batch of `batch` samples over all ranks."""
        share = batch // world
        for step in range(start, stop):
            first = step * batch + rank * share
            yield [self.plan(index) for index in range(first, first + share)]


def evaluation_plans(
    videos: Sequence[VideoRecord],
    numbers: Sequence[int],
    clips: int,
    clip: ClipConfig,
    augment: AugmentConfig,
    starts: Literal["span", "official"] = "span",
) -> Iterator[ClipPlan]:
    """For each of these videos in turn, `clips` evenly spaced clips, centre crop. starts: as RetrievalConfig has it."""
    for number in numbers:
        video = videos[number]
        stride, chosen = (official_starts if starts == "official" else even_starts)(video, clip, clips)
        for which, start in enumerate(chosen):
            yield ClipPlan(
                index=number * clips + which,
                video=number,
                start=start,
                stride=stride,
                length=clip.frames,
                order=tuple(range(clip.frames)),
                views=(center_view(video, augment),),
                resize=_resize(augment),
            )


def even_starts(video: VideoRecord, clip: ClipConfig, clips: int) -> tuple[int, list[int]]:
    """The stride and the starts of evaluation clips from the first frame to the last; a single one is in the middle."""
    stride = fitting_stride(video, clip)
    last = video.frames - _span(clip.frames, stride)
    return stride, [round(last * which / (clips - 1)) for which in range(clips)] if clips > 1 else [last // 2]


def official_starts(video: VideoRecord, clip: ClipConfig, clips: int) -> tuple[int, list[int]]:
    """The same as in the release of Guo et al. (CVPR 2022)."""
    last = max(0, video.frames - clip.frames * clip.stride)
    starts = [int(start) for start in np.linspace(0, last, clips)]
    return clip.stride if video.frames >= clip.span else 1, starts


def fitting_stride(video: VideoRecord, clip: ClipConfig) -> int:
    """The policy for short videos: the stride shrinks to what fits, frames are never repeated.

    Repeated frames would make the frame order ambiguous. The scan rejects videos with fewer frames than a clip.
    """
    assert video.frames >= clip.frames, f"{video.path} should not have passed the scan"
    return min(clip.stride, (video.frames - 1) // (clip.frames - 1))


def draw_order(rng: RandomStream, length: int) -> tuple[int, ...]:
    """A frame order: n ~ U{1..T} positions are chosen and permuted among themselves, fixed points allowed.

    n = 1 leaves the clip alone. As in the release of Guo et al. (CVPR 2022).
    """
    chosen = sorted(rng.permutation(length)[: rng.integer(1, length + 1)])
    order = list(range(length))
    for position, source in zip(chosen, rng.permutation(len(chosen)), strict=True):
        order[position] = chosen[source]
    return tuple(order)


@lru_cache(maxsize=2)  # a batch may straddle two epochs
def epoch_order(seed: int, epoch: int, videos: int) -> list[int]:
    return RandomStream(seed, EPOCH_ORDER_STREAM, epoch).permutation(videos)


def _resize(augment: AugmentConfig) -> tuple[int, int] | None:
    return augment.resize if any(augment.resize) else None


def _span(frames: int, stride: int) -> int:
    return (frames - 1) * stride + 1
