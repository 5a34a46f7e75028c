"""Two and four processes, joined by gloo on the CPU, train as one process does.

Run as a script, this file starts all of the launches below (see tests/launch.py). The tests judge what they leave in
files.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cacl import distributed
from cacl.checkpoints import checkpoint
from cacl.clips import ClipBatch
from cacl.config import Config, to_toml
from cacl.errors import CaclError
from cacl.loaders.catalog.scan import scan
from cacl.training.checkpointer import Checkpointer
from cacl.training.knn_validation import KnnValidation
from cacl.training.train_state import TrainState
from cacl.training.trainer import train
from tests import launch
from tests.distributed.small_runs import BATCH, STEPS, VIDEOS, configured, write_videos

training = import_module("cacl.training.trainer")

DIED = 5  # the step in which the interrupted runs end, after the checkpoint of step 4
SAME_CLIPS_STEPS, SAME_CLIPS_BATCH = 3, 8


# ------------------------------------------------------------------------- what a process does; without torch's help


class Died(BaseException):
    """Stands for the end of the run, between two checkpoints, in every process at the same step."""


def mask_of(dropout: nn.Dropout, x: Tensor) -> Tensor:
    """Returns what the dropout is about to leave out of x."""
    with torch.random.fork_rng(devices=[]):
        return F.dropout(torch.ones_like(x), dropout.p) == 0


def observed(config: Config, *, resume: bool = False, dies: bool = False) -> dict[str, Any]:
    """Trains, and returns the samples and the dropout masks of each step, and the state of this rank after the last."""
    samples, masks, last = [], [], []

    class Observed(TrainState):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            drops = (module for module in self.model.query.modules() if isinstance(module, nn.Dropout))
            (dropout,) = (module for module in drops if module.p > 0)
            dropout.register_forward_pre_hook(lambda _, inputs: masks.append(mask_of(dropout, inputs[0])))

        def train_step(self, batch: ClipBatch, **options: Any) -> dict[str, Tensor]:
            samples.append((batch.index.tolist(), batch.video.tolist()))
            metrics = super().train_step(batch, **options)
            last[:] = [self]
            if dies and self.step == DIED:
                raise Died
            return metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "TrainState", Observed)
        try:
            train(config, resume=resume)
        except Died:
            assert dies
    (train_state,) = last
    weights = {name: p.detach() for name, p in train_state.model.named_parameters()}
    return {"samples": samples, "masks": masks, "weights": weights, "queue": train_state.model.queue.state_dict()}


def train_same_clips(folder: Path, groups: int) -> dict[str, Any]:
    """Takes three steps on the same clips, in whatever number of processes.

    The model has no dropout, and its batch norm is in evaluation mode, so that nothing depends on which clips share a
    process.
    """
    config = configured(
        folder,
        contrast={"queue_size": 40, "momentum": 0.5, "shuffle_bn_groups": groups, "reversed_weight": 0.5},
        model={"dropout": 0.0},
        train={"device": "cpu", "batch_size": SAME_CLIPS_BATCH, "epochs": 10.0},
    )
    with distributed.process_group("cpu") as device:
        train_state = TrainState(config, VIDEOS, device)
        train_state.model.eval()
        share = SAME_CLIPS_BATCH // distributed.world_size()
        mine = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
        keys, means, measures = [], [], {}
        for step in range(SAME_CLIPS_STEPS):
            generator = torch.Generator().manual_seed(step)
            views = torch.rand(2, SAME_CLIPS_BATCH, 3, 4, 16, 16, generator=generator).half()
            order = torch.stack([torch.randperm(4, generator=generator) for _ in range(SAME_CLIPS_BATCH)]).byte()
            number = torch.arange(SAME_CLIPS_BATCH)
            batch = ClipBatch(views=tuple(views[:, mine]), order=order[mine], video=number[mine], index=number[mine])
            keys.append(train_state.model(batch, train_state.step)[1])
            metrics = train_state.train_step(batch, sync=True)
            of_rank = torch.stack([metrics["similarity/cnn_query.cnn_key"], metrics["contrast/reversed"]])
            means.append(distributed.all_gather(of_rank[None]).mean(0))
            measures = train_state.measure()
        state = {name: x.clone() for name, x in train_state.model.state_dict().items()}
    return {"keys": torch.stack(keys), "means": torch.stack(means), "measures": measures, "state": state}


def score_new_encoders(folder: Path) -> dict[str, Any]:
    """Scores encoders that are not trained yet. All ranks but the first have other batch statistics."""
    config = configured(
        folder, "scored", data={"root": str(folder / "labelled.csv"), "layout": "csv"}, knn={"every": 1}
    )
    with distributed.process_group("cpu") as device:
        train_state = TrainState(config, VIDEOS, device)
        statistics = [x for name, x in train_state.model.query.named_buffers() if name.endswith("running_mean")]
        for mean in statistics:
            mean += 10 * distributed.rank()
        validation = KnnValidation(train_state, scan(config.data))
        scores, (found, _) = validation.run(Checkpointer(config, "")), validation._features()
        features = {name: {video: row.tolist() for video, row in rows.items()} for name, rows in found.items()}
    return {"scores": scores, "features": features, "own statistics": torch.cat(statistics).min().item()}


def failure(config: Config) -> str:
    try:
        train(config)
    except CaclError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def stopped(config: Config) -> str:
    """Trains while a signal reaches the last rank alone, in step 3: those of a cluster never come at the same time."""

    class Observed(TrainState):
        def train_step(self, batch: ClipBatch, **options: Any) -> dict[str, Tensor]:
            if self.step == 2 and distributed.rank() == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().train_step(batch, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "TrainState", Observed)
        return failure(config)


LAUNCHES: launch.Launches = {
    "same clips of 2": (2, lambda folder: train_same_clips(folder, 1)),
    "same clips of 2 in groups": (2, lambda folder: train_same_clips(folder, 2)),
    "whole": (2, lambda folder: observed(configured(folder, "whole"))),
    "died": (2, lambda folder: observed(configured(folder, "broken"), dies=True)),
    "resumed": (2, lambda folder: observed(configured(folder, "broken"), resume=True)),
    "odd batch": (2, lambda folder: failure(configured(folder, "odd", train={"device": "cpu", "batch_size": 5}))),
    "no videos": (2, lambda folder: failure(configured(folder, "none", data={"root": str(folder / "nowhere")}))),
    "k-NN": (2, score_new_encoders),
    "stopped": (2, lambda folder: stopped(configured(folder, "stopped"))),
    "same clips of 4": (4, lambda folder: train_same_clips(folder, 1)),
}


# ------------------------------------------------------------------------------------------------------- the tests


@pytest.fixture(scope="module")
def folder(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tests, after all launches."""
    folder = tmp_path_factory.mktemp("ranks")
    write_videos(folder, make_video)
    rows = (folder / "videos/labels.csv").read_text().replace(",test", ",val").splitlines()
    (folder / "labelled.csv").write_text("\n".join([rows[0], *(f"videos/{row}" for row in rows[1:])]))
    launch.run_script(__file__, folder)
    return folder


