"""Runs on several roots, raw and prepared: resumed to the same bits, or refused where roots or weights are others."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from cacl.clips import ClipBatch
from cacl.config import Config, DataConfig, RootConfig
from cacl.errors import CheckpointError, DataError
from cacl.loaders.clip_loader import ClipLoader
from cacl.loaders.prepared.prepare import prepare
from cacl.loaders.prepared.transcode import TranscodeSettings
from cacl.training.train_state import TrainState
from cacl.training.trainer import train
from tests.damage import deleted, overwritten, truncated
from tests.same_bits import assert_same_bits
from tests.tiny import tiny_config

training = import_module("cacl.training.trainer")

pytestmark = pytest.mark.usefixtures("one_thread")

BATCH, STEPS, EVERY = 4, 10, 3
ROOTS = ("first", "prepared", "second")
WEIGHTS = {"first": 2.0, "prepared": 1.0, "second": 0.5}
CLIPS = {"first": 6, "prepared": 4, "second": 3}
"""The clips of an epoch: twice three videos, once four, and half of six."""


@pytest.fixture(scope="module")
def originals(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same names in every root."""
    folder = tmp_path_factory.mktemp("originals")
    for name, count, first in (("first", 3, 0), ("second", 6, 50), ("source", 4, 100)):
        for number in range(count):
            make_video(folder / name / f"{number}.mp4", frames=8 + number, size=(32, 24), gop=4, first=first + number)
    source = DataConfig(root=str(folder / "source"), cache=str(folder / "cache"))
    settings = TranscodeSettings(short_side=24, gop=4)
    prepare(source, folder / "prepared", settings, workers=1, progress=lambda *_: None)
    return folder


@pytest.fixture
def configured(originals: Path, tmp_path: Path) -> Callable[[str], Config]:
    """Makes configurations of runs, each on roots of its own."""

    def make(name: str) -> Config:
        roots = [{"root": str(tmp_path / f"roots of {name}" / root), "weight": WEIGHTS[root]} for root in ROOTS]
        for root in ROOTS:
            shutil.copytree(originals / root, tmp_path / f"roots of {name}" / root)
        epoch = sum(CLIPS.values())
        own = {
            "data": {"roots": roots, "cache": str(tmp_path / "cache"), "max_rejected_share": 0.5},
            "train": {"epochs": STEPS * BATCH / epoch, "batch_size": BATCH, "checkpoint_every": EVERY},
        }
        return tiny_config(tmp_path / name, own)

    return make


def root_of(config: Config, name: str) -> Path:
    return Path(config.data.roots[ROOTS.index(name)].root)


def with_roots(config: Config, *roots: RootConfig) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, roots=roots))


class Died(BaseException):
    """Stands for the end of the process."""


def observed(config: Config, *, dies: int = 0, resume: bool = False) -> tuple[dict[str, Any], list[tuple[int, int]]]:
    """Trains, up to a step where the process dies. Returns the result, and the index and the video of each clip."""
    clips: list[tuple[int, int]] = []

    class Observed(TrainState):
        def train_step(self, batch: ClipBatch, **options: Any) -> dict[str, Tensor]:
            clips.extend(zip(batch.index.tolist(), batch.video.tolist(), strict=True))
            metrics = super().train_step(batch, **options)
            if self.step == dies:
                raise Died
            return metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "TrainState", Observed)
        try:
            return train(config, resume=resume), clips
        except Died:
            assert dies
    return {}, clips


def test_an_epoch_is_as_long_as_the_weights_say_and_has_their_shares(
    configured: Callable[[str], Config], capfd: pytest.CaptureFixture[str]
) -> None:
    config = configured("run")
    summary, clips = observed(config)
    assert summary["steps"] == STEPS
    videos = [video for _, video in clips]
    names = ["first"] * 3 + ["prepared"] * 4 + ["second"] * 6
    for epoch in range(3):
        assert Counter(names[video] for video in videos[13 * epoch : 13 * epoch + 13]) == CLIPS
    assert set(Counter(videos[:26]).values()) == {4, 2, 1}  # two epochs: every video of the second root came once
    told = capfd.readouterr().err
    for name, count in zip(ROOTS, (3, 4, 6), strict=True):
        line = f"{count} training videos of {count} in {root_of(config, name)} (layout folder)"
        assert f"{line}, {CLIPS[name]} of 13 clips of an epoch" in told


