"""What a fine-tuned network makes of videos, against the same computed by hand, clip by clip."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from cacl.checkpoints import checkpoint
from cacl.checkpoints.checkpoint import BEST_NAME, Checkpoint
from cacl.config import Config, replace
from cacl.errors import DataError, UsageError
from cacl.evaluation.finetuned import evaluate_finetuned, finetuned_scores, load_finetuned
from cacl.loaders.backends.cpu import load_clip
from cacl.loaders.catalog.scan import scan
from cacl.loaders.sampling.sampler import evaluation_plans
from cacl.models.create import create_model
from cacl.models.video_classifier import VideoClassifier
from cacl.training.finetuning import finetune
from tests.training.finetuning_runs import CLASSES, finetune_config, write_labelled_videos

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("finetuned")
    write_labelled_videos(folder / "videos", make_video)
    config = finetune_config(
        folder / "run",
        steps=8,
        data={"root": str(folder / "videos"), "cache": str(folder / "cache")},
        optim={"name": "adamw", "lr": 1e-2},
        retrieval={"clips_per_video": 3, "batch_size": 2},
    )
    finetune(config)
    return config


def by_hand(saved: Checkpoint, split: str, crops: Any, average: str) -> tuple[np.ndarray, list[str]]:
    """Classifies one crop at a time."""
    config = saved.config
    model = VideoClassifier(create_model("r3d10", width=1 / 16), 2, 0.0).eval()
    model.load_state_dict(saved.model)
    catalog = scan(config.data).of_split(split)
    rows, labels = [], []
    for number, video in enumerate(catalog.videos):
        values: list[Tensor] = []
        for plan in evaluation_plans(catalog.videos, [number], 3, config.clip, config.augment, "span", crops):
            out = [torch.empty(3, 4, 16, 16, dtype=torch.float16) for _ in plan.views]
            load_clip(catalog.location(video), video, plan, 16, out)
            with torch.no_grad():
                logits = [model(view[None].float())[0].double() for view in out]
            values += [value.softmax(0) if average == "probabilities" else value for value in logits]
        assert len(values) == 3 * crops
        rows.append(torch.stack(values).mean(0).numpy())
        labels.append(video.label or "")
    return np.stack(rows), labels


@pytest.mark.parametrize("crops", [1, 3])
@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_scores_are_means_over_clips_and_crops(
    run: Config, crops: Literal[1, 3], average: Literal["logits", "probabilities"]
) -> None:
    saved = checkpoint.load(Path(run.run))
    found = finetuned_scores(saved, run, crops=crops, average=average)
    scores, labels = by_hand(saved, "test", crops, average)
    assert found.classes == CLASSES
    assert [CLASSES[number] for number in found.true_classes] == labels
    np.testing.assert_allclose(found.scores, scores, rtol=1e-3, atol=1e-4)
    if average == "probabilities":
        np.testing.assert_allclose(found.scores.sum(1), 1)


def test_validation_videos_are_classified_as_in_the_run(run: Config) -> None:
    best = checkpoint.load(Path(run.run) / BEST_NAME)
    assert best.finetune is not None
    found = finetuned_scores(best, replace(run, {"retrieval.clips_per_video": 1}), split="val")
    assert (found.scores.argmax(1) == found.true_classes).mean() == best.finetune.best_accuracy
    values = torch.tensor(found.scores)
    loss = torch.nn.functional.cross_entropy(values, torch.tensor(found.true_classes)).item()
    assert loss == pytest.approx(best.finetune.best_loss, rel=1e-4)


def test_a_table_has_the_accuracies_beside_majority_and_chance(run: Config) -> None:
    saved = load_finetuned(Path(run.run))
    assert saved is not None
    assert saved.finetune is not None
    assert saved.step == saved.finetune.best_step  # a run folder stands for its best state
    last = load_finetuned(Path(run.run) / checkpoint.CHECKPOINT_NAME)
    assert last is not None
    assert last.step == 8
    table = evaluate_finetuned(saved, run, crops=3, average="probabilities")
    scores = finetuned_scores(saved, run, crops=3, average="probabilities")
    assert table.results["fine-tuned"].top1 == (scores.scores.argmax(1) == scores.true_classes).mean()
    assert table.results["fine-tuned"].top5 == 1
    assert table.results["majority"].top1 == 0.5
    assert scores.train_counts.tolist() == [4, 4]
    values = table.to_json()
    assert (values["chance"], values["crops"], values["videos"]) == ({"top1": 0.5, "top5": 1.0}, 3, 2)
    assert load_finetuned(Path(run.run) / "encoders.safetensors") is None


def test_what_cannot_be_judged_is_one_line(run: Config, tmp_path: Path) -> None:
    saved = checkpoint.load(Path(run.run))
    with pytest.raises(UsageError, match=r"the weights decide finetune\.label: label -> colour"):
        finetuned_scores(saved, replace(run, {"finetune.label": "colour"}))
    root = shutil.copytree(run.data.root, tmp_path / "videos")
    text = (root / "labels.csv").read_text()
    (root / "labels.csv").write_text(text.replace("2.mp4,bright,test", "2.mp4,dim,test"))
    moved = dataclasses.replace(run, data=dataclasses.replace(run.data, root=str(root)))
    with pytest.raises(DataError, match=r"2\.mp4 has the label 'dim', which is none of the 2 classes"):
        finetuned_scores(saved, moved)
