"""The encoders by name, and the function that builds them."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from cacl.config import TransformerConfig, from_dict
from cacl.errors import ConfigError
from cacl.models.cnn3d import C3D, CNN3D, ResNet3D
from cacl.models.video_transformer import VideoTransformer

CNNS: Mapping[str, Callable[..., CNN3D]] = {
    "c3d": C3D,
    "r3d10": partial(ResNet3D, (1, 1, 1, 1)),
    "r3d18": partial(ResNet3D, (2, 2, 2, 2)),
    "r3d34": partial(ResNet3D, (3, 4, 6, 3)),
    "r2plus1d10": partial(ResNet3D, (1, 1, 1, 1), factorised=True),
    "r2plus1d10_official": partial(ResNet3D, (1, 1, 1, 1), factorised=True, official=True),
    "r2plus1d18": partial(ResNet3D, (2, 2, 2, 2), factorised=True),
}
"""Every 3D CNN by name, as a function of `width`, the multiplier of its channels, and `init`."""

MODEL_NAMES = (*CNNS, "video_transformer")
"""Every name that `create_model` knows."""


def create_model(name: str, **overrides: Any) -> CNN3D | VideoTransformer:
    """Builds an encoder with random weights, apart from those of a frame embedder for which `weights` names a file.

    Args:
        name: One of `MODEL_NAMES`.
        **overrides: What is to differ from the defaults. All encoders take `init`, as `ModelConfig` has it. The 3D CNNs
            take `width`, a multiplier of their channels. `video_transformer` takes the fields of `TransformerConfig`
            and `frames`, the number of frames of a clip, which is 16 by default.

    Returns:
        The encoder, in training mode, on the CPU.

    Raises:
        ConfigError: The name or an override is unknown, in which case the message names the nearest known one, or a
            value is out of bounds.
        CheckpointError: The file of weights cannot be read, or does not fit the frame embedder.
    """
    _check_known("model", [name], MODEL_NAMES)
    if name in CNNS:
        _check_known(f"override of {name}", overrides, ["width", "init"])
        model = from_dict({"model": {"cnn": name, **overrides}}).model
        return CNNS[name](model.width, model.init)

    fields = [field.name for field in dataclasses.fields(TransformerConfig)]
    _check_known(f"override of {name}", overrides, ["frames", "init", *fields])
    clip = {"frames": overrides.pop("frames", 16)}
    # A CNN is named because the default one, which nobody asked for here, would forbid short clips.
    model = {"cnn": "r3d18", "init": overrides.pop("init", "normal"), "transformer": overrides}
    config = from_dict({"clip": clip, "model": model})
    return VideoTransformer(config.model.transformer, config.clip.frames, config.model.init)


def _check_known(what: str, given: Collection[str], known: Collection[str]) -> None:
    for name in given:
        if name not in known:
            (nearest,) = difflib.get_close_matches(name, known, 1, cutoff=0)
            raise ConfigError(f"{name}: no such {what}; did you mean {nearest}? Known are {', '.join(known)}")
