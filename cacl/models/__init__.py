"""The encoders and their heads, and the encoders by name.

cnn = create_model("r3d18", width=0.5)
transformer = create_model("video_transformer", frames=8, embedder="light", width=192, depth=4)
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection
from typing import Any

from cacl.config import TransformerConfig, from_dict
from cacl.errors import ConfigError
from cacl.models.cnn3d import C3D, CNN3D, CNNS, ResNet3D
from cacl.models.heads import ContrastHead, OrderHead
from cacl.models.video_transformer import LightEmbedder, TimmEmbedder, VideoTransformer

__all__ = [
    "C3D",
    "CNN3D",
    "CNNS",
    "MODEL_NAMES",
    "ContrastHead",
    "LightEmbedder",
    "OrderHead",
    "ResNet3D",
    "TimmEmbedder",
    "VideoTransformer",
    "create_model",
]

MODEL_NAMES = (*CNNS, "video_transformer")


def create_model(name: str, **overrides: Any) -> CNN3D | VideoTransformer:
    """An encoder with random weights (but those of the embedder, where `weights` names a file).

    All take `init`, as ModelConfig has it. The 3D CNNs take `width`, a multiplier of their channel counts;
    `video_transformer` takes the fields of TransformerConfig, and `frames` (default 16).

    Raises ConfigError for an unknown name or override, with the nearest known one, and for a value out of bounds;
    CheckpointError for weights that cannot be loaded.
    """
    _check_known("model", [name], MODEL_NAMES)
    if name in CNNS:
        _check_known(f"override of {name}", overrides, ["width", "init"])
        model = from_dict({"model": {"cnn": name, **overrides}}).model
        return CNNS[name](model.width, model.init)

    fields = [field.name for field in dataclasses.fields(TransformerConfig)]
    _check_known(f"override of {name}", overrides, ["frames", "init", *fields])
    clip = {"frames": overrides.pop("frames", 16)}
    # the CNN is named because the default one, which nobody asked for here, would forbid short clips
    model = {"cnn": "r3d18", "init": overrides.pop("init", "normal"), "transformer": overrides}
    config = from_dict({"clip": clip, "model": model})
    return VideoTransformer(config.model.transformer, config.clip.frames, config.model.init)


def _check_known(what: str, given: Collection[str], known: Collection[str]) -> None:
    for name in given:
        if name not in known:
            (nearest,) = difflib.get_close_matches(name, known, 1, cutoff=0)
            raise ConfigError(f"{name}: no such {what}; did you mean {nearest}? Known are {', '.join(known)}")
