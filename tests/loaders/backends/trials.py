"""Backends that stand in for `dali` in trials: honest ones, those that show something else, and those that fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor

from cacl.clips import ClipBatch, ClipPlan, Failure
from cacl.config import AugmentConfig, ClipConfig
from cacl.loaders.backends import cpu, reference
from cacl.loaders.backends.select import Backend
from cacl.loaders.backends.thread_pool import ThreadPoolBackend
from cacl.loaders.backends.trial import Comparison, measure
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.sampling.sampler import ClipSampler
from tests.loaders.backends.clips import CPU

CLIP = ClipConfig(frames=6, size=32)
ChangePlan: TypeAlias = Callable[[Catalog, ClipPlan], ClipPlan]
ChangeView: TypeAlias = Callable[[Tensor], Tensor]


class Clock:
    """A clock that stands still unless a backend moves it: `trial.perf_counter` in tests."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class StandIn:
    """Loads what `reference` loads of other plans, and changes its views [B, 3, T, H, W].

    Each batch takes `seconds` of the clock, and batch number `fails_at` raises an error.
    """

    def __init__(
        self,
        videos: Catalog,
        clock: Clock,
        *,
        seconds: float = 0.1,
        plan: ChangePlan = lambda videos, plan: plan,
        view: ChangeView = lambda view: view,
        fails_at: int = -1,
    ) -> None:
        self.honest = ThreadPoolBackend(reference.load_clip, videos, size=CLIP.size, threads=2, prefetch=1)
        self.videos, self.clock, self.seconds = videos, clock, seconds
        self.plan, self.view, self.fails_at = plan, view, fails_at
        self.delivered = 0

    def batches(self, plans: Iterable[Sequence[ClipPlan]]) -> Iterator[ClipBatch]:
        for batch in self.honest.batches([self.plan(self.videos, plan) for plan in batch] for batch in plans):
            if self.delivered == self.fails_at:
                raise RuntimeError("CUDA error 801\nin a file of DALI")
            self.clock.now += self.seconds
            self.delivered += 1
            yield replace(batch, views=tuple(self.view(view) for view in batch.views))


class WithoutVideo:
    """Loads no clip of one video, and says so or not."""

    def __init__(self, honest: Backend, video: int, *, says_so: bool) -> None:
        self.honest, self.video, self.says_so = honest, video, says_so

    def batches(self, plans: Iterable[Sequence[ClipPlan]]) -> Iterator[ClipBatch]:
        for batch in self.honest.batches(plans):
            kept = batch.video != self.video
            left_out = [Failure(index, self.video, "file: NVDEC gave nothing") for index in batch.index[~kept].tolist()]
            yield replace(
                batch,
                views=tuple(view[kept] for view in batch.views),
                order=batch.order[kept],
                video=batch.video[kept],
                index=batch.index[kept],
                failures=tuple(left_out) if self.says_so else (),
            )


def later_by(frames: int) -> ChangePlan:
    """Starts so many frames later, or earlier where the video has no more frames."""

    def changed(videos: Catalog, plan: ClipPlan) -> ClipPlan:
        is_last = plan.frame_numbers[-1] + frames >= videos.videos[plan.video].frames
        return replace(plan, start=plan.start + (-frames if is_last else frames))

    return changed


def frozen(view: Tensor) -> Tensor:
    return view[:, :, :1].expand_as(view)


def one_frame_twice(view: Tensor) -> Tensor:
    return view[:, :, [0, 1, 2, 2, 4, 5]]


def two_frames_swapped(view: Tensor) -> Tensor:
    return view[:, :, [0, 1, 3, 2, 4, 5]]


def blue_for_red(view: Tensor) -> Tensor:
    return view.flip(1)


def not_a_number(view: Tensor) -> Tensor:
    return torch.full_like(view, torch.nan)


def cpu_backend(videos: Catalog) -> ThreadPoolBackend:
    return ThreadPoolBackend(cpu.load_clip, videos, size=CLIP.size, threads=2, prefetch=1)


def try_beside_cpu(videos: Catalog, stand_in: Backend) -> Comparison:
    """Measures a stand-in of `dali` beside the real `cpu`, on random views in batches of four."""
    sampler = ClipSampler(videos.videos, CLIP, AugmentConfig(), seed=3)
    backends: dict[str, Backend] = {"dali": stand_in, "cpu": cpu_backend(videos)}
    return measure(backends.__getitem__, lambda: sampler.stretch(0, None, 4), videos, CPU)
