"""Runs whose files fail on the way: every clip is trained on or accounted for, and resuming changes nothing.

Files are damaged after the scan, before the first clip is read, unless a test says otherwise.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cacl.checkpoints.encoders import EncoderWeights
from cacl.clips import ClipBatch
from cacl.config import Config, DataConfig
from cacl.errors import CaclError, CheckpointError, DataError
from cacl.evaluation import retrieval
from cacl.loaders import clip_loader
from cacl.loaders.prepared.prepare import prepare
from cacl.loaders.prepared.transcode import TranscodeSettings
from cacl.training.train_state import TrainState
from cacl.training.trainer import train
from tests.damage import DAMAGES, deleted, overwritten, rotten, truncated
from tests.same_bits import assert_same_bits
from tests.tiny import tiny_config

training = import_module("cacl.training.trainer")

pytestmark = pytest.mark.usefixtures("one_thread")

VIDEOS, BATCH, STEPS, EVERY = 7, 4, 9, 3
Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def originals(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("originals")
    for number in range(VIDEOS):
        make_video(root / f"{number}.mp4", frames=8 + number, size=(32, 24), gop=4)
    return root


@pytest.fixture
def configured(originals: Path, tmp_path: Path) -> Callable[..., Config]:
    """Makes configurations of runs, each on videos of its own: `configured(name, loader={...})`."""

    def make(name: str, **sections: dict[str, Any]) -> Config:
        root = shutil.copytree(originals, tmp_path / f"videos of {name}")
        own = {
            "data": {"root": str(root), "cache": str(tmp_path / "cache"), "max_rejected_share": 0.5},
            "train": {"epochs": STEPS * BATCH / VIDEOS, "batch_size": BATCH, "checkpoint_every": EVERY},
        }
        return tiny_config(tmp_path / name, own, sections)

    return make


class Died(BaseException):
    """Stands for the end of the process."""


@dataclasses.dataclass
class Seen:
    """What a run did."""

    summary: dict[str, Any] = dataclasses.field(default_factory=dict)
    clips: dict[int, list[tuple[int, int]]] = dataclasses.field(default_factory=dict)
    """The index and the video of the clips that it was trained on, by step."""
    views: dict[int, Tensor] = dataclasses.field(default_factory=dict)
    rates: dict[int, float] = dataclasses.field(default_factory=dict)


def observed(
    config: Config,
    damages: dict[int, Damage] | None = None,
    *,
    at: int = 0,
    dies: int = 0,
    resume: bool = False,
) -> Seen:
    """Trains. `damages` happen to these videos when step `at` is done, and the process ends after step `dies`."""
    seen = Seen()

    class Observed(TrainState):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            if at == 0:
                damage(config, damages or {})

        def train_step(self, batch: ClipBatch, **options: Any) -> dict[str, Tensor]:
            step = self.step + 1
            seen.clips[step] = list(zip(batch.index.tolist(), batch.video.tolist(), strict=True))
            seen.views[step] = torch.stack(batch.views)
            metrics = super().train_step(batch, **options)
            seen.rates[step] = metrics["learning_rate"].item()
            self.ended(step)
            return metrics

        def skip_step(self, **options: Any) -> dict[str, Tensor]:
            metrics = super().skip_step(**options)
            self.ended(self.step)
            return metrics

        def ended(self, step: int) -> None:
            if step == at:
                damage(config, damages or {})
            if step == dies:
                raise Died

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "TrainState", Observed)
        try:
            seen.summary = train(config, resume=resume)
        except Died:
            assert dies
    return seen


def damage(config: Config, damages: dict[int, Damage]) -> None:
    for video, happens in damages.items():
        (file,) = Path(config.data.root).rglob(f"{video}.mp4*")
        happens(file)


def skipped_clips(config: Config) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(config.run) / "skipped_clips.jsonl").read_text().splitlines()]


def assert_every_clip_counts_once(config: Config, seen: Seen) -> None:
    """Asserts that the clips trained on and the clips skipped are the stream, each clip once."""
    lines, trained = skipped_clips(config), [index for clips in seen.clips.values() for index, _ in clips]
    assert sorted(trained + [line["index"] for line in lines]) == list(range(STEPS * BATCH))
    assert all(line["step"] == line["index"] // BATCH + 1 for line in lines)
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    summary = seen.summary
    assert summary["steps"] == summary["steps_taken"] == STEPS
    assert (summary["clips_trained"], summary["clips_skipped"]) == (len(trained), len(lines))
    failed = [line["path"] for line in lines if line["reason"] is not None]
    assert summary["files_failed"] == {path: failed.count(path) for path in failed}


# ------------------------------------------------------------------------------------------------------ skipping


def test_every_clip_is_trained_on_or_accounted_for(
    configured: Callable[..., Config], capfd: pytest.CaptureFixture[str]
) -> None:
    whole, config = configured("whole"), configured("damaged")
    expected, seen = observed(whole), observed(config, {1: deleted, 4: overwritten, 6: truncated})
    assert expected.summary["clips_skipped"] == 0
    assert expected.summary["clips_trained"] == STEPS * BATCH
    assert not (Path(whole.run) / "skipped_clips.jsonl").exists()

    assert_every_clip_counts_once(config, seen)
    assert seen.summary["files_failed"].keys() == {"1.mp4", "4.mp4", "6.mp4"}
    for step, clips in expected.clips.items():
        kept = [slot for slot, (_, video) in enumerate(clips) if video not in (1, 4, 6)]
        if len(kept) >= 2:
            assert seen.clips[step] == [clips[slot] for slot in kept]
            assert torch.equal(seen.views[step], expected.views[step][:, kept])
            assert seen.rates[step] == expected.rates[step]  # the schedule is that of the undamaged run
        else:
            assert step not in seen.clips
    told = capfd.readouterr().err
    for video in (1, 4, 6):
        assert told.count(f"{config.data.root}/{video}.mp4: ") == 1
    assert f"clips not trained on: {seen.summary['clips_skipped']}, files that failed: 3 (" in told
    assert f"skipped {seen.summary['clips_skipped']}, " in told


@pytest.mark.parametrize("happens", ["deleted", "overwritten", "replaced"])
def test_files_that_fail_in_the_middle(configured: Callable[..., Config], happens: str) -> None:
    """Some clips of them have been trained on before, and some were being decoded ahead."""
    config = configured("damaged")
    seen = observed(config, {2: DAMAGES[happens], 5: DAMAGES[happens]}, at=3)
    assert_every_clip_counts_once(config, seen)
    assert seen.summary["files_failed"].keys() == {"2.mp4", "5.mp4"}
    assert {video for step in (1, 2, 3) for _, video in seen.clips[step]} >= {2, 5}


def test_a_step_with_too_few_clips_is_skipped(
    configured: Callable[..., Config], capfd: pytest.CaptureFixture[str]
) -> None:
    """Two groups of keys need four clips, so one failure is one too many."""
    whole = configured("whole", contrast={"queue_size": 30, "shuffle_bn_groups": 2})
    config = configured("damaged", contrast={"queue_size": 30, "shuffle_bn_groups": 2})
    expected, seen = observed(whole), observed(config, {3: deleted})
    assert_every_clip_counts_once(config, seen)
    without = [step for step, clips in expected.clips.items() if all(video != 3 for _, video in clips)]
    assert list(seen.clips) == without
    assert 0 < len(without) < STEPS
    assert {step: seen.rates[step] for step in without} == {step: expected.rates[step] for step in without}
    lines = skipped_clips(config)
    assert len(lines) == BATCH * (STEPS - len(without))
    assert {line["path"] for line in lines if line["reason"] is not None} == {"3.mp4"}
    assert capfd.readouterr().err.count("too few of its clips loaded") == STEPS - len(without)


# ------------------------------------------------------------------------------------------------------ stopping


def test_failing_ends_the_run_and_skipping_may_go_on(configured: Callable[..., Config]) -> None:
    skipping, other = configured("skipping"), configured("other")
    failing = dataclasses.replace(other, loader=dataclasses.replace(other.loader, on_failure="fail"))
    observed(skipping, {4: deleted})
    observed(other, {4: deleted}, dies=5)
    with pytest.raises(DataError, match=rf'{other.data.root}/4\.mp4: .*; loader\.on_failure = "skip" goes on'):
        observed(failing, resume=True)
    steps = [line["step"] for line in skipped_clips(skipping)]
    assert [line["step"] for line in skipped_clips(failing)] == [step for step in steps if step <= 4]
    observed(other, resume=True)
    assert_same_bits(Path(skipping.run), Path(other.run))
    assert [line["step"] for line in skipped_clips(other)] == steps


@pytest.mark.parametrize("allowed", [0.1, 1.0])
def test_a_disk_that_went_away_ends_the_run(configured: Callable[..., Config], allowed: float) -> None:
    config = configured("damaged", data={"max_rejected_share": allowed})
    root = Path(config.data.root)

    class Gone(TrainState):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            root.rename(root.with_name("elsewhere"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "TrainState", Gone)
        with pytest.raises(DataError, match=f"data.root = {root}: .* of 7 |all 7 training videos fail"):
            train(config)
    assert {line["step"] for line in skipped_clips(config)} == ({1} if allowed == 0.1 else {1, 2})


def test_an_evaluation_takes_all_clips_or_none(
    configured: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured("run", data={"test_share": 0.4})
    for number in range(VIDEOS):  # two classes
        file = Path(config.data.root) / f"{number}.mp4"
        file.parent.joinpath("ab"[number % 2]).mkdir(exist_ok=True)
        file.rename(file.parent / "ab"[number % 2] / file.name)
    train(config)
    build = clip_loader.build_backend

    def damaging(*arguments: Any, **options: Any) -> Any:
        overwritten(Path(config.data.root) / "b/3.mp4")
        return build(*arguments, **options)

    monkeypatch.setattr(clip_loader, "build_backend", damaging)
    weights = EncoderWeights.read(Path(config.run))
    with pytest.raises(DataError, match=rf"{config.data.root}/b/3\.mp4: "):
        retrieval.evaluate_retrieval(weights, config, ["label"], tmp_path / "features")
    assert not list((tmp_path / "features").rglob("finished"))


# ------------------------------------------------------------------------------------------------------ resuming


@pytest.mark.parametrize("dies", [4, 5, 8])
def test_resuming_with_damaged_files_changes_nothing(
    configured: Callable[..., Config], capfd: pytest.CaptureFixture[str], dies: int
) -> None:
    """The scan that comes with the resumption finds one file gone, and rejects two."""
    damages = {1: deleted, 4: overwritten, 6: truncated}
    whole, broken = configured("whole"), configured("broken")
    expected = observed(whole, damages)
    before = observed(broken, damages, dies=dies)
    assert before.clips == {step: clips for step, clips in expected.clips.items() if step <= dies}
    begun = (dies - 1) // EVERY * EVERY  # it died before the checkpoint of its last step
    torch.manual_seed(12345)
    after = observed(broken, resume=True)
    assert after.clips == {step: clips for step, clips in expected.clips.items() if step > begun}
    assert_same_bits(Path(whole.run), Path(broken.run))
    assert [line["index"] for line in skipped_clips(broken)] == [line["index"] for line in skipped_clips(whole)]
    for name in ("clips_trained", "clips_skipped", "files_failed"):
        assert after.summary[name] == expected.summary[name]
    if begun:
        assert "3 training videos are gone or damaged since the run began" in capfd.readouterr().err


def test_resuming_on_a_prepared_set_changes_nothing(configured: Callable[..., Config], tmp_path: Path) -> None:
    whole, broken = configured("whole"), configured("broken")
    source, sets = DataConfig(root=whole.data.root), {run: tmp_path / f"set of {run}" for run in ("whole", "broken")}
    prepare(source, sets["whole"], TranscodeSettings(short_side=24, gop=4), workers=1, progress=lambda *_: None)
    shutil.copytree(sets["whole"], sets["broken"])
    whole, broken = (
        dataclasses.replace(config, data=dataclasses.replace(config.data, root=str(sets[run])))
        for run, config in (("whole", whole), ("broken", broken))
    )
    damages = {1: deleted, 4: rotten, 6: truncated}
    expected = observed(whole, damages)
    observed(broken, damages, dies=5)
    after = observed(broken, resume=True)
    assert after.clips == {step: clips for step, clips in expected.clips.items() if step > 3}
    assert_same_bits(Path(whole.run), Path(broken.run))
    assert after.summary["files_failed"] == expected.summary["files_failed"]
    assert after.summary["files_failed"].keys() == {f"videos/{number}.mp4.mp4" for number in damages}


def test_what_a_resumed_run_may_not_find_changed(configured: Callable[..., Config], originals: Path) -> None:
    """A video that has changed would be taken for what it was, and a new one has no place in the stream."""
    config = configured("run")
    observed(config, {1: deleted}, dies=5)
    root = Path(config.data.root)
    refusal = f"{config.run} was begun with other training videos than {root} holds now"
    shutil.copy(originals / "2.mp4", root / "3.mp4")
    with pytest.raises(CheckpointError, match=refusal):
        train(config, resume=True)
    shutil.copy(originals / "3.mp4", root / "3.mp4")
    shutil.copy(originals / "3.mp4", root / "7.mp4")
    with pytest.raises(CheckpointError, match=refusal):
        train(config, resume=True)
    (root / "7.mp4").unlink()
    for number in (2, 3, 4):
        (root / f"{number}.mp4").unlink()
    with pytest.raises(CaclError, match=refusal):  # 4 of 7 are more than may be rejected
        train(config, resume=True)


def test_mended_files_are_trained_on_again(configured: Callable[..., Config], originals: Path) -> None:
    config = configured("run")
    observed(config, {1: deleted, 4: overwritten}, dies=5)
    for number in (1, 4):
        shutil.copy(originals / f"{number}.mp4", Path(config.data.root))
    after = observed(config, resume=True)
    assert {video for clips in after.clips.values() for _, video in clips} == set(range(VIDEOS))
    assert all(line["step"] <= 3 for line in skipped_clips(config))
    assert after.summary["clips_skipped"] == len(skipped_clips(config)) > 0
