"""The encoders by name: `create_model` builds one, and `list_models` tells which there are."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection
from typing import Any

from cacl.config import TransformerConfig, from_dict
from cacl.errors import ConfigError
from cacl.models.encoder import Encoder
from cacl.registry import ENCODERS

TRANSFORMER = "video_transformer"
"""The name of the encoder that has a section of the configuration to itself."""


def list_models() -> list[str]:
    """Returns the name of every encoder that `create_model` knows, those of other packages included."""
    return ENCODERS.names()


def create_model(name: str, **overrides: Any) -> Encoder:
    """Builds an encoder with random weights, apart from those of a frame embedder for which `weights` names a file.

    Args:
        name: One of `list_models()`.
        **overrides: What is to differ from the defaults. All encoders take `init`, as `ModelConfig` has it, and
            `frames` and `size`, the number of frames of a clip and its height and width, which are 16 and 112 by
            default and which some encoders are made for. `video_transformer` takes the fields of `TransformerConfig`,
            and all others take `width`, a multiplier of their channels.

    Returns:
        The encoder, in training mode, on the CPU.

    Raises:
        ConfigError: The name or an override is unknown, in which case the message names the nearest known one, or a
            value is out of bounds.
        CheckpointError: The file of weights cannot be read, or does not fit the frame embedder.
    """
    _check_known("model", [name], list_models())
    fields = [field.name for field in dataclasses.fields(TransformerConfig)] if name == TRANSFORMER else ["width"]
    _check_known(f"override of {name}", overrides, ["frames", "size", "init", *fields])
    clip = {key: overrides.pop(key) for key in ("frames", "size") if key in overrides}
    model: dict[str, Any] = {"init": overrides.pop("init", "normal")}
    model |= {"transformer": overrides} if name == TRANSFORMER else {"cnn": name, **overrides}
    return ENCODERS.load(name)(from_dict({"clip": clip, "model": model}))


def _check_known(what: str, given: Collection[str], known: Collection[str]) -> None:
    for name in given:
        if name not in known:
            (nearest,) = difflib.get_close_matches(name, known, 1, cutoff=0)
            raise ConfigError(f"{name}: no such {what}; did you mean {nearest}? Known are {', '.join(known)}")
