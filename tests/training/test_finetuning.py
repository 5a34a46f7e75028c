"""Whole runs of fine-tuning on video files: what they leave, how they go on, and what they never look at."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cacl.checkpoints import checkpoint
from cacl.checkpoints.checkpoint import BEST_NAME
from cacl.checkpoints.encoders import load_encoder
from cacl.clips import ClipBatch
from cacl.config import Config, replace
from cacl.errors import CheckpointError, DataError, UsageError
from cacl.training import finetuning
from cacl.training.finetune_state import FinetuneState
from cacl.training.finetuning import finetune, inherited_settings
from cacl.training.trainer import train
from tests.damage import deleted, overwritten
from tests.same_bits import leaves
from tests.training.finetuning_runs import BATCH, CLASSES, TRAINING, finetune_config, write_labelled_videos
from tests.training.small_runs import config_of

pytestmark = pytest.mark.usefixtures("one_thread")

WALL_CLOCK = ("clips_per_second", "data_wait_share")


@pytest.fixture(scope="module")
def root(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("labelled")
    write_labelled_videos(root, make_video)
    return root


@pytest.fixture
def configured(root: Path, tmp_path: Path) -> Callable[..., Config]:
    """Makes configurations: `configured("run", steps=6, finetune={...})`. Checkpoints come every four steps."""

    def make(name: str, steps: int = 6, data: Any = None, **sections: dict[str, Any]) -> Config:
        own = {"root": str(root), "cache": str(root.with_name("cache")), **(data or {})}
        config = finetune_config(tmp_path / name, steps, data=own, **sections)
        return replace(config, {"train.checkpoint_every": 4})

    return make


class Died(BaseException):
    """Stands for the end of the process. Nothing in the run may catch it and tidy up."""


def observed(config: Config, *, dies: int = 0, resume: bool = False, happens: Callable[[], None] | None = None) -> Any:
    """Fine-tunes and returns the clips of each step. The process ends in step `dies`; `happens` before the first."""
    clips: list[list[int]] = []

    class Observed(FinetuneState):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            if happens:
                happens()

        def train_step(self, batch: ClipBatch, **options: Any) -> dict[str, Tensor]:
            clips.append(batch.index.tolist())
            metrics = super().train_step(batch, **options)
            if self.step == dies:
                raise Died
            return metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetuning, "FinetuneState", Observed)
        try:
            finetune(config, resume=resume)
        except Died:
            assert dies
    return clips


def contents(file: Path) -> dict[str, Any]:
    """Returns all that a checkpoint holds, by name, without what names the run."""
    saved = checkpoint.load(file)
    record = dataclasses.asdict(saved.finetune) if saved.finetune else {}
    parts = {"model": saved.model, "optimizer": saved.optimizer, "record": record, "step": saved.step}
    return dict(leaves(parts))


def assert_same(one: Path, other: Path) -> None:
    first, second = contents(one), contents(other)
    assert first.keys() == second.keys()
    assert sum(isinstance(value, Tensor) for value in first.values()) > 20
    for name, value in first.items():
        assert torch.equal(value, second[name]) if isinstance(value, Tensor) else value == second[name], name


def logged(config: Config) -> list[dict[str, float]]:
    lines = (Path(config.run) / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in WALL_CLOCK} for line in lines]


# --------------------------------------------------------------------------------------------------- a whole run


def test_a_run_learns_the_labels_and_keeps_its_best_and_its_last_state(configured: Callable[..., Config]) -> None:
    config = configured("run", steps=20, optim={"name": "adamw", "lr": 1e-2}, train={"log_every": 7})
    summary = finetune(config)
    run = Path(config.run)
    last, best = checkpoint.load(run), checkpoint.load(run / BEST_NAME)
    assert last.finetune is not None
    assert last.finetune.classes == CLASSES
    assert (last.step, best.step) == (20, last.finetune.best_step)
    validated = {line["step"]: line for line in logged(config) if "val_accuracy" in line}
    assert list(validated) == list(range(2, 21, 2))  # the end of each epoch of eight clips
    assert {line["step"] for line in logged(config)} == {*validated, 7}  # 14 is the end of an epoch as well
    winner = max(validated.values(), key=lambda line: (line["val_accuracy"], -line["val_loss"], -line["step"]))
    assert (best.step, last.finetune.best_accuracy) == (winner["step"], winner["val_accuracy"])
    assert summary["best"] == {"step": best.step, "val_accuracy": winner["val_accuracy"]}
    assert summary["scalars"]["val_accuracy"] == validated[20]["val_accuracy"]
    assert last.finetune.best_accuracy == 1
    assert last.finetune.best_loss < 0.3
    assert torch.equal(load_encoder(run).state_dict()["layers.0.weight"], last.model["encoder.layers.0.weight"])
    files = {path.name for path in run.iterdir() if not path.name.startswith("events")}
    named = {"config.toml", "manifest.jsonl", "metrics.jsonl", "checkpoint.pt", "best.pt", "encoders.safetensors"}
    assert files == named


def test_validation_is_the_accuracy_and_loss_of_mean_logits(configured: Callable[..., Config]) -> None:
    """Both are computed anew here, from the best state and the validation videos alone."""
    from cacl.loaders.clip_loader import ClipLoader
    from cacl.models.create import create_model
    from cacl.models.video_classifier import VideoClassifier

    config = configured("run", finetune={"val_clips": 3})
    finetune(config)
    best = checkpoint.load(Path(config.run) / BEST_NAME)
    model = VideoClassifier(create_model("r3d10", width=1 / 16), 2, 0.0)
    model.load_state_dict(best.model)
    loader = ClipLoader.from_config(config, split="val", labels="label", views=1, batch_size=1)
    logits: dict[int, list[Tensor]] = {}
    labels = {}
    for batch in loader.evaluation(3):
        assert batch.labels is not None
        video = int(batch.video)
        logits.setdefault(video, []).append(model.eval()(batch.query.float())[0].detach())
        labels[video] = batch.labels.item()
    assert len(logits) == 2
    means = torch.stack([torch.stack(values).mean(0) for values in logits.values()])
    targets = torch.tensor(list(labels.values()))
    assert best.finetune is not None
    assert best.finetune.best_accuracy == (means.argmax(1) == targets).float().mean().item()
    expected = torch.nn.functional.cross_entropy(means, targets).item()
    assert best.finetune.best_loss == pytest.approx(expected, rel=1e-5)


def test_test_videos_are_neither_trained_on_nor_validated_on(configured: Callable[..., Config], root: Path) -> None:
    """They are deleted once the run has begun, and nothing fails. There are no validation videos in the list."""
    mine = shutil.copytree(root, root.with_name("without validation"))
    text = (mine / "labels.csv").read_text()
    (mine / "labels.csv").write_text(text.replace(",val", ",train"))
    config = configured("run", data={"root": str(mine)}, loader={"on_failure": "fail"}, finetune={"val_share": 0.3})
    tests = [line.split(",")[0] for line in text.splitlines() if line.endswith(",test")]

    def lose_test_videos() -> None:
        for name in tests:
            (mine / name).unlink()

    observed(config, happens=lose_test_videos)
    trained = {json.loads(line)["path"] for line in (Path(config.run) / "manifest.jsonl").read_text().splitlines()}
    assert len(tests) == 2
    held_out = {f"{number}.mp4" for number in range(12)} - trained - set(tests)
    assert trained.isdisjoint(tests)
    assert {int(name.removesuffix(".mp4")) % 2 for name in held_out} == {0, 1}  # of each class


@pytest.mark.parametrize("encoder", ["cnn", "transformer"])
def test_the_encoder_of_another_run_is_where_it_begins(configured: Callable[..., Config], encoder: str) -> None:
    first = config_of(2, Path(configured("pre").run), data=dataclasses.asdict(configured("x").data))
    train(first)
    config = configured("run", finetune={"weights": first.run, "encoder": encoder})
    begun: list[dict[str, Tensor]] = []

    class Observed(FinetuneState):
        def train_step(self, batch: ClipBatch, **options: Any) -> dict[str, Tensor]:
            begun.append({name: value.clone() for name, value in self.model.encoder.state_dict().items()})
            return super().train_step(batch, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetuning, "FinetuneState", Observed)
        finetune(config)
    expected = load_encoder(first.run, encoder).state_dict()
    assert expected.keys() == begun[0].keys()
    assert all(torch.equal(value, begun[0][name]) for name, value in expected.items())
    assert all(torch.equal(value, begun[0][name]) for name, value in expected.items() if value.is_floating_point())
    tuned = load_encoder(config.run, encoder).state_dict()
    assert not all(torch.equal(value, tuned[name]) for name, value in expected.items())
    again = configured("again", finetune={"weights": config.run, "encoder": encoder})
    assert finetune(again)["steps"] == 6

    inherited = inherited_settings(first.run)
    assert inherited["clip"]["frames"] == 4
    assert "data" not in inherited
    key, value = ("model.width", 0.125) if encoder == "cnn" else ("model.transformer.depth", 2)
    with pytest.raises(UsageError, match=rf"finetune\.weights = .* decide {key}: .*: leave that as it is"):
        finetune(replace(config, {key: value, "run": str(Path(config.run).with_name("other"))}))


# ------------------------------------------------------------------------------------------------------ resuming


@pytest.mark.parametrize("dies", [3, 5, 6])
def test_dying_between_checkpoints_changes_nothing(configured: Callable[..., Config], dies: int) -> None:
    settings = {"finetune": {"dropout": 0.5, "mixup": 0.4, "layer_decay": 0.7}, "optim": {"name": "adamw", "lr": 1e-2}}
    whole, broken = configured("whole", steps=8, **settings), configured("broken", steps=8, **settings)
    expected = observed(whole)
    assert observed(broken, dies=dies) == expected[:dies]
    torch.manual_seed(12345)  # another process would be in another state too
    begun = dies // 4 * 4
    assert observed(broken, resume=True) == expected[begun:]
    for name in (checkpoint.CHECKPOINT_NAME, BEST_NAME):
        assert_same(Path(whole.run) / name, Path(broken.run) / name)
    assert logged(broken) == logged(whole)


def test_what_a_resumed_run_may_not_find_changed(configured: Callable[..., Config], root: Path) -> None:
    mine = shutil.copytree(root, root.with_name("changing"))
    config = configured("run", steps=8, data={"root": str(mine)})
    observed(config, dies=6)
    text = (mine / "labels.csv").read_text()
    (mine / "labels.csv").write_text(text.replace("2.mp4,bright,test", "2.mp4,bright,val"))
    with pytest.raises(CheckpointError, match="was begun with other validation videos or other classes"):
        finetune(config, resume=True)
    (mine / "labels.csv").write_text(text.replace("2.mp4,bright,test", "2.mp4,bright,train"))
    with pytest.raises(CheckpointError, match="was begun with other training videos"):
        finetune(config, resume=True)
    (mine / "labels.csv").write_text(text)
    assert finetune(config, resume=True)["steps_taken"] == 4
    with pytest.raises(UsageError, match="already holds a run"):
        finetune(config)


# ------------------------------------------------------------------------------------------------ failing files


def test_a_training_file_that_fails_is_left_out_and_the_run_resumes(
    configured: Callable[..., Config], root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    runs = {}
    for name in ("whole", "broken"):
        mine = shutil.copytree(root, root.with_name(f"videos of {name}"))
        data = {"root": str(mine), "max_rejected_share": 0.5}
        runs[name] = (configured(name, steps=8, data=data), lambda mine=mine: overwritten(mine / "5.mp4"))
    whole, happens = runs["whole"]
    observed(whole, happens=happens)
    broken, happens = runs["broken"]
    observed(broken, happens=happens, dies=6)
    observed(broken, resume=True)
    for name in (checkpoint.CHECKPOINT_NAME, BEST_NAME):
        assert_same(Path(whole.run) / name, Path(broken.run) / name)
    skipped = [json.loads(line) for line in (Path(broken.run) / "skipped_clips.jsonl").read_text().splitlines()]
    assert {line["path"] for line in skipped} == {"5.mp4"}
    assert len(skipped) == 8 * BATCH // TRAINING
    assert "1 training videos are gone or damaged" in capfd.readouterr().err


@pytest.mark.parametrize("on_failure", ["skip", "fail"])
def test_a_validation_file_that_fails_is_left_out_or_stops_the_run(
    configured: Callable[..., Config], root: Path, capfd: pytest.CaptureFixture[str], on_failure: str
) -> None:
    mine = shutil.copytree(root, root.with_name(f"validation, {on_failure}"))
    config = configured("run", data={"root": str(mine)}, loader={"on_failure": on_failure})
    if on_failure == "fail":
        with pytest.raises(DataError, match=r"0\.mp4: .*loader\.on_failure = \"skip\" goes on without it"):
            observed(config, happens=lambda: deleted(mine / "0.mp4"))
        return
    observed(config, happens=lambda: deleted(mine / "0.mp4"))
    assert {line["val_accuracy"] for line in logged(config)[1::2]} <= {0.0, 1.0}  # a single video is left
    assert capfd.readouterr().err.count("validation: leaving out a clip") == 1


def test_a_run_without_any_validation_video_left_is_one_line(configured: Callable[..., Config], root: Path) -> None:
    mine = shutil.copytree(root, root.with_name("no validation"))

    def lose() -> None:
        for number in (0, 1):
            (mine / f"{number}.mp4").unlink()

    with pytest.raises(DataError, match="no validation video can be loaded any more"):
        observed(configured("run", data={"root": str(mine)}), happens=lose)
