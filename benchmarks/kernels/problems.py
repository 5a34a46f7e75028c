"""What `cacl bench-kernels` computes: for each operation its inputs, the truth, the ways to it, a floor of their time.

What is said here of GPUs has not run on one yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from cacl.benchmarks.harness.timing import computing, copying
from cacl.benchmarks.harness.trial import COMPILED, OURS, Floor, Problem, Task, Way
from cacl.benchmarks.kernels.contrast_problems import contrast_problem, symmetric_problem
from cacl.benchmarks.rivals import kernels as rivals
from cacl.benchmarks.rivals.loaders import unavailable_reason
from cacl.clips import ViewPlan
from cacl.kernels.augment import augment
from cacl.kernels.augment_reference import one_view
from cacl.kernels.edit_distance import edit_distance_to_identity
from cacl.loaders.backends import dali
from cacl.loaders.sampling.augmentation import color_matrix


def problems(device: torch.device) -> list[Problem]:
    """What decides most first: there may not be time for all."""
    half, full = torch.bfloat16, torch.float32
    if device.type == "cpu":
        return [
            contrast_problem(device, full, 2048, 1, 2**16),
            contrast_problem(device, full, 256, 2, 2**16),
            symmetric_problem(device, full, 4096),
            edit_distance_problem(device, 65_536, 16),
            edit_distance_problem(device, 100_000, 64),
            augment_problem(device, 16, 16, (128, 170), 112, 112),
            augment_problem(device, 16, 16, (240, 320), 210, 112),
        ]
    return [
        contrast_problem(device, half, 2048, 1, 2**16),
        # The two sides of `contrast.MIN_KERNEL_LOGITS`.
        contrast_problem(device, full, 128, 1, 6400, other_side=True),
        contrast_problem(device, full, 256, 1, 2**16, other_side=True),
        augment_problem(device, 64, 16, (128, 170), 112, 112),
        edit_distance_problem(device, 65_536, 16),
        contrast_problem(device, full, 2048, 1, 2**16),
        symmetric_problem(device, half, 8192),
        augment_problem(device, 64, 16, (240, 320), 210, 112),
        symmetric_problem(device, full, 8192),
        contrast_problem(device, half, 128, 1, 6400, other_side=True),
        contrast_problem(device, half, 256, 1, 2**16, other_side=True),
        contrast_problem(device, half, 8192, 1, 2**16),
        edit_distance_problem(device, 100_000, 64),
        contrast_problem(device, full, 8192, 1, 2**16),
        contrast_problem(device, half, 2048, 1, 2**20),
        symmetric_problem(device, half, 32_768),
        symmetric_problem(device, full, 32_768),
        contrast_problem(device, full, 2048, 1, 2**20),
    ]


# --- Edit distance

STEP = 17
"""Operations of one step of Myers' algorithm, for one symbol: 9 from a column to the changes along its rows, 3 to shift
these, 4 to the next column, 1 for the symbol's bit."""
SAMPLE = 1000
"""Orders that are checked where there is no rapidfuzz."""


def edit_distance_problem(device: torch.device, batch: int, length: int) -> Problem:
    return Problem(
        "edit-distance", f"{batch:,} orders of {length} frames", partial(_edit_distance, device, batch, length)
    )


def _edit_distance(device: torch.device, batch: int, length: int) -> Task:
    order = torch.rand(batch, length, generator=torch.Generator().manual_seed(0)).argsort(1).to(torch.uint8).to(device)
    missing = unavailable_reason("rapidfuzz", "rapidfuzz")
    checked = slice(SAMPLE if missing else None)
    truth = wagner_fischer(order[checked]) if missing else rivals.rapidfuzz_of_bytes(order, 1)
    limits = {"differing": 0.0}
    ways = [
        Way(
            name=OURS,
            how="edit_distance_to_identity: Myers' bit vectors",
            prepare=lambda: partial(edit_distance_to_identity, order),
            limits=limits,
        ),
        Way(
            name="authors' way",
            how="each row to a string, these one by one to rapidfuzz.distance.Levenshtein",
            prepare=lambda: partial(rivals.characters, order),
            limits=limits,
            unavailable_reason=missing,
        ),
        *(
            Way(
                name=f"rapidfuzz, {name}",
                how=f"rapidfuzz.process.cdist with {name}, from and to tensors",
                prepare=lambda workers=workers: partial(rivals.rapidfuzz_of_bytes, order, workers),
                limits=limits,
                unavailable_reason=missing,
            )
            for name, workers in (("1 worker", 1), ("all cores", -1))
        ),
        Way(
            name=COMPILED,
            how="of the form of it in torch that runs on CPUs",
            prepare=lambda: partial(rivals.compiled_reference(), order),
            limits=limits,
        ),
    ]
    narrowest = 32 if device.type == "cuda" else 8
    bits = max(narrowest, 2 ** (length - 1).bit_length())
    floor = Floor(STEP * order.numel(), f"{STEP} operations on {bits} bits a symbol", computing(device, bits))
    unit = f"distances among {len(truth):,} that differ from {'the recurrence' if missing else 'rapidfuzz'}"
    return Task(ways, lambda found: {"differing": float((found[checked] != truth).sum())}, unit, floor)


