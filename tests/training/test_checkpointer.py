"""What a resumed run may change: how it runs, and nothing that decides what is computed."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from cacl.checkpoints import checkpoint
from cacl.config import Config, RootConfig
from cacl.errors import CheckpointError
from cacl.training.trainer import train
from tests.config_keys import config_keys, other_value, value_at, with_value
from tests.training.small_runs import config_of

pytestmark = pytest.mark.usefixtures("one_thread")


MAY_CHANGE: dict[str, Any] = {
    "name": "another",
    "run": None,  # with the checkpoint in it
    "data.root": None,  # with the same videos in it
    "data.layout": "csv",
    "data.fold": 2,
    "data.test_share": 0.0625,
    "data.max_rejected_share": 0.5,
    "data.cache": None,
    "data.roots": None,
    "loader.backend": "reference",
    "loader.threads": 2,
    "loader.prefetch": 1,
    "loader.dali_pipelines": 3,
    "loader.dali_views": "triton",
    "loader.on_failure": "fail",
    "train.device": "cpu:0",
    "train.log_every": 3,
    "train.loggers": ("wandb",),
    "train.activation_checkpointing": True,
    "train.checkpoint_every": 2,
    "retrieval.clips_per_video": 3,
    "retrieval.clip_starts": "official",
    "retrieval.batch_size": 5,
    "knn.every": 1,
    "knn.labels": ("label", "second"),
    "profile.steps": (0, 1),
    "profile.ranks": (1,),
}
"""Every key that a resumed run may set anew, with another value; None stands for a path that the test makes. These keys
say how it runs, where things lie and how it is evaluated. Every other key decides what is computed, and is refused."""


@pytest.mark.parametrize("key", [key for key in config_keys(Config()) if key not in MAY_CHANGE])
def test_a_resumed_run_may_not_change_what_is_computed(tmp_path: Path, key: str) -> None:
    config = config_of(run=tmp_path)
    begun = checkpoint.Checkpoint(config=config, step=1, data_fingerprint="videos", model={}, optimizer={})
    checkpoint.save(tmp_path / checkpoint.CHECKPOINT_NAME, begun)
    old, new = value_at(config, key), other_value(value_at(config, key))
    with pytest.raises(CheckpointError) as refused:
        train(with_value(config, key, new), resume=True)
    first = "losses.contrast: 1.0 -> 2.0; losses.order: 1.0 -> 2.0" if key == "losses" else f"{key}: {old} -> {new}"
    assert f"({first})" in str(refused.value)


@pytest.fixture(scope="module")
def done(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Trains for a single step and returns the configuration."""
    folder = tmp_path_factory.mktemp("done")
    config = config_of(1, folder / "run", data={"root": str(videos), "cache": str(folder / "cache")})
    train(config)
    return config


@pytest.mark.parametrize("key", MAY_CHANGE)
def test_a_resumed_run_may_change_how_it_runs(
    done: Config, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    run, moved = shutil.copytree(done.run, tmp_path / "run"), shutil.copytree(videos, tmp_path / "moved")
    places = {"run": str(run), "data.root": str(moved), "data.cache": str(tmp_path / "cache")}
    value = (places | {"data.roots": (RootConfig(root=str(moved)),)}).get(key, MAY_CHANGE[key])
    if key == "train.loggers":
        pytest.importorskip("wandb")
        monkeypatch.setenv("WANDB_MODE", "offline")
    assert value_at(done, key) != value
    config = with_value(dataclasses.replace(done, run=str(run)), key, value)
    assert train(config, resume=True)["steps_taken"] == 0
