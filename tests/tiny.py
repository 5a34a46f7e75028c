"""The smallest run that has every part of the method, for tests that train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cacl.config import Config, from_dict

SECTIONS: dict[str, dict[str, Any]] = {
    "clip": {"frames": 4, "stride": 1, "size": 16},
    "loader": {"backend": "host", "threads": 1},
    "model": {
        "cnn": "r3d10",
        "width": 1 / 16,
        "embedding": 8,
        "transformer": {"embedder": "light", "width": 16, "depth": 1, "heads": 2},
    },
    "contrast": {"queue": 30},
    "train": {"device": "cpu", "log_every": 1},
}


def tiny_config(run: str | Path, *layers: dict[str, dict[str, Any]], seed: int = 0) -> Config:
    """Sections of each layer in turn, key by key, over those above."""
    values: dict[str, Any] = {"run": str(run), "seed": seed}
    for layer in (SECTIONS, *layers):
        for name, section in layer.items():
            values[name] = values.get(name, {}) | section
    return from_dict(values)
