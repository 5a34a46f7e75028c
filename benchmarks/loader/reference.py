"""The truth that loaders are checked against: what the `reference` backend shows of a few clips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from cacl.clips import ClipBatch, ClipPlan, VideoRecord
from cacl.config import Config
from cacl.errors import DataError
from cacl.loaders.backends.select import Backend, build_backend
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.sampling.sampler import ClipSampler

CHECKED_CLIPS = 8
"""Clips that are compared with the reference."""
SHIFTS = {0: "", -1: "earlier", 1: "later"}
"""Frames by which the reference is moved, to see whether a loader shows other frames than it was asked for."""
CLEARLY_NEARER = 0.9
"""Many videos hardly move. A loader is said to show other frames only if the distance to those is less than this share
of the distance to the right ones."""


class Reference:
    """A few clips as the reference shows them, and the same clips one frame earlier and one frame later."""

    def __init__(self, catalog: Catalog, config: Config) -> None:
        """Decodes the clips.

        Raises:
            DataError: The reference itself cannot load one of them.
        """
        sampler = ClipSampler(catalog.videos, config.clip, config.augment, config.seed)
        self.plans = [sampler.plan(index) for index in range(min(CHECKED_CLIPS, len(catalog.videos)))]
        self.videos = [catalog.videos[plan.video] for plan in self.plans]
        backend = build_backend("reference", catalog, config, torch.device("cpu"))
        shifted = [[_shifted(*pair, shift) for pair in zip(self.plans, self.videos, strict=True)] for shift in SHIFTS]
        self.batches = list(backend.batches(shifted))
        for failure in (failure for batch in self.batches for failure in batch.failures):
            raise DataError(failure.reason)

    def compare(self, backend: Backend, tolerance: float) -> tuple[float | None, str]:
        """Compares what a loader shows of the same clips with the reference.

        Args:
            backend: The loader.
            tolerance: How far the worst clip may be from the reference, in levels of 255.

        Returns:
            How far it is: the mean absolute difference in levels of 255, None if clips did not load. And what is wrong
            with the loader, or an empty string.
        """
        (shown,) = backend.batches([self.plans])
        if shown.failures:
            return None, f"cannot load {len(shown.failures)} of {len(self.plans)} clips: {shown.failures[0].reason}"
        distances = np.stack([_distance(shown, batch) for batch in self.batches])  # float64 [shifts, B]
        worst = int(distances[0].argmax())
        difference = float(distances[0, worst])
        nearest = (distances * [[CLEARLY_NEARER], [1], [1]]).argmin(0)
        if nearest.any():
            clip = int(nearest.argmax())
            shift, count = list(SHIFTS.values())[nearest[clip]], np.count_nonzero(nearest)
            where = f"{count} of {len(nearest)} clips, such as one of {self.videos[clip].path}"
            return difference, f"shows {shift} frames than asked for in {where}"
        if not difference <= tolerance:  # The difference may be NaN.
            away = f"is {difference:.1f} of 255 away from the reference in {self.videos[worst].path}"
            return difference, f"{away}, and {tolerance:g} is allowed"
        return difference, ""


def _shifted(plan: ClipPlan, video: VideoRecord, frames: int) -> ClipPlan:
    last_start = video.frames - 1 - plan.stride * (plan.length - 1)

    def shifted(start: int) -> int:
        return min(max(start + frames, 0), last_start)

    return replace(plan, start=shifted(plan.start), view_starts=tuple(map(shifted, plan.view_starts)))


def _distance(shown: ClipBatch, truth: ClipBatch) -> np.ndarray:
    """The mean absolute differences in levels of 255, float32 [B].

    Values outside the range of RGB are clipped: not all loaders keep them.
    """
    differences = [
        (view.cpu().float().clamp(0, 1) - true.float().clamp(0, 1)).abs().mean((1, 2, 3, 4))
        for view, true in zip(shown.views, truth.views, strict=False)  # Some loaders make more than the two views.
    ]
    return 255 * torch.stack(differences).mean(0).numpy()
