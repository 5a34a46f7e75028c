"""The smallest run that has every part of the method, for tests that train; a batch for a step of it, and encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cacl.checkpoints.encoders import EncoderWeights
from cacl.clips import ClipBatch
from cacl.config import Config, from_dict
from cacl.models.video_transformer import video_transformer
from cacl.registry import ENCODERS

SECTIONS: dict[str, dict[str, Any]] = {
    "clip": {"frames": 4, "stride": 1, "size": 16},
    "loader": {"backend": "cpu", "threads": 1},
    "model": {
        "cnn": "r3d10",
        "width": 1 / 16,
        "embedding_dim": 8,
        "transformer": {"embedder": "light", "width": 16, "depth": 1, "heads": 2},
    },
    "contrast": {"queue_size": 30},
    "train": {"device": "cpu", "log_every": 1},
}


def tiny_config(run: str | Path, *layers: dict[str, dict[str, Any]], seed: int = 0) -> Config:
    """Returns `SECTIONS` with the sections of each layer over them in turn, key by key."""
    values: dict[str, Any] = {"run": str(run), "seed": seed}
    for layer in (SECTIONS, *layers):
        for name, section in layer.items():
            values[name] = values.get(name, {}) | section
    return from_dict(values)


def tiny_batch(clips: int, *, seed: int = 0) -> ClipBatch:
    """Returns noise in place of videos, in the shape that `tiny_config` asks for."""
    generator = torch.Generator().manual_seed(seed)
    frames, size = SECTIONS["clip"]["frames"], SECTIONS["clip"]["size"]
    order = torch.stack([torch.randperm(frames, generator=generator) for _ in range(clips)]).byte()
    views = tuple(torch.rand(2, clips, 3, frames, size, size, generator=generator).half())
    number = torch.arange(clips)
    return ClipBatch(views=views, order=order, video=number, index=number)


def tiny_weights() -> EncoderWeights:
    """Returns encoders of `tiny_config` with random weights."""
    config = tiny_config("never written", {"retrieval": {"batch_size": 4}})
    torch.manual_seed(0)
    encoders = {"cnn": ENCODERS.load("r3d10")(config), "transformer": video_transformer(config)}
    tensors = {f"{which}.{name}": x for which, e in encoders.items() for name, x in e.state_dict().items()}
    return EncoderWeights(source="here", config=config, step=0, tensors=tensors)
