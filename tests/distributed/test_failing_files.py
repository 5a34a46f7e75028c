"""Files that fail in some processes of a run and not in others: all agree on what each step is trained on.

Run as a script, this file starts all of the launches below (see tests/launch.py).
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cacl import distributed
from cacl.checkpoints import checkpoint
from cacl.clips import ClipBatch
from cacl.config import Config
from cacl.errors import CaclError
from cacl.loaders.sampling.sampler import epoch_order
from cacl.training.train_state import TrainState
from cacl.training.trainer import train
from tests import launch
from tests.damage import deleted, overwritten, truncated
from tests.tiny import tiny_config

training = import_module("cacl.training.trainer")

VIDEOS, BATCH, STEPS, EVERY = 9, 6, 9, 2
DIED = 5
EMPTY = 3
"""The step in which the second of two ranks loses all of its clips."""
FAILING = epoch_order(0, (EMPTY * BATCH - 1) // VIDEOS, VIDEOS)[-BATCH // 2 :]
"""The videos of its clips in that step, which ends an epoch."""


def configured(folder: Path, run: str, **sections: dict[str, Any]) -> Config:
    own = {
        "data": {"root": str(folder / f"videos of {run}"), "cache": str(folder / "cache"), "max_rejected_share": 0.5},
        "model": {"dropout": 0.0},
        "train": {"epochs": STEPS * BATCH / VIDEOS, "batch_size": BATCH, "checkpoint_every": EVERY},
    }
    return tiny_config(folder / run, own, sections)


class Died(BaseException):
    """Stands for the end of the run, in every process at the same step."""


def observed(config: Config, *, damages: bool = True, dies: bool = False, resume: bool = False) -> dict[str, Any]:
    """Trains on videos of which some are damaged when all ranks have scanned them."""
    clips: dict[int, list[tuple[int, int]]] = {}
    last: list[TrainState] = []
    summary: dict[str, Any] = {}

    class Observed(TrainState):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            last[:] = [self]
            if damages and distributed.rank() == 0:
                for video, happens in zip(FAILING, (deleted, overwritten, truncated), strict=True):
                    happens(Path(config.data.root) / f"{video}.mp4")
            distributed.barrier()

        def train_step(self, batch: ClipBatch, **options: Any) -> dict[str, Tensor]:
            clips[self.step + 1] = list(zip(batch.index.tolist(), batch.video.tolist(), strict=True))
            metrics = super().train_step(batch, **options)
            self.ended()
            return metrics

        def skip_step(self, **options: Any) -> dict[str, Tensor]:
            metrics = super().skip_step(**options)
            self.ended()
            return metrics

        def ended(self) -> None:
            if dies and self.step == DIED:
                raise Died

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "TrainState", Observed)
        try:
            summary = train(config, resume=resume)
        except Died:
            assert dies
    model = last[0].model
    state = {name: p.detach() for name, p in model.named_parameters()} | {"queue": model.queue.state_dict()}
    return {"summary": summary, "clips": clips, "state": state}


def failure(config: Config) -> str:
    try:
        observed(config)
    except CaclError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


UNEVEN = [(5, 3), (4, 4), (2, 6)]
SAME_CLIPS = 8


def train_same_clips(folder: Path, counts: Sequence[Sequence[int]], groups: int = 1) -> dict[str, Any]:
    """Takes steps on the same clips, dealt out to the ranks by the counts of each step.

    The batch norm of the model is in evaluation mode, so that it does not matter which clips share a process.
    """
    config = configured(folder, "same clips", contrast={"queue_size": 40, "momentum": 0.5, "shuffle_bn_groups": groups})
    with distributed.process_group("cpu") as device:
        train_state = TrainState(config, VIDEOS, device)
        train_state.model.eval()
        keys, norms = [], []
        for step, dealt in enumerate(counts):
            generator = torch.Generator().manual_seed(step)
            views = torch.rand(2, SAME_CLIPS, 3, 4, 16, 16, generator=generator).half()
            order = torch.stack([torch.randperm(4, generator=generator) for _ in range(SAME_CLIPS)]).byte()
            first = sum(dealt[: distributed.rank()])
            mine, number = slice(first, first + dealt[distributed.rank()]), torch.arange(SAME_CLIPS)
            batch = ClipBatch(views=tuple(views[:, mine]), order=order[mine], video=number[mine], index=number[mine])
            keys.append(train_state.model(batch, train_state.step, dealt)[1])
            norms.append(train_state.train_step(batch, sync=True, counts=dealt)["gradient_norm"])
        state = {name: x.clone() for name, x in train_state.model.state_dict().items()}
    return {"keys": torch.stack(keys), "norms": torch.stack(norms), "state": state}


LAUNCHES: launch.Launches = {
    "uneven": (2, lambda folder: train_same_clips(folder, UNEVEN)),
    "uneven groups": (2, lambda folder: train_same_clips(folder, [(5, 3), (4, 4), (3, 5)], groups=2)),
    "uneven three": (3, lambda folder: train_same_clips(folder, [(2, 3, 3), (4, 2, 2), (1, 5, 2)])),
    "whole": (2, lambda folder: observed(configured(folder, "whole"))),
    "died": (2, lambda folder: observed(configured(folder, "broken"), dies=True)),
    "resumed": (2, lambda folder: observed(configured(folder, "broken"), damages=False, resume=True)),
    "failing": (
        2,
        lambda folder: failure(configured(folder, "failing", loader={"backend": "cpu", "on_failure": "fail"})),
    ),
}


# ------------------------------------------------------------------------------------------------------- the tests


@pytest.fixture(scope="module")
def folder(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    for number in range(VIDEOS):
        make_video(folder / f"videos/{number}.mp4", frames=8 + number, size=(32, 24), gop=4)
    for run in ("whole", "broken", "failing", "alone"):
        shutil.copytree(folder / "videos", folder / f"videos of {run}")
    launch.run_script(__file__, folder)
    return folder


@pytest.fixture(scope="module")
def same_clips_alone(folder: Path) -> dict[str, Any]:
    return train_same_clips(folder, [(SAME_CLIPS,)] * 3)


def results_of(folder: Path, name: str) -> list[Any]:
    return launch.results_of(LAUNCHES, name, folder)


def skipped_clips(folder: Path, run: str) -> list[tuple[int, int, str, bool]]:
    """Returns the step, the index and the path of every skipped clip, and whether it failed."""
    lines = [json.loads(line) for line in (folder / run / "skipped_clips.jsonl").read_text().splitlines()]
    return [(line["step"], line["index"], line["path"], line["reason"] is not None) for line in lines]


def assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, dict):
            assert_equal(value, other[name])
        else:
            assert torch.equal(value, other[name]) if isinstance(value, Tensor) else value == other[name], name


@pytest.mark.parametrize("name", ["uneven", "uneven groups", "uneven three"])
def test_unequal_shares_are_the_same_step(folder: Path, same_clips_alone: dict[str, Any], name: str) -> None:
    """Keys come in the order of the clips, and the gradient is that of the mean over all clips."""
    expected = same_clips_alone
    for result in results_of(folder, name):
        torch.testing.assert_close(result["keys"], expected["keys"], rtol=0, atol=2e-5)
        torch.testing.assert_close(result["norms"], expected["norms"], rtol=1e-4, atol=0)
        for key, value in expected["state"].items():
            torch.testing.assert_close(
                result["state"][key], value, rtol=1e-4, atol=2e-5, msg=lambda m, key=key: f"{key}: {m}"
            )


def test_every_clip_is_trained_on_by_one_rank_or_accounted_for(folder: Path) -> None:
    ranks, lines = results_of(folder, "whole"), skipped_clips(folder, "whole")
    first, second = (rank["clips"] for rank in ranks)
    trained = [clip for clips in (first, second) for step in clips.values() for clip in step]
    assert sorted([index for index, _ in trained] + [line[1] for line in lines]) == list(range(STEPS * BATCH))
    assert {video for _, video in trained}.isdisjoint(FAILING)

    assert first.keys() == second.keys()
    assert any(len(first[step]) != len(second[step]) for step in first)
    assert EMPTY not in first
    empty = [line for line in lines if line[0] == EMPTY]
    assert [(path, failed) for *_, path, failed in empty[:3]] == [(f"{video}.mp4", True) for video in FAILING]
    assert [(index - (EMPTY - 1) * BATCH, failed) for _, index, _, failed in empty[3:]] == [
        (slot, False) for slot in range(3)
    ]
    for step in range(1, STEPS + 1):
        enough = all(len(clips) >= 2 for clips in loaded(lines, step))
        assert (step in first) == enough, step


def loaded(lines: list[tuple[int, int, str, bool]], step: int) -> list[set[int]]:
    """Returns the clips of this step that loaded, by rank."""
    failed = {index for of, index, _, failed in lines if of == step and failed}
    start = (step - 1) * BATCH
    return [set(range(start + 3 * rank, start + 3 * rank + 3)) - failed for rank in range(2)]


def test_ranks_end_alike_and_say_so_once(folder: Path) -> None:
    first, second = results_of(folder, "whole")
    assert_equal(first["state"], second["state"])
    trained = sum(len(step) for rank in (first, second) for step in rank["clips"].values())
    assert first["state"]["queue"]["pointer"].item() == 2 * trained % 30
    for name in ("clips_trained", "clips_skipped", "files_failed"):
        assert first["summary"][name] == second["summary"][name]
    assert first["summary"]["clips_trained"] == trained
    assert first["summary"]["files_failed"].keys() == {f"{video}.mp4" for video in FAILING}
    told = [(folder / f"whole.{rank}.err").read_text() for rank in range(2)]
    assert [text.count("skipping clip") for text in told] == [3, 0]
    assert "too few of its clips loaded" in told[0]


def test_one_process_loads_the_same_clips(folder: Path) -> None:
    """It skips fewer steps, as it has more clips in each."""
    alone = observed(configured(folder, "alone"))
    lines = [skipped_clips(folder, run) for run in ("alone", "whole")]
    assert [line for line in lines[0] if line[3]] == [line for line in lines[1] if line[3]]
    assert alone["clips"].keys() > results_of(folder, "whole")[0]["clips"].keys()


def test_two_ranks_resume_to_the_same_bits(folder: Path) -> None:
    for rank in range(2):
        whole, died, resumed = (results_of(folder, name)[rank] for name in ("whole", "died", "resumed"))
        assert died["clips"] == {step: clips for step, clips in whole["clips"].items() if step <= DIED}
        assert resumed["clips"] == {step: clips for step, clips in whole["clips"].items() if step >= DIED}
        assert_equal(resumed["state"], whole["state"])
        for name in ("clips_trained", "clips_skipped", "files_failed"):
            assert resumed["summary"][name] == whole["summary"][name]
    assert skipped_clips(folder, "broken") == skipped_clips(folder, "whole")
    saved = [checkpoint.load(folder / run) for run in ("whole", "broken")]
    assert saved[0].data_fingerprint == saved[1].data_fingerprint
    assert_equal(saved[0].model, saved[1].model)


def test_all_ranks_stop_at_the_failure_of_one(folder: Path) -> None:
    messages = results_of(folder, "failing")
    assert messages[0] == messages[1]
    assert messages[0].startswith(f"DataError: {folder}/videos of failing/")
    assert 'loader.on_failure = "skip" goes on' in messages[0]
    assert len({line[0] for line in skipped_clips(folder, "failing")}) == 1


if __name__ == "__main__":
    launch.main(LAUNCHES, Path(sys.argv[1]))
