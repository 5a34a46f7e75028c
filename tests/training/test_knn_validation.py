"""The score by nearest neighbours during a run: what it says, and that it changes nothing of the run."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cacl.checkpoints.encoders import load_encoder
from cacl.clips import ClipBatch
from cacl.config import Config
from cacl.errors import DataError
from cacl.loaders.clip_loader import ClipLoader
from cacl.training.train_state import TrainState
from cacl.training.trainer import train
from tests.damage import overwritten
from tests.same_bits import assert_same_bits
from tests.tiny import tiny_config
from tests.training.finetuning_runs import BATCH, TRAINING, write_labelled_videos

training = import_module("cacl.training.trainer")

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 5


@pytest.fixture(scope="module")
def root(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("labelled")
    write_labelled_videos(root, make_video)
    return root


@pytest.fixture
def configured(root: Path, tmp_path: Path) -> Callable[..., Config]:
    """Makes configurations: `configured("run", knn={...})`."""

    def make(name: str, **sections: dict[str, Any]) -> Config:
        own = {
            "data": {"root": str(root), "cache": str(root.with_name("cache"))},
            "train": {"epochs": STEPS * BATCH / TRAINING, "batch_size": BATCH, "log_every": 3},
        }
        return tiny_config(tmp_path / name, own, sections)

    return make


def logged(config: Config) -> dict[int, dict[str, float]]:
    """Reads the scores by step."""
    lines = map(json.loads, (Path(config.run) / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: {name: x for name, x in line.items() if name.startswith("knn_accuracy/")} for line in lines}


def observed(config: Config) -> list[tuple[list[int], Tensor, bool]]:
    """Trains, and returns the clips of each step, the random state that it began with, and whether all was training."""
    steps = []

    class Observed(TrainState):
        def train_step(self, batch: ClipBatch, **options: Any) -> dict[str, Tensor]:
            is_training = all(module.training for module in self.model.query.modules())
            steps.append((batch.index.tolist(), torch.random.get_rng_state(), is_training))
            return super().train_step(batch, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "TrainState", Observed)
        train(config)
    return steps


def test_a_run_has_the_same_bits_with_and_without_it(configured: Callable[..., Config]) -> None:
    with_it, without = configured("with", knn={"every": 2}), configured("without")
    one, other = observed(with_it), observed(without)
    assert_same_bits(Path(with_it.run), Path(without.run))
    for (clips, state, is_training), (other_clips, other_state, _) in zip(one, other, strict=True):
        assert clips == other_clips
        assert torch.equal(state, other_state)
        assert is_training
    names = {"knn_accuracy/cnn.label", "knn_accuracy/transformer.label"}
    assert {step: set(scores) for step, scores in logged(with_it).items()} == {2: names, 3: set(), 4: names, 5: names}
    assert not any(logged(without).values())


def neighbours_vote(config: Config, which: str, k: int = 20, temperature: float = 0.07) -> float:
    """Scores the encoders of a finished run as the score does, one video at a time."""
    encoder = load_encoder(config.run, which)
    features: dict[str, list[tuple[Tensor, int]]] = {}
    for split in ("train", "val"):
        loader = ClipLoader.from_config(config, split=split, labels="label", views=1, batch_size=1)
        for batch in loader.evaluation(1):
            assert batch.labels is not None
            with torch.no_grad():
                feature = F.normalize(encoder(batch.query.float(), batch.order).double(), dim=1)[0]
            features.setdefault(split, []).append((feature, int(batch.labels)))
    right = 0
    for query, label in features["val"]:
        near = sorted(((float(query @ x), number) for x, number in features["train"]), reverse=True)[:k]
        votes: Counter[int] = Counter()
        for similarity, number in near:
            votes[number] += torch.tensor(similarity / temperature).exp().item()  # type: ignore[assignment]
        right += votes.most_common(1)[0][0] == label
    return right / len(features["val"])


def test_the_score_is_the_share_of_videos_that_neighbours_vote_for(configured: Callable[..., Config]) -> None:
    """The encoders hardly learn, as after a collapse all neighbours would be equally near."""
    config = configured("run", knn={"every": 3}, optim={"lr": 1e-5})
    summary = train(config)
    for which in ("cnn", "transformer"):
        expected = neighbours_vote(config, which)
        assert summary["scalars"][f"knn_accuracy/{which}.label"] == expected
        assert logged(config)[STEPS][f"knn_accuracy/{which}.label"] == expected


@pytest.mark.parametrize(
    ("knn", "split", "message"),
    [
        ({"labels": ["place"]}, "val", "knn.labels: .* have no 'place'"),
        ({}, "train", "no video of the split val has a 'label'.* knn.every = 0"),
    ],
)
def test_what_is_missing_is_said_before_the_first_step(
    configured: Callable[..., Config], root: Path, tmp_path: Path, knn: dict[str, Any], split: str, message: str
) -> None:
    text = (root / "labels.csv").read_text()
    (tmp_path / "videos.csv").write_text(text.replace(",val", f",{split}").replace("\n", f"\n{root}/"))
    config = configured("run", knn={"every": 1, **knn}, data={"root": str(tmp_path / "videos.csv")})
    with pytest.raises(DataError, match=message) as caught:
        train(config)
    assert "\n" not in str(caught.value)
    assert not (Path(config.run) / "metrics.jsonl").exists()


@pytest.mark.parametrize("on_failure", ["skip", "fail"])
def test_a_validation_video_that_is_lost_in_the_run(
    configured: Callable[..., Config], root: Path, tmp_path: Path, on_failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left out and named once, or ends the run."""
    mine = shutil.copytree(root, tmp_path / "mine")
    config = configured("run", knn={"every": 2}, data={"root": str(mine)}, loader={"on_failure": on_failure})

    class Losing(TrainState):
        def train_step(self, batch: ClipBatch, **options: Any) -> dict[str, Tensor]:
            if self.step == 0:
                overwritten(mine / "0.mp4")
            return super().train_step(batch, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "TrainState", Losing)
        if on_failure == "fail":
            with pytest.raises(DataError, match=r"0\.mp4"):
                train(config)
            return
        train(config)
    named = [record.getMessage() for record in caplog.records if "leaving out" in record.getMessage()]
    assert len(named) == 1
    assert "0.mp4" in named[0]
    assert all(score in (0, 1) for scores in logged(config).values() for score in scores.values())  # of one video
