"""Two processes, joined by gloo on the CPU, fine-tune as one process does.

Run as a script, this file starts all of the launches below (see tests/launch.py). The tests judge what they leave in
files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cacl import cli, distributed
from cacl.checkpoints import checkpoint
from cacl.checkpoints.checkpoint import BEST_NAME
from cacl.clips import ClipBatch
from cacl.config import Config, replace, to_toml
from cacl.evaluation.finetuned import finetuned_scores
from cacl.training import finetuning
from cacl.training.finetune_state import FinetuneState
from cacl.training.finetuning import finetune
from tests import launch
from tests.same_bits import leaves
from tests.stand_ins import write_ucf101
from tests.training.finetuning_runs import BATCH, finetune_config, write_labelled_videos

STEPS, DIED = 8, 6


class Died(BaseException):
    """Stands for the end of the run, between two checkpoints, in every process at the same step."""


def configured(folder: Path, run: str, **settings: Any) -> Config:
    """Makes configurations of runs in which two processes decide nothing, since all batch statistics are frozen."""
    return finetune_config(
        folder / run,
        STEPS,
        data={"root": str(folder / "videos"), "cache": str(folder / "cache")},
        finetune={"trained": "classifier", "val_clips": 2, **settings},
        optim={"name": "momentum", "lr": 0.5},
        train={"checkpoint_every": 4},
    )


def observed(config: Config, *, resume: bool = False, dies: bool = False) -> dict[str, Any]:
    """Fine-tunes, and returns the clips of each step, and what this rank holds in the end."""
    clips, last = [], []

    class Observed(FinetuneState):
        def train_step(self, batch: ClipBatch, **options: Any) -> dict[str, Tensor]:
            clips.append(batch.index.tolist())
            metrics = super().train_step(batch, **options)
            last[:] = [self]
            if dies and self.step == DIED:
                raise Died
            return metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetuning, "FinetuneState", Observed)
        try:
            finetune(config, resume=resume)
        except Died:
            assert dies
    (state,) = last
    weights = {name: parameter.detach() for name, parameter in state.model.named_parameters()}
    return {"clips": clips, "weights": weights, "record": dataclasses.asdict(state.record)}


def trained_whole(folder: Path, run: str, **options: Any) -> dict[str, Any]:
    return observed(configured(folder, run, trained="all", dropout=0.5), **options)


def scores_of(folder: Path) -> Tensor:
    """Classifies the test videos by the last state of the run `two`."""
    config = replace(configured(folder, "two"), {"retrieval.clips_per_video": 3, "retrieval.batch_size": 2})
    return torch.tensor(finetuned_scores(checkpoint.load(folder / "two"), config, crops=3).scores)


def folds_of(folder: Path) -> str:
    """Runs the command for two folds, and returns what this rank prints."""
    config = configured(folder, "folds", val_share=0.3)
    (folder / "folds.toml").write_text(to_toml(replace(config, {"data.root": str(folder / "UCF-101")})))
    sys.argv = ["cacl", "finetune", "-c", str(folder / "folds.toml"), "--folds", "1,2", "--json"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        cli.main()
    return printed.getvalue()


LAUNCHES: launch.Launches = {
    "folds": (2, folds_of),
    "frozen": (2, lambda folder: observed(configured(folder, "two"))),
    "scores": (2, scores_of),
    "whole": (2, lambda folder: trained_whole(folder, "whole")),
    "died": (2, lambda folder: trained_whole(folder, "broken", dies=True)),
    "resumed": (2, lambda folder: trained_whole(folder, "broken", resume=True)),
}


@pytest.fixture(scope="module")
def folder(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tests, after all launches."""
    folder = tmp_path_factory.mktemp("ranks")
    write_labelled_videos(folder / "videos", make_video)
    write_ucf101(folder / "UCF-101", make_video)
    launch.run_script(__file__, folder)
    return folder


def results_of(folder: Path, name: str) -> list[Any]:
    return launch.results_of(LAUNCHES, name, folder)


def validations(run: Path) -> list[list[float]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [[line["step"], line["val_accuracy"], line["val_loss"]] for line in lines if "val_accuracy" in line]


def assert_same_checkpoint(one: Path, other: Path) -> None:
    first, second = (
        dict(leaves({"model": saved.model, "optimizer": saved.optimizer, "step": saved.step}))
        for saved in (checkpoint.load(one), checkpoint.load(other))
    )
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]) if isinstance(value, Tensor) else value == second[name], name


def test_two_processes_learn_and_validate_what_one_does(folder: Path) -> None:
    assert distributed.world_size() == 1
    alone, (first, second) = observed(configured(folder, "one")), results_of(folder, "frozen")
    assert [a + b for a, b in zip(first["clips"], second["clips"], strict=True)] == alone["clips"]
    assert {len(clips) for clips in alone["clips"]} == {BATCH}
    assert first["record"] == second["record"]
    for name, value in alone["weights"].items():
        torch.testing.assert_close(first["weights"][name], value, rtol=1e-4, atol=1e-5)
        assert torch.equal(first["weights"][name], second["weights"][name])
    one, two = validations(folder / "one"), validations(folder / "two")
    assert [step for step, *_ in one] == [2, 4, 6, 8]
    torch.testing.assert_close(torch.tensor(two), torch.tensor(one), rtol=1e-4, atol=1e-5)


def test_ranks_end_with_the_same_weights_and_the_same_best_state(folder: Path) -> None:
    """Their batch statistics differ in training. Validations take those of rank 0, which are saved."""
    first, second = results_of(folder, "whole")
    assert first["record"] == second["record"]
    assert all(torch.equal(value, second["weights"][name]) for name, value in first["weights"].items())
    best = checkpoint.load(folder / "whole" / BEST_NAME)
    assert best.finetune is not None
    assert best.step == first["record"]["best_step"]
    config = replace(configured(folder, "whole", trained="all", dropout=0.5), {"retrieval.clips_per_video": 2})
    found = finetuned_scores(best, config, split="val")
    loss = F.cross_entropy(torch.tensor(found.scores), torch.tensor(found.true_classes)).item()
    assert loss == pytest.approx(best.finetune.best_loss, rel=1e-4)  # that of the state that is saved


def test_two_ranks_resume_to_the_same_bits(folder: Path) -> None:
    whole, resumed = results_of(folder, "whole"), results_of(folder, "resumed")
    for rank in range(2):
        assert resumed[rank]["clips"] == whole[rank]["clips"][4:]
    for name in (checkpoint.CHECKPOINT_NAME, BEST_NAME):
        assert_same_checkpoint(folder / "whole" / name, folder / "broken" / name)
    assert validations(folder / "broken") == validations(folder / "whole")


def test_each_video_is_classified_once_on_any_number_of_ranks(folder: Path) -> None:
    first, second = results_of(folder, "scores")
    assert torch.equal(first, second)
    torch.testing.assert_close(first, scores_of(folder), rtol=1e-5, atol=1e-6)


def test_two_ranks_train_and_judge_one_fold_after_the_other(folder: Path) -> None:
    first, second = results_of(folder, "folds")
    assert second == ""
    found = json.loads(first)
    assert found["folds"].keys() == {"1", "2"}
    assert [table["videos"] for table in found["folds"].values()] == [6, 3]
    accuracies = [table["results"]["fine-tuned"]["top1"] for table in found["folds"].values()]
    assert found["mean_top1"] == pytest.approx(sum(accuracies) / 2)
    assert (folder / "folds/fold2/best.pt").is_file()


if __name__ == "__main__":
    launch.main(LAUNCHES, Path(sys.argv[1]))