@pytest.fixture(scope="module")
def same_clips_alone(folder: Path) -> dict[str, Any]:
    return train_same_clips(folder, 1)


def results_of(folder: Path, name: str) -> list[Any]:
    return launch.results_of(LAUNCHES, name, folder)


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert one
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def assert_same_checkpoint(one: Path, other: Path) -> None:
    first, second = checkpoint.load(one), checkpoint.load(other)
    assert first.step == second.step
    assert_equal(first.model, second.model)
    assert first.optimizer["param_groups"] == second.optimizer["param_groups"]
    states = first.optimizer["state"], second.optimizer["state"]
    assert states[0].keys() == states[1].keys()
    for key, state in states[0].items():
        assert_equal(state, states[1][key])


@pytest.mark.parametrize("launch", ["same clips of 2", "same clips of 2 in groups", "same clips of 4"])
def test_many_processes_compute_what_one_does(folder: Path, same_clips_alone: dict[str, Any], launch: str) -> None:
    """The keys of all clips come in their order, though shuffled batch norm had dealt them out to other processes. The
    similarities of queries to the keys of their own clips agree, and, after three steps, all measures,
    weights and the queue."""
    expected, results = same_clips_alone, results_of(folder, launch)
    keys = expected["keys"][0]
    assert keys.shape == (2 * SAME_CLIPS_BATCH, 8)
    assert torch.cdist(keys, keys).fill_diagonal_(1).min() > 1e-3  # a key in the place of another would be seen
    for result in results:
        torch.testing.assert_close(result["keys"], expected["keys"], rtol=0, atol=2e-5)
        torch.testing.assert_close(result["means"], expected["means"], rtol=0, atol=2e-5)
        assert "drift/transformer_query" in result["measures"]
        assert result["measures"] == pytest.approx(expected["measures"], rel=1e-3, abs=1e-4)
        assert result["state"].keys() == expected["state"].keys()
        for name, value in expected["state"].items():
            torch.testing.assert_close(
                result["state"][name], value, rtol=1e-4, atol=2e-5, msg=lambda m, name=name: f"{name}: {m}"
            )
        assert_equal(result["state"], results[0]["state"])


def test_ranks_share_the_videos_of_a_score_and_take_the_encoders_of_the_first(folder: Path) -> None:
    expected, results = score_new_encoders(folder), results_of(folder, "k-NN")
    assert [result["own statistics"] for result in results] == [0, 10]
    for name, rows in expected["features"].items():
        parts = [result["features"][name] for result in results]
        assert sorted(video for part in parts for video in part) == sorted(rows) == list(range(VIDEOS))
        for part in parts:
            for video, row in part.items():
                assert row == pytest.approx(rows[video], rel=1e-4, abs=1e-5)
    assert all(result["scores"] == expected["scores"] for result in results)


