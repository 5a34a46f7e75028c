"""The training steps that `cacl bench-step` compares, and the batches that all of them take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cacl.benchmarks.harness.comparison import Contender
from cacl.benchmarks.rivals import steps
from cacl.clips import ClipBatch
from cacl.config import Config, override
from cacl.stages import stage
from cacl.training.train_state import TrainState

BASELINE = "cacl"
"""The contender that ratios are relative to, and whose refusal is an error."""
COMPILED = "cacl, compiled"
OFFICIAL = "as the authors wrote it"

BATCHES = 2
"""Batches that steps take in turn."""
CLIPS_PER_EPOCH = 10_000
"""What the learning rate is computed from. It is not the subject here."""


class Steps(NamedTuple):
    """The steps of one contender."""

    state: TrainState
    """What they change."""
    take: Callable[[int], Mapping[str, Tensor]]
    """Takes the step of this number, and returns the losses `contrast`, `order` (where there are such) and `loss`, on
    the device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContender(Contender[[Config, torch.device], Steps]):
    """A way to take a training step. It is prepared with a configuration, whose seed decides the first weights."""

    loss_limit: float
    """How far a loss of the first step may be from that of the baseline, relative to it."""
    counted: bool = True
    """Whether torch's counter sees its operations; if not, it has those of the baseline."""


def contenders(config: Config, *, compile: bool = True) -> list[StepContender]:
    """Our step, eager and compiled, and that of the authors.

    Args:
        config: The configuration that all of them take.
        compile: Whether to measure the compiled one.
    """
    ours = StepContender(
        name=BASELINE,
        description="T frames of a view are embedded; the copy is a gather, the contrast one operation for all pairs",
        prepare=_our_steps,
        loss_limit=1e-6,
    )
    compiled = StepContender(
        name=COMPILED,
        description="the same with train.compile = true, after compiling",
        prepare=lambda config, device: _our_steps(override(config, ["train.compile=true"]), device),
        loss_limit=1e-4,
        counted=False,
    )
    official = StepContender(
        name=OFFICIAL,
        description="2T frames of a view are embedded, the labels are made by Python, each pair has logits of its own",
        prepare=_official_steps,
        loss_limit=1e-6,
        unavailable_reason=steps.unavailable_reason(config),
    )
    return [ours, compiled, official] if compile else [ours, official]


def make_batches(config: Config) -> list[ClipBatch]:
    """Makes batches of noise in the memory of the host, as a loader delivers them."""
    clip, size = config.clip, config.train.batch_size
    generator = torch.Generator().manual_seed(config.seed)
    batches = []
    for number in range(BATCHES):
        order = torch.rand(size, clip.frames, generator=generator).argsort(1).to(torch.uint8)
        shape = (size, 3, clip.frames, clip.size, clip.size)
        views = tuple(torch.rand(shape, generator=generator).half() for _ in range(2))
        index = torch.arange(number * size, (number + 1) * size)
        batches.append(ClipBatch(views=views, order=order, video=index, index=index))
    return batches


def _our_steps(config: Config, device: torch.device) -> Steps:
    state, batches = TrainState(config, CLIPS_PER_EPOCH, device), make_batches(config)

    def take(number: int) -> Mapping[str, Tensor]:
        with stage("data"):
            batch = batches[number % len(batches)]
        return state.train_step(batch, sync=device.type == "cpu")

    return Steps(state, take)


def _official_steps(config: Config, device: torch.device) -> Steps:
    state = TrainState(config, CLIPS_PER_EPOCH, device)
    # The shuffled copies are not timed: in the release, too, the workers of the loader make them.
    batches, step = [steps.official_batch(batch) for batch in make_batches(config)], steps.OfficialStep(state)

    def take(number: int) -> Mapping[str, Tensor]:
        with stage("data"):
            batch = batches[number % len(batches)]
        return step(batch)

    return Steps(state, take)
