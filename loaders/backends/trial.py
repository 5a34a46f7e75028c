"""What `loader.backend = "auto"` does on a GPU: `dali` and `cpu` load the first clips, are compared and timed.

Nobody can promise what the video decoder of a GPU gives on every driver. So `cpu` is taken for the truth, and `dali` is
chosen where it shows the same frames and is faster. trial_memory keeps the outcome.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain, islice
from time import perf_counter
from typing import NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from cacl import distributed
from cacl.clips import ClipBatch, ClipPlan, ViewPlan
from cacl.config import Config
from cacl.loaders.backends import trial_memory
from cacl.loaders.backends.select import Backend, Choice, build_backend
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.sampling.sampler import ClipSampler

COMPARED_BATCHES, COMPARED_CLIPS = 2, 16
"""How many batches are compared, and up to how many clips of each."""
ROUNDS, ROUND_BATCHES, ROUND_SECONDS = 2, 16, 3.0
"""Each backend is timed in so many rounds, of so many batches or so many seconds, whichever ends first."""
MAX_COLOR_ERROR = 3.0
"""Levels of 255 by which a colour channel of a frame may differ on average: `tests/loaders/backends/dali` allows the
same for NVDEC. Rounding and clamping to 8 bits make up to one, and the rest is for another interpolation of chroma."""
MAX_FRAME_ERROR = 0.5
"""Levels by which the frame that is shown may differ from the one that is asked for, of 255: what rounding to 8 bits
may hide. Frames of a video that differ by less are as good as the same."""

T = TypeVar("T")
log = logging.getLogger(__name__)


class ClipErrors(NamedTuple):
    """How a clip that `dali` loaded differs from that of `cpu`, in levels of 255.

    The colours of a view magnify differences, which is taken back.
    """

    file: str
    """The video file."""
    color: float
    """The largest mean difference of a colour channel of a frame."""
    frame: float
    """The largest difference (root mean square) between the frame that is asked for and the frame of the video that the
    one shown is most like; 0 where each is most like its own."""


class Comparison(NamedTuple):
    """What was found out about `dali` beside `cpu`."""

    error: str = ""
    """Why `dali` cannot load anything; empty where it loads. The rest is empty, too, then."""
    clips: tuple[ClipErrors, ...] = ()
    """The clips that both load."""
    failures: tuple[str, ...] = ()
    """Why `dali` does not load what `cpu` loads, one line for each clip, which names the file."""
    dali_rate: float = 0.0
    """Clips a second of `dali`."""
    cpu_rate: float = 0.0
    """Clips a second of `cpu`."""


def decide(comparison: Comparison) -> Choice:
    """Chooses `dali` where it is right and faster, and `cpu` elsewhere.

    Args:
        comparison: What was found out.

    Returns:
        The backend and why it was chosen.
    """
    clips, ours, theirs = comparison.clips, comparison.dali_rate, comparison.cpu_rate
    rates = f"{ours:.0f} clips/s against {theirs:.0f}"
    if comparison.error:
        return Choice("cpu", f'"dali" fails here: {comparison.error}')
    if comparison.failures:
        return Choice("cpu", f'"dali" does not load what "cpu" loads: {comparison.failures[0]}')
    if not clips:
        return Choice("cpu", 'none of the first clips loads, so "dali" could not be compared with it')
    for clip in clips:  # Not a number is an error, too.
        if not clip.color <= MAX_COLOR_ERROR:
            found = f"{clip.color:.1f} levels of 255 apart where {MAX_COLOR_ERROR:g} may be rounding"
            return Choice("cpu", f'"dali" shows other pictures of {clip.file}: {found}')
        if not clip.frame <= MAX_FRAME_ERROR:
            found = f"by {clip.frame:.1f} levels of 255, where {MAX_FRAME_ERROR:g} may be rounding"
            return Choice("cpu", f'"dali" shows other frames of {clip.file} than those asked for: they differ {found}')
    if not ours > theirs:
        return Choice("cpu", f'"dali" shows the same frames, and is not faster: {rates}')
    return Choice("dali", f'it shows the same frames as "cpu" and is faster: {rates}')


def measure(
    build: Callable[[str], Backend],
    plans: Callable[[], Iterator[Sequence[ClipPlan]]],
    catalog: Catalog,
    device: torch.device,
) -> Comparison:
    """Compares and times `dali` beside `cpu`.

    Args:
        build: Builds a backend of a name.
        plans: Plans the same endless batches at each call.
        catalog: The videos of the plans.
        device: Where the views are wanted.

    Returns:
        What was found out. Whatever `dali` raises is part of it.
    """
    few = [batch[:COMPARED_CLIPS] for batch in islice(plans(), COMPARED_BATCHES)]
    rates: dict[str, list[float]] = {"dali": [], "cpu": []}
    cpu = build("cpu")
    try:
        dali = build("dali")
        shown = list(dali.batches(few))
        for _ in range(ROUNDS):  # By turns: the first round may find files that were not read before.
            rates["dali"].append(clips_per_second(dali, islice(plans(), ROUND_BATCHES), device))
            rates["cpu"].append(clips_per_second(cpu, islice(plans(), ROUND_BATCHES), device))
    except Exception as error:  # What a driver makes of a video is not for us to foresee.
        return Comparison(error=(str(error) or type(error).__name__).partition("\n")[0])
    clips, failures = compare(shown, cpu, few, catalog)
    return Comparison("", clips, failures, max(rates["dali"]), max(rates["cpu"]))


def compare(
    shown: Iterable[ClipBatch], cpu: Backend, batches: Sequence[Sequence[ClipPlan]], catalog: Catalog
) -> tuple[tuple[ClipErrors, ...], tuple[str, ...]]:
    """Compares clips frame by frame with all frames that `cpu` finds in that stretch of the video.

    Args:
        shown: What another backend made of the plans.
        cpu: The backend that is right.
        batches: The plans of each batch.
        catalog: The videos of the plans.

    Returns:
        The errors of the clips that both load, and the reasons why the other backend did not load further ones that
        `cpu` loads.
    """
    views, reasons = dict[int, list[Tensor]](), dict[int, str]()
    for batch in shown:
        views |= {index: [view[row].cpu() for view in batch.views] for row, index in enumerate(batch.index.tolist())}
        reasons |= {failure.index: failure.reason for failure in batch.failures}
    clips, failures = [], []
    plans = list(chain.from_iterable(batches))
    for plan, truth in zip(plans, cpu.batches([_all_frames(plan)] for plan in plans), strict=True):
        file = str(catalog.location(catalog.videos[plan.video]))
        if not len(truth):
            continue
        if plan.index not in views:
            failures.append(reasons.get(plan.index, f"{file}: its clip is missing"))
            continue
        pairs = zip(views[plan.index], truth.views, plan.views, strict=True)
        errors = [view_errors(mine, theirs[0], plan.stride, view) for mine, theirs, view in pairs]
        color, frame = torch.tensor(errors).amax(0).tolist()
        clips.append(ClipErrors(file, color, frame))
    return tuple(clips), tuple(failures)


def view_errors(shown: Tensor, frames: Tensor, stride: int, view: ViewPlan) -> tuple[float, float]:
    """Compares one view of a clip with the same view of all frames between its first and its last.

    A wrong frame of a quiet video differs from the right one by less than another way to make RGB does. So it is not
    enough that a frame is near the right one: no other frame of the video may be nearer to it.

    Args:
        shown: The view, float16 [3, T, size, size].
        frames: The view of all frames, float16 [3, (T - 1) * stride + 1, size, size].
        stride: The distance between consecutive frames of the clip, in frames of the video.
        view: The plan of the view, whose colours magnify differences.

    Returns:
        The errors of colour and of frame, as in ClipErrors.
    """
    magnified = torch.from_numpy(np.abs(view.color[:, :3]).sum(1).clip(min=1)).view(3, 1, 1, 1)
    shown, frames = (x.float() * 255 / magnified for x in (shown, frames))
    own = frames[:, ::stride]
    color = (shown - own).abs().mean((2, 3)).amax().item()
    rows, own_rows, all_rows = (x.transpose(0, 1).flatten(1) for x in (shown, own, frames))
    nearest = torch.stack([(row - all_rows).square().mean(1).argmin() for row in rows])
    frame = (all_rows[nearest] - own_rows).square().mean(1).sqrt().amax().item()
    return color, frame


def _all_frames(plan: ClipPlan) -> ClipPlan:
    """Plans the same views of every frame between the first and the last one of a clip."""
    return replace(plan, stride=1, length=(plan.length - 1) * plan.stride + 1, order=())


def clips_per_second(backend: Backend, plans: Iterator[Sequence[ClipPlan]], device: torch.device) -> float:
    """Times a backend from its first batch to its last one, or to the last one before time is up.

    Args:
        backend: The backend.
        plans: The plans of each batch.
        device: Where the views are wanted.

    Returns:
        Clips a second that loaded. Where only one batch comes in time, its start counts, too.
    """
    start, arrivals = perf_counter(), list[tuple[float, int]]()
    with closing(cast(Generator[ClipBatch], backend.batches(plans))) as batches:
        for batch in batches:
            batch.to(device)
            if device.type == "cuda":  # Waiting for the whole device would be waiting for what is decoded ahead.
                torch.cuda.current_stream(device).synchronize()
            arrivals.append((perf_counter() - start, len(batch)))
            if arrivals[-1][0] > ROUND_SECONDS:
                break
    (first, size), *later = arrivals
    return sum(count for _, count in later) / (later[-1][0] - first) if later else size / first


def choose(
    catalog: Catalog, config: Config, device: torch.device, *, views: int, batch_size: int, world_size: int
) -> Choice:
    """Chooses between `dali` and `cpu` for a set of videos, by what was measured before or by measuring now.

    Each rank measures while the others do, with its own GPU and its share of the cores. All take one decision: `dali`
    where every rank is for it.

    Args:
        catalog: The videos.
        config: The settings of the clips and of the loader.
        device: Where the encoders are trained.
        views: The number of views of a clip.
        batch_size: The number of clips in a batch of this rank.
        world_size: The number of ranks that load the set together.

    Returns:
        The backend and why it was chosen.
    """
    processes = distributed.local_world_size()
    memory = trial_memory.open_memory(catalog, config, device, (views, batch_size, processes))
    remembered = _of_all_ranks(memory.load(), world_size)
    if all(remembered):
        choice = _agreed([choice for choice in remembered if choice])
        return Choice(choice.name, f"{choice.reason} (measured before; to measure again, delete {memory.file})")
    log.info('loader: trying "dali" beside "cpu" on the first clips')
    # Evaluations take videos that are too short for training.
    clip = replace(config.clip, min_remaining_frames=0)
    sampler = ClipSampler(catalog.videos, clip, config.augment, config.seed, views, catalog.shares)
    comparison = measure(
        lambda name: build_backend(name, catalog, config, device, processes),
        lambda: sampler.stretch(0, None, batch_size),
        catalog,
        device,
    )
    choice = _agreed(_of_all_ranks(decide(comparison), world_size))
    memory.save(choice)
    return choice


def _of_all_ranks(x: T, world_size: int) -> list[T]:
    """Exchanges an object with the ranks that load together. A loader that a rank has for itself waits for nobody."""
    return distributed.all_gather_objects(x) if world_size == distributed.world_size() else [x]


def _agreed(choices: Sequence[Choice]) -> Choice:
    """Returns the decision of all ranks: the first one that is not for `dali`, or `dali`."""
    against = [(rank, choice) for rank, choice in enumerate(choices) if choice.name != "dali"]
    if not against:
        return choices[0]
    rank, choice = against[0]
    return choice if len(choices) == 1 else Choice(choice.name, f"rank {rank} finds that {choice.reason}")
