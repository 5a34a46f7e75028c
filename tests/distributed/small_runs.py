"""Runs on seven small videos, which neither two nor four processes divide evenly, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cacl.config import Config
from tests.tiny import tiny_config

VIDEOS, BATCH, STEPS, EVERY = 7, 4, 6, 2


def configured(folder: Path, run: str = "run", **sections: dict[str, Any]) -> Config:
    own = {
        "data": {"root": str(folder / "videos"), "layout": "folder", "cache": str(folder / "cache")},
        "train": {"epochs": STEPS * BATCH / VIDEOS, "batch_size": BATCH, "checkpoint_every": EVERY},
        "retrieval": {"clips_per_video": 2, "batch_size": 4},
    }
    return tiny_config(folder / run, own, sections)


def write_videos(folder: Path, make_video: Callable[..., Path]) -> None:
    """Writes the videos of `configured`, and a list with labels and splits for an evaluation of them."""
    rows = ["path,label,split"]
    for number in range(VIDEOS):
        make_video(folder / f"videos/{number}.mp4", frames=8 + number, size=(32 + 2 * number, 24), gop=4)
        rows.append(f"{number}.mp4,{'ab'[number % 2]},{'test' if number > 3 else 'train'}")
    (folder / "videos/labels.csv").write_text("\n".join(rows))
