"""Runs with labels on twelve videos of two classes, and a batch for one of their steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cacl.checkpoints.checkpoint import FinetuneRecord
from cacl.clips import ClipBatch
from cacl.config import Config
from cacl.models.encoder import Encoder
from cacl.registry import ENCODERS
from cacl.training.finetune_state import FinetuneState
from tests.tiny import tiny_batch, tiny_config

CLASSES = ("bright", "dark")
VIDEOS, TRAINING, BATCH = 12, 8, 4
"""All videos, and those of them that are neither for validation nor for tests."""


def write_labelled_videos(root: Path, make_video: Callable[..., Path]) -> None:
    """Writes videos whose classes differ, and a list with four validation and test videos among them."""
    rows = ["path,label,split"]
    for number in range(VIDEOS):
        # The pictures of a class begin at the same number, which is their colour; see tests.conftest.picture.
        first = 0 if number % 2 else 18
        make_video(root / f"{number}.mp4", frames=8, size=(32, 24), gop=4, first=first)
        split = {0: "val", 1: "val", 2: "test", 3: "test"}.get(number, "train")
        rows.append(f"{number}.mp4,{CLASSES[number % 2]},{split}")
    (root / "labels.csv").write_text("\n".join(rows))


def finetune_config(run: str | Path = "never written", steps: int = 6, **sections: dict[str, Any]) -> Config:
    own = {"train": {"epochs": steps * BATCH / TRAINING, "batch_size": BATCH}, "finetune": {"encoder": "cnn"}}
    return tiny_config(run, own, sections)


def new_state(config: Config, *, classes: int = 2) -> FinetuneState:
    def build() -> Encoder:
        name = config.model.cnn if config.finetune.encoder == "cnn" else "video_transformer"
        return ENCODERS.load(name)(config)

    record = FinetuneRecord(classes=tuple(f"c{n}" for n in range(classes)), val_fingerprint="")
    return FinetuneState(config, TRAINING, torch.device("cpu"), build_encoder=build, record=record)


def labelled_batch(clips: int = BATCH, *, seed: int = 0, classes: int = 2) -> ClipBatch:
    return dataclasses.replace(tiny_batch(clips, seed=seed), labels=torch.arange(clips) % classes)
