"""A folder of videos, encoders with random weights, and a cache of scans that goes away."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cacl.checkpoints.encoders import EncoderWeights
from cacl.search.embed import EmbedSummary, embed, settings_for_videos
from tests.tiny import tiny_weights

VIDEOS = 6

Embed = Callable[..., EmbedSummary]
"""Brings the index of `folder / "videos"` in `folder / "index"` up to date."""


@pytest.fixture(scope="session")
def weights() -> EncoderWeights:
    return tiny_weights()


@pytest.fixture
def folder(make_video: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Has `videos` with six of them, of 10 to 15 frames: clips of four frames cut the first into two and a half."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    for number in range(VIDEOS):
        add_video(make_video, tmp_path, number)
    return tmp_path


def add_video(make_video: Callable[..., Path], folder: Path, number: int) -> Path:
    file = folder / f"videos/{'ab'[number % 2]}/{number:02}.mp4"
    return make_video(file, frames=10 + number, size=(64, 48), gop=4, first=20 * number)


@pytest.fixture
def embed_videos(folder: Path, weights: EncoderWeights) -> Embed:
    def call(*overrides: str, videos: str = "videos", index: str = "index", **options: object) -> EmbedSummary:
        given = {"weights": weights, **options}
        taken = given.pop("weights")
        assert isinstance(taken, EncoderWeights)
        config = settings_for_videos(taken.config, str(folder / videos), overrides)
        return embed(taken, config, folder / index, **given)  # type: ignore[arg-type]

    return call


def other_weights(weights: EncoderWeights, value: float = 0.5) -> EncoderWeights:
    """Changes a single weight of the CNN."""
    name = next(name for name, x in weights.tensors.items() if name.startswith("cnn.") and x.dim() == 5)
    changed = weights.tensors[name].clone()
    changed.view(-1)[0] = value
    return replace(weights, tensors={**weights.tensors, name: changed})


def make_unreadable(file: Path) -> bytes:
    """Overwrites a file by zeros, and lets size and modification time stay. Returns what it held."""
    status, held = file.stat(), file.read_bytes()
    file.write_bytes(bytes(len(held)))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    return held


def restore(file: Path, held: bytes) -> None:
    """Takes `make_unreadable` back."""
    status = file.stat()
    file.write_bytes(held)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