def test_ranks_end_with_the_same_weights_and_queue(folder: Path) -> None:
    first, second = results_of(folder, "whole")
    assert_equal(first["weights"], second["weights"])
    assert_equal(first["queue"], second["queue"])
    written = 2 * STEPS * BATCH  # keys of both encoders, of all ranks
    assert first["queue"]["pointer"].item() == written % 30
    saved = checkpoint.load(folder / "whole")
    assert saved.step == STEPS
    assert_equal({name: saved.model[name] for name in first["weights"]}, first["weights"])
    assert torch.equal(saved.model["queue.keys"], first["queue"]["keys"])


def test_ranks_share_the_samples_of_one_process(folder: Path) -> None:
    alone = observed(configured(folder, "alone"))
    first, second = results_of(folder, "whole")
    together = [
        (one[0] + other[0], one[1] + other[1]) for one, other in zip(first["samples"], second["samples"], strict=True)
    ]
    assert together == alone["samples"]
    assert [index for indices, _ in together for index in indices] == list(range(STEPS * BATCH))
    visited = [video for _, videos in together for video in videos]
    for epoch in range(STEPS * BATCH // VIDEOS):
        assert sorted(visited[epoch * VIDEOS : (epoch + 1) * VIDEOS]) == list(range(VIDEOS))


def test_every_rank_and_step_has_dropout_masks_of_its_own(folder: Path) -> None:
    masks = [mask for result in results_of(folder, "whole") for mask in result["masks"]]
    assert len(masks) == 2 * STEPS
    assert all(0.2 < mask.double().mean() < 0.8 for mask in masks)
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(masks, 2))


def test_two_ranks_resume_to_the_same_bits(folder: Path) -> None:
    whole, died, resumed = (results_of(folder, name) for name in ("whole", "died", "resumed"))
    for rank in range(2):
        assert died[rank]["samples"] == whole[rank]["samples"][:DIED]
        assert resumed[rank]["samples"] == whole[rank]["samples"][DIED - 1 :]
        assert_equal(resumed[rank]["weights"], whole[rank]["weights"])
    assert_same_checkpoint(folder / "whole", folder / "broken")
    lines = (folder / "broken/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, STEPS + 1))  # one rank wrote each of them


def test_one_process_goes_on_with_the_run_of_two(folder: Path) -> None:
    """The run is nearly finished, since the checkpoint is set back by hand to the step before the last."""
    shutil.copytree(folder / "whole", folder / "fewer")
    saved = dataclasses.replace(checkpoint.load(folder / "whole"), config=configured(folder, "fewer"), step=STEPS - 1)
    checkpoint.save(folder / "fewer/checkpoint.pt", saved)
    result = observed(configured(folder, "fewer"), resume=True)
    assert [indices for indices, _ in result["samples"]] == [list(range((STEPS - 1) * BATCH, STEPS * BATCH))]
    after = checkpoint.load(folder / "fewer")
    assert after.step == STEPS
    assert all(value.isfinite().all() for value in after.model.values())


def test_a_batch_that_does_not_divide_is_one_line(folder: Path) -> None:
    for message in results_of(folder, "odd batch"):
        assert message.startswith("ConfigError: train.batch_size = 5 does not divide")
        assert "2 processes" in message
        assert "\n" not in message
    assert not (folder / "odd/checkpoint.pt").exists()


def test_what_fails_in_the_first_process_is_told_by_all(folder: Path) -> None:
    """The first process scans, while the others wait for it."""
    messages = results_of(folder, "no videos")
    assert messages[0].startswith("DataError: data.root = ")
    assert messages[0] == messages[1]


def test_a_signal_to_one_rank_stops_all_after_the_same_step(folder: Path) -> None:
    messages = results_of(folder, "stopped")
    step = checkpoint.load(folder / "stopped").step
    assert step in (3, 4)
    for message in messages:
        assert message.startswith("TrainingInterruptedError: stopped by ")
        assert f"after step {step} of {STEPS}" in message


def test_torchrun(folder: Path) -> None:
    """A run that is started as users do it has the same bits as those above, and its threads wait asleep."""
    config = configured(folder, "torchrun")
    file = folder / "torchrun.toml"
    file.write_text(to_toml(config))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    finished = subprocess.run(
        [*command, "-m", "cacl.cli", "train", "-c", str(file)],
        env=environment | {"OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.count(f"step {STEPS}/{STEPS}") == 1  # the log is that of one rank
    if "GOMP_SPINCOUNT" in finished.stderr:  # GNU's OpenMP, as in torch's wheels
        assert finished.stderr.count("GOMP_SPINCOUNT = '0'") == 2  # of both ranks, and not of what started them
    assert_same_checkpoint(folder / "torchrun", folder / "whole")


if __name__ == "__main__":
    launch.main(LAUNCHES, Path(sys.argv[1]))