@pytest.mark.parametrize("dies", [4, 8])
def test_a_resumed_run_ends_in_the_same_bits(configured: Callable[[str], Config], dies: int) -> None:
    """Though its roots lie elsewhere by then."""
    whole, broken = configured("whole"), configured("broken")
    _, expected = observed(whole)
    observed(broken, dies=dies)
    moved = []
    for name, root in zip(ROOTS, broken.data.roots, strict=True):
        shutil.move(root.root, Path(root.root).with_name(f"moved {name}"))
        moved.append(dataclasses.replace(root, root=str(Path(root.root).with_name(f"moved {name}"))))
    _, after = observed(with_roots(broken, *moved), resume=True)
    assert after == expected[dies // EVERY * EVERY * BATCH :]
    assert_same_bits(Path(whole.run), Path(broken.run))


def test_resuming_with_damaged_files_changes_nothing(configured: Callable[[str], Config]) -> None:
    """Files of both raw roots: those in other roots of the same name are in order."""
    whole, broken = configured("whole"), configured("broken")
    build = training.ClipLoader.from_config

    def damaging(*arguments: Any, **options: Any) -> Any:
        for config in (whole, broken):
            if not (root_of(config, "first") / "cut").exists() and config is arguments[0]:
                (root_of(config, "first") / "cut").touch()
                deleted(root_of(config, "first") / "1.mp4")
                overwritten(root_of(config, "second") / "4.mp4")
                truncated(root_of(config, "second") / "0.mp4")
        return build(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.ClipLoader, "from_config", damaging)
        expected, clips = observed(whole)
        observed(broken, dies=8)
        summary, after = observed(broken, resume=True)
    assert after == [clip for clip in clips if clip[0] >= 8 // EVERY * EVERY * BATCH]
    assert_same_bits(Path(whole.run), Path(broken.run))
    damaged = [("first", "1.mp4"), ("second", "0.mp4"), ("second", "4.mp4")]
    for config, result in ((whole, expected), (broken, summary)):
        paths = {f"{root_of(config, name)}/{file}" for name, file in damaged}
        lines = (Path(config.run) / "skipped_clips.jsonl").read_text().splitlines()
        assert {json.loads(line)["path"] for line in lines} == result["files_failed"].keys() == paths
    assert sorted(summary["files_failed"].values()) == sorted(expected["files_failed"].values())


def test_a_resumed_run_takes_the_same_roots_weights_and_order(configured: Callable[[str], Config]) -> None:
    config = configured("run")
    observed(config, dies=5)
    loader = ClipLoader.from_config(config)
    plans = [loader.sampler.plan(index) for index in range(5 * BATCH, STEPS * BATCH)]
    upcoming = [loader.catalog.videos[plan.video].path for plan in plans]
    first, prepared, second = config.data.roots
    others = [
        (dataclasses.replace(first, weight=1.0), prepared, second),
        (first, prepared, dataclasses.replace(second, weight=1.0)),
        (second, prepared, first),
        (first, second),
        (first, prepared),
        (prepared,),
    ]
    for roots in others:
        with pytest.raises(CheckpointError, match="with other weights or another order of its roots") as refused:
            train(with_roots(config, *roots), resume=True)
        assert str(refused.value).startswith(f"{config.run} was begun with other training videos than {roots[0].root}")
        assert "\n" not in str(refused.value)
    shutil.copy(root_of(config, "first") / "0.mp4", root_of(config, "second") / "new.mp4")
    with pytest.raises(CheckpointError, match="with other training videos than "):
        train(config, resume=True)
    (root_of(config, "second") / "new.mp4").unlink()
    lost = next(file for file in upcoming if file.startswith(f"{root_of(config, 'second')}/"))
    Path(lost).unlink()
    assert train(config, resume=True)["files_failed"].keys() == {lost}


def test_a_root_that_went_away_ends_the_run_with_its_name(configured: Callable[[str], Config]) -> None:
    config = configured("run")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, max_rejected_share=0.4))

    class Gone(TrainState):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            root_of(config, "second").rename(root_of(config, "second").with_name("elsewhere"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "TrainState", Gone)
        with pytest.raises(DataError) as ended:
            train(config)
    place = root_of(config, "second")
    told = f"data.roots = {place}: 3 of 6 training videos fail, more than data.max_rejected_share"
    assert str(ended.value).startswith(f"{told} = 0.4 allows: {place}/")
    with pytest.raises(DataError, match=f"^data.roots.2: data.root = {place}: does not exist"):
        train(config, resume=True)
