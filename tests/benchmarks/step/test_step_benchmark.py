"""The step benchmark: contenders that learn something else get no figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cacl.benchmarks.harness import timing
from cacl.benchmarks.step import contenders
from cacl.benchmarks.step.command import StepBenchmark, bench_step
from cacl.benchmarks.step.contenders import BASELINE, COMPILED, OFFICIAL, StepContender, Steps
from cacl.config import Config
from cacl.errors import CaclError
from cacl.reporting.console import Console
from tests.tiny import tiny_config

CONFIG = tiny_config("unused", {"contrast": {"queue_size": 16}, "train": {"batch_size": 4}})
OURS, COMPILED_OURS, THEIRS = contenders.contenders(CONFIG)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "MEASUREMENT_SECONDS", 0.005)


def bench(*listed: StepContender, config: Config = CONFIG) -> StepBenchmark:
    with Console(enabled=False) as console:
        return bench_step(config, repeats=2, console=console, list_contenders=lambda _, compile: listed)


def bent(take: Callable[[Steps, int], Mapping[str, Tensor]]) -> StepContender:
    """Our step with something wrong about it."""

    def prepare(config: Config, device: torch.device) -> Steps:
        steps = OURS.prepare(config, device)
        return steps._replace(take=lambda number: take(steps, number))

    return replace(OURS, name="bent", prepare=prepare)


def other_loss(steps: Steps, number: int) -> Mapping[str, Tensor]:
    losses = steps.take(number)
    return {**losses, "order": losses["order"] * (1 + 2e-6)}


def other_gradient(steps: Steps, number: int) -> Mapping[str, Tensor]:
    losses = steps.take(number)
    gradient = next(steps.state.trained.parameters()).grad
    assert gradient is not None
    gradient.mul_(1.5)
    return losses


def breaks(steps: Steps, number: int) -> Mapping[str, Tensor]:
    raise RuntimeError("out of luck\nin many lines")


@pytest.mark.parametrize(
    ("take", "reason"),
    [
        (other_loss, "refused: order of the first step 2e-06 away from the baseline, 1e-06 allowed"),
        (other_gradient, "refused: gradient of the first step"),
        (breaks, "fails: out of luck"),
    ],
)
def test_a_step_that_learns_something_else_gets_no_figure(
    take: Callable[[Steps, int], Mapping[str, Tensor]], reason: str
) -> None:
    ours, wrong = bench(OURS, bent(take)).rows
    assert ours.reason == ""
    assert ours.stats
    assert wrong.reason.startswith(reason)
    assert (wrong.stats, wrong.ratio) == (None, None)


def test_without_ours_no_figure_counts() -> None:
    result = bench(replace(bent(breaks), name=BASELINE))
    with pytest.raises(CaclError, match="cacl: fails: out of luck; no figure counts without it"):
        result.check()


def test_the_authors_do_more_work_and_learn_the_same() -> None:
    ours, theirs = bench(OURS, THEIRS).rows
    assert theirs.reason == ""
    assert ours.stats
    assert theirs.stats
    assert theirs.errors
    assert max(theirs.errors.values()) < 1e-4
    # They embed as many frames again. The CNN and the transformer do the same work in both.
    state = OURS.prepare(CONFIG, torch.device("cpu")).state
    transformer = state.model.query.transformer
    assert transformer is not None
    with FlopCounterMode(display=False) as counter:
        tokens = transformer.embed(torch.rand(4, 3, 4, 16, 16))
        forward = counter.get_total_flops()
        tokens.sum().backward()
    both = counter.get_total_flops()  # of a query; a key has no backward pass
    # Their logits are products of matrices, too. Our contrast is an operation of its own, which is not counted.
    pairs, clips, dim, keys = 4, 4, 8, 16
    logits = 2 * pairs * clips * dim * (1 + keys)
    assert theirs.stats.flops - ours.stats.flops == forward + both + 2 * logits


def test_what_the_release_cannot_do_is_skipped() -> None:
    other = tiny_config("unused", {"contrast": {"negatives": "batch"}})
    theirs = contenders.contenders(other)[-1]
    assert (theirs.name, theirs.unavailable_reason) == (OFFICIAL, "contrast.negatives = batch: it has queue")


def test_the_compiled_step_has_the_operations_of_the_eager_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its graphs are run as they are here, which takes no compiler."""
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *a, **k: compile(*a, **{**k, "backend": "eager"}))
    torch.compiler.reset()
    ours, compiled = bench(OURS, COMPILED_OURS).rows
    assert (compiled.contender, compiled.reason) == (COMPILED, "")
    assert ours.stats
    assert compiled.stats
    assert compiled.stats.flops == ours.stats.flops > 0
    assert {row.stage for row in compiled.stats.stages.rows} < {row.stage for row in ours.stats.stages.rows}
