"""Parts of a batch in one process, and in two, against as many processes with a part each.

Run as a script, this file starts all of the launches below (see tests/launch.py). The tests judge what they leave in
files.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from cacl import distributed
from cacl.clips import ClipBatch
from cacl.training.train_state import TrainState
from tests import launch
from tests.tiny import tiny_batch, tiny_config

CLIPS, STEPS, RANKS = 16, 2, 4


def steps(_: Path, parts: int, groups: int) -> dict[str, Any]:
    """Takes some steps on the same clips with batch norm in training mode, in whatever number of processes."""
    config = tiny_config(
        "never written",
        {
            "model": {"dropout": 0.0},  # Each process has masks of its own.
            "contrast": {
                "negatives": "both",
                "reversed_weight": 0.5,
                "shuffle_bn_groups": groups,
                "queue_size": 40,
            },
            "train": {"batch_size": CLIPS, "gradient_accumulation": parts},
            "optim": {"name": "momentum", "momentum": 0.0, "lr": 0.1},
        },
    )
    with distributed.process_group("cpu") as device:
        state = TrainState(config, CLIPS, device)
        share = CLIPS // distributed.world_size()
        mine = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
        losses = []
        for step in range(STEPS):
            whole = tiny_batch(CLIPS, seed=step)
            own = ClipBatch(
                views=tuple(view[mine] for view in whole.views),
                order=whole.order[mine],
                video=whole.video[mine],
                index=whole.index[mine],
            )
            metrics = state.train_step(own, sync=True, counts=[share] * distributed.world_size())
            losses.append(distributed.all_gather(metrics["contrast"][None]).mean())
        weights = {name: p.detach().clone() for name, p in state.model.named_parameters()}
        return {"losses": torch.stack(losses), "weights": weights, "queue": state.model.queue.keys.clone()}


LAUNCHES: launch.Launches = {
    f"{ranks} with {groups}": (ranks, partial(steps, parts=RANKS // ranks, groups=groups))
    for ranks in (RANKS, 2)
    for groups in (1, 2)
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("accumulation")
    launch.run_script(__file__, folder)
    return folder


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("ranks", [1, 2])
def test_parts_compute_what_as_many_processes_do(folder: Path, ranks: int, groups: int) -> None:
    """So do the keys, of which each part has groups of its own, and the queue that they enter."""
    expected = launch.results_of(LAUNCHES, f"{RANKS} with {groups}", folder)[0]
    found = (
        steps(folder, RANKS, groups) if ranks == 1 else launch.results_of(LAUNCHES, f"{ranks} with {groups}", folder)[0]
    )
    torch.testing.assert_close(found["losses"], expected["losses"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["queue"], expected["queue"], rtol=1e-4, atol=1e-4)
    for name, weight in expected["weights"].items():
        # Sums in another order, in float32, and two steps of a large learning rate.
        assert (found["weights"][name] - weight).norm() < 1e-3 * weight.norm(), name


@pytest.mark.parametrize("groups", [1, 2])
def test_without_parts_batch_statistics_are_others(folder: Path, groups: int) -> None:
    """It is therefore the parts that make the two alike."""
    expected = launch.results_of(LAUNCHES, f"{RANKS} with {groups}", folder)[0]
    assert (steps(folder, 1, groups)["losses"] - expected["losses"]).abs().max() > 1e-2


if __name__ == "__main__":
    launch.main(LAUNCHES, Path(sys.argv[1]))