def wagner_fischer(order: Tensor) -> Tensor:
    """The same distances by the recurrence of Wagner and Fischer (1974), cell by cell."""
    rows = order.cpu().numpy()
    length = rows.shape[1]
    above = np.broadcast_to(np.arange(length + 1), (len(rows), length + 1))
    for i in range(length):
        row = [np.full(len(rows), i + 1)]
        for j in range(length):
            replaced = above[:, j] + (rows[:, i] != j)
            row.append(np.minimum(np.minimum(row[j], above[:, j + 1]) + 1, replaced))
        above = np.stack(row, axis=1)
    return torch.from_numpy(above[:, -1].astype(np.uint8)).to(order.device)


# --- Views


def augment_problem(
    device: torch.device, clips: int, length: int, shape: tuple[int, int], side: int, size: int
) -> Problem:
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

    def drawn() -> ViewPlan:
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

    plans = [[drawn() for _ in range(clips)] for _ in range(2)]
    crops = torch.tensor([[(plan.top, plan.left, side, plan.flip) for plan in view] for view in plans]).int()
    colors = torch.from_numpy(np.array([[plan.color for plan in view] for view in plans]))
    truth = [
        torch.stack([one_view(*of_clip, size) for of_clip in zip(frames, crops_of_view, colors_of_view, strict=True)])
        for crops_of_view, colors_of_view in zip(crops.tolist(), colors.double().to(device), strict=True)
    ]
    rounding = torch.finfo(torch.float16).eps / 2 * 255 * max(float(view.abs().max()) for view in truth)
    tight = {"inside": rounding + 0.01, "edge": rounding + 0.01}
    ways = [
        Way(
            name=OURS,
            how="augment: all views of the batch in one call",
            prepare=lambda: partial(augment, frames, crops, colors, size),
            limits=tight,
        ),
        Way(
            name="DALI",
            how="slice, resize, coord_transform and crop_mirror_normalize in a graph fed with the same frames",
            prepare=lambda: rivals.dali_views(frames, plans, size),
            limits={"inside": 1.0},
            own_memory=True,
            unavailable_reason=dali.unavailable_reason(torch.device("cpu")) or "",
        ),
        Way(
            name="torchvision",
            how="v2 in float32, a clip at a time: crop, resize, horizontal_flip, and the colours as one product",
            prepare=lambda: partial(rivals.torchvision_views, frames, plans, size),
            limits={"inside": 1.0, "edge": 1.0},
        ),
    ]
    read = sum(_covered(shape, [view[clip] for view in plans]) for clip in range(clips)) * length * 3
    written = sum(2 * view.numel() for view in truth)
    floor = Floor(read + written, "bytes of crops read once and of views written", copying(device))
    unit = "the largest in levels of 255, from float64; DALI has a way of its own at the edge of a crop"
    return Task(ways, lambda found: _levels(found, truth), unit, floor)


def _covered(shape: tuple[int, int], plans: Sequence[ViewPlan]) -> int:
    """Pixels of a frame that are in a crop."""
    seen = np.zeros(shape, bool)
    for plan in plans:
        seen[plan.top : plan.top + plan.side, plan.left : plan.left + plan.side] = True
    return int(seen.sum())


def _levels(found: Sequence[Tensor], truth: Sequence[Tensor]) -> dict[str, float]:
    """The largest deviation in levels of 255, apart for the outermost pixels: DALI fills up what lies outside of a crop
    with its edge, torch leaves it out."""
    deviations = torch.stack(
        [255 * (view.double() - true).abs().amax((0, 1, 2)) for view, true in zip(found, truth, strict=True)]
    ).amax(0)
    inside = float(deviations[1:-1, 1:-1].max())
    deviations[1:-1, 1:-1] = 0
    return {"inside": inside, "edge": float(deviations.max())}
