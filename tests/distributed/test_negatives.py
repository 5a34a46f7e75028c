"""Negatives of the batch in two and three processes with unequal numbers of clips: together they are one batch.

Run as a script, this file starts all of the launches below (see tests/launch.py). The tests judge what they leave in
files.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cacl import distributed
from cacl.clips import ClipBatch
from cacl.method.losses import contrast_loss
from cacl.registry import PAIRS
from cacl.training.train_state import TrainState
from tests import launch
from tests.method.contrast_truth import (
    PUBLISHED_PAIRS,
    SMALL_GRADIENT,
    SMALL_LOSS,
    assert_metrics,
    contrast_in_numpy,
    contrast_in_torch,
    random_embeddings,
)
from tests.tiny import tiny_config

CLIPS, TEMPERATURE, STEPS = 9, 0.07, 3
COUNTS = {2: (2, 7), 3: (4, 2, 3)}
NEGATIVES = ("batch", "both")


# ------------------------------------------------------------------------- what a process does; without torch's help


def mine(counts: Sequence[int]) -> slice:
    first = sum(counts[: distributed.rank()])
    return slice(first, first + counts[distributed.rank()])


def losses(_: Path) -> dict[tuple[str, str], Any]:
    """Computes the losses of this rank's embeddings and their gradients, weighted as a training step does."""
    results = {}
    with distributed.process_group("cpu"):
        counts = COUNTS[distributed.world_size()]
        own = mine(counts)
        for pairs, negatives in product(PUBLISHED_PAIRS, NEGATIVES):
            whole, queue = random_embeddings((CLIPS, 65, 33))
            embeddings = {name: x.detach()[own].requires_grad_(x.requires_grad) for name, x in whole.items()}
            loss, metrics = contrast_loss(
                embeddings,
                queue,
                TEMPERATURE,
                PAIRS.load(pairs),
                negatives,
                gather=partial(distributed.all_gather, counts=counts),
                rank_offset=own.start,
            )
            (loss * counts[distributed.rank()] / CLIPS).backward()
            gradients = {str(name): x.grad for name, x in embeddings.items() if x.grad is not None}
            results[pairs, negatives] = {"loss": loss.detach(), "metrics": metrics, "gradients": gradients}
    return results


def steps(folder: Path, negatives: str) -> dict[str, Any]:
    """Takes some steps on the same clips, in whatever number of processes.

    The model has no dropout, and its batch norm is in evaluation mode, so that nothing but the contrast depends on
    which clips share a process.
    """
    config = tiny_config(
        folder / "never written",
        {
            "contrast": {"queue_size": 40, "momentum": 0.5, "negatives": negatives},
            "model": {"dropout": 0.0},
            "optim": {"lr": 0.1},
            "train": {"batch_size": CLIPS, "epochs": 10.0},
        },
    )
    with distributed.process_group("cpu") as device:
        train_state = TrainState(config, CLIPS, device)
        train_state.model.eval()
        counts = COUNTS.get(distributed.world_size(), (CLIPS,))
        own = mine(counts)
        seen = []
        for step in range(STEPS):
            generator = torch.Generator().manual_seed(step)
            views = torch.rand(2, CLIPS, 3, 4, 16, 16, generator=generator).half()
            order = torch.stack([torch.randperm(4, generator=generator) for _ in range(CLIPS)]).byte()
            number = torch.arange(CLIPS)
            batch = ClipBatch(views=tuple(views[:, own]), order=order[own], video=number[own], index=number[own])
            seen.append(train_state.train_step(batch, sync=True, counts=counts))
        state = {name: x.clone() for name, x in train_state.model.state_dict().items()}
    return {"metrics": seen, "state": state}


LAUNCHES: launch.Launches = {
    **{f"losses of {world}": (world, losses) for world in COUNTS},
    **{
        f"{negatives} of {world}": (world, partial(steps, negatives=negatives))
        for world, negatives in product(COUNTS, NEGATIVES)
    },
}


# ------------------------------------------------------------------------------------------------------- the tests


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    launch.run_script(__file__, folder)
    return folder


@pytest.fixture(scope="module")
def steps_alone(folder: Path) -> dict[str, dict[str, Any]]:
    """What one process computes, with each kind of negatives."""
    return {negatives: steps(folder, negatives) for negatives in NEGATIVES}


def joined(parts: Sequence[dict[str, Tensor]], counts: Sequence[int]) -> dict[str, Tensor]:
    """Returns the means over all clips, from the means of each rank."""
    assert len({tuple(part) for part in parts}) == 1
    pairs = list(zip(parts, counts, strict=True))
    return {name: torch.stack([part[name] * count for part, count in pairs]).sum() / CLIPS for name in parts[0]}


@pytest.mark.parametrize("pairs", PUBLISHED_PAIRS)
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("world", COUNTS)
def test_losses_and_gradients_are_those_of_one_batch(folder: Path, world: int, negatives: str, pairs: str) -> None:
    """The formula gives, in float64, loss and metrics over all clips, and every rank's part of the gradients."""
    results = [result[pairs, negatives] for result in launch.results_of(LAUNCHES, f"losses of {world}", folder)]
    embeddings, queue = random_embeddings((CLIPS, 65, 33))
    expected, metrics = contrast_in_numpy(embeddings, queue, TEMPERATURE, pairs, negatives)
    found = joined([result["metrics"] | {"contrast/mean": result["loss"]} for result in results], COUNTS[world])
    assert_metrics(found, metrics | {"contrast/mean": expected}, SMALL_LOSS / TEMPERATURE)

    _, gradients = contrast_in_torch(embeddings, queue, TEMPERATURE, pairs, torch.float64, negatives)
    for result in results:
        assert result["gradients"].keys() == set(map(str, gradients))
    for name, gradient in gradients.items():
        together = torch.cat([result["gradients"][str(name)] for result in results])
        assert (together - gradient).abs().max() <= SMALL_GRADIENT / TEMPERATURE, name


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("world", COUNTS)
def test_ranks_train_as_one_process_does(
    folder: Path, steps_alone: dict[str, dict[str, Any]], world: int, negatives: str
) -> None:
    """The metrics of every step agree, and after the last one all weights, momentum copies and the queue.

    The shares of top-1 are left out, and compared in float64 above: an untrained transformer has embeddings so alike
    that single precision may turn a tie either way, and one clip is a ninth.
    """
    expected = steps_alone[negatives]
    results = launch.results_of(LAUNCHES, f"{negatives} of {world}", folder)
    names = expected["metrics"][0].keys()
    assert {"loss", "contrast", "batch_top1/transformer_query.transformer_key"} <= names
    for step in range(STEPS):
        found = joined([result["metrics"][step] for result in results], COUNTS[world])
        assert found.keys() == names
        for name in (name for name in names if "top1" not in name):
            torch.testing.assert_close(
                found[name],
                expected["metrics"][step][name],
                rtol=1e-4,
                atol=2e-5,
                msg=lambda m, name=name, step=step: f"{name} in step {step}: {m}",
            )
    for result in results:
        assert result["state"].keys() == expected["state"].keys()
        for name, value in expected["state"].items():
            torch.testing.assert_close(
                result["state"][name], value, rtol=1e-4, atol=2e-5, msg=lambda m, name=name: f"{name}: {m}"
            )
            assert torch.equal(result["state"][name], results[0]["state"][name]), name


if __name__ == "__main__":
    launch.main(LAUNCHES, Path(sys.argv[1]))
