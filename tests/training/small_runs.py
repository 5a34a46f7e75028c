"""Runs of ten videos, in batches of four."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cacl.config import Config
from tests.tiny import tiny_config

VIDEOS, BATCH = 10, 4


def config_of(steps: int = 3, run: str | Path = "never written", **sections: dict[str, Any]) -> Config:
    own = {"train": {"epochs": steps * BATCH / VIDEOS, "batch_size": BATCH}}
    return tiny_config(run, own, sections)
