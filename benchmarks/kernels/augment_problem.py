"""Views of clips, from frames as they are: inputs, truth, contenders, roofline."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from cacl.benchmarks.harness.timing import copy_roofline
from cacl.benchmarks.kernels.run import BASELINE, KernelContender, Problem, RooflineWork, Task
from cacl.benchmarks.rivals import kernels as rivals
from cacl.clips import ViewPlan
from cacl.kernels.augment import augment
from cacl.kernels.augment_reference import one_view
from cacl.loaders.backends import dali
from cacl.loaders.sampling.augmentation import color_matrix

Frames = list[Tensor]
"""One clip after the other, each uint8 [T, H, W, 3]."""
ViewPlans = list[list[ViewPlan]]
"""The plans of each view, one for every clip."""


def augment_problem(
    device: torch.device, clips: int, length: int, shape: tuple[int, int], side: int, size: int
) -> Problem:
    """The problem of two views of some clips of random pixels.

    Args:
        device: Where the frames lie.
        clips: Clips of the batch.
        length: Frames of a clip.
        shape: Height and width of a frame in pixels.
        side: Side of the crops in pixels.
        size: Side of the views in pixels.
    """
    height, width = shape
    setting = f"two views of {clips} clips of {length} frames of {height} x {width}, {side} x {side} to {size} x {size}"
    return Problem("augment", setting, partial(_augment, device, clips, length, shape, side, size))


def _augment(device: torch.device, clips: int, length: int, shape: tuple[int, int], side: int, size: int) -> Task:
    random = np.random.default_rng(0)
    height, width = shape
    frames = [
        torch.from_numpy(random.integers(0, 256, (length, height, width, 3), dtype=np.uint8)).to(device)
        for _ in range(clips)
    ]
    plans = [[_draw_view(random, shape, side) for _ in range(clips)] for _ in range(2)]
    crops = torch.tensor([[(plan.top, plan.left, side, plan.flip) for plan in view] for view in plans]).int()
    colors = torch.from_numpy(np.array([[plan.color for plan in view] for view in plans]))
    truth = [
        torch.stack([one_view(*of_clip, size) for of_clip in zip(frames, crops_of_view, colors_of_view, strict=True)])
        for crops_of_view, colors_of_view in zip(crops.tolist(), colors.double().to(device), strict=True)
    ]
    rounding = torch.finfo(torch.float16).eps / 2 * 255 * max(float(view.abs().max()) for view in truth)
    ours = KernelContender(
        name=BASELINE,
        description="augment: all views of the batch in one call",
        prepare=lambda: partial(augment, frames, crops, colors, size),
        limits={"inside": rounding + 0.01, "edge": rounding + 0.01},
    )
    bytes_read = sum(_covered_pixels(shape, [view[clip] for view in plans]) for clip in range(clips)) * length * 3
    bytes_written = sum(2 * view.numel() for view in truth)
    return Task(
        contenders=[ours, *_rivals(frames, plans, size)],
        errors=lambda found: _levels(found, truth),
        error_unit="the largest in levels of 255, from float64; DALI has a way of its own at the edge of a crop",
        least_work=RooflineWork(
            bytes_read + bytes_written, "bytes of crops read once and of views written", copy_roofline(device)
        ),
    )


def _draw_view(random: np.random.Generator, shape: tuple[int, int], side: int) -> ViewPlan:
    height, width = shape
    brightness, contrast, saturation = random.uniform(0.6, 1.4, 3)
    return ViewPlan(
        top=int(random.integers(height - side + 1)),
        left=int(random.integers(width - side + 1)),
        side=side,
        flip=bool(random.integers(2)),
        color=color_matrix(
            brightness=brightness, contrast=contrast, saturation=saturation, hue=random.uniform(-0.1, 0.1)
        ),
    )


def _rivals(frames: Frames, plans: ViewPlans, size: int) -> list[KernelContender]:
    return [
        KernelContender(
            name="DALI",
            description="slice, resize, coord_transform and crop_mirror_normalize in a graph fed with the same frames",
            prepare=lambda: rivals.dali_views(frames, plans, size),
            limits={"inside": 1.0},
            own_memory=True,
            unavailable_reason=dali.unavailable_reason(torch.device("cpu")) or "",
        ),
        KernelContender(
            name="torchvision",
            description="v2 in float32, a clip at a time: crop, resize, horizontal_flip, the colours as one product",
            prepare=lambda: partial(rivals.torchvision_views, frames, plans, size),
            limits={"inside": 1.0, "edge": 1.0},
        ),
    ]


def _covered_pixels(shape: tuple[int, int], plans: Sequence[ViewPlan]) -> int:
    """The pixels of a frame that are in at least one crop."""
    covered = np.zeros(shape, bool)
    for plan in plans:
        covered[plan.top : plan.top + plan.side, plan.left : plan.left + plan.side] = True
    return int(covered.sum())


def _levels(found: Sequence[Tensor], truth: Sequence[Tensor]) -> dict[str, float]:
    """The largest deviation in levels of 255, apart for the outermost pixels.

    DALI fills up what lies outside of a crop with its edge, torch leaves it out.
    """
    deviations = torch.stack(
        [255 * (view.double() - true).abs().amax((0, 1, 2)) for view, true in zip(found, truth, strict=True)]
    ).amax(0)  # float64 [size, size]
    inside = float(deviations[1:-1, 1:-1].max())
    deviations[1:-1, 1:-1] = 0
    return {"inside": inside, "edge": float(deviations.max())}
