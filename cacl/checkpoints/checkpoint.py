"""Checkpoints: one file with everything that a run needs to go on, and the encoders alone for everybody else.

What is not in the file needs no storing: the data position, the learning rate and every random draw are functions of
the step.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cacl import config as configuration
from cacl.config import Config
from cacl.errors import CheckpointError, ConfigError
from cacl.models import CNN3D, CNNS, TimmEmbedder, VideoTransformer

FORMAT = 1
KEYS = {"format", "config", "step", "data", "learner", "optimizer", "torch"}
LAST = "checkpoint.pt"
ENCODERS = "encoders.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    config: Config
    step: int
    """Steps taken."""
    data: str
    """Fingerprint of the training videos."""
    learner: dict[str, Tensor]
    optimizer: dict[str, Any]


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Writes the file whole or not at all: a reader, or a run killed now, sees the old one or the new one."""
    values = {
        "format": FORMAT,
        "config": configuration.to_dict(checkpoint.config),
        "step": checkpoint.step,
        "data": checkpoint.data,
        "learner": checkpoint.learner,
        "optimizer": checkpoint.optimizer,
        "torch": str(torch.__version__),
    }
    with _replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(values, file)
        file.flush()
        os.fsync(file.fileno())


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint, or the one in a run folder, onto the CPU. Raises CheckpointError."""
    path = _find(path)
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # unpickling garbage raises anything
        raise CheckpointError(f"{path}: is damaged or no checkpoint") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT or values.keys() != KEYS:
        raise CheckpointError(f"{path}: is not a checkpoint of this version of cacl")
    return Checkpoint(
        config=_config(path, values["config"]),
        step=values["step"],
        data=values["data"],
        learner=values["learner"],
        optimizer=values["optimizer"],
    )


def load_encoder(path: str | Path, which: str = "cnn") -> CNN3D | VideoTransformer:
    """A trained encoder, in evaluation mode, on the CPU.

    path: a run folder, a checkpoint, or encoders.safetensors. which: `cnn`, with forward [B, 3, T, H, W] -> [B, C] and
    maps -> [B, C, t, h, w], or `transformer`, with forward ([B, 3, T, H, W], order [B, T]) -> [B, C]; RGB in [0, 1].
    Raises CheckpointError if there is no such file, or no such encoder in it.
    """
    return read_encoders(Path(path)).build(which)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderWeights:
    """The encoders of a training run, not yet built."""

    source: str
    """Where they come from, for messages."""
    config: Config
    step: int
    tensors: dict[str, Tensor]
    """By name: cnn.*, transformer.*"""

    @property
    def names(self) -> list[str]:
        """Which of `cnn` and `transformer` there are."""
        return [which for which in ("cnn", "transformer") if any(n.startswith(f"{which}.") for n in self.tensors)]

    @property
    def digest(self) -> str:
        """sha256 over all weights, by name."""
        digest = hashlib.sha256()
        for name in sorted(self.tensors):
            digest.update(name.encode())
            digest.update(self.tensors[name].contiguous().numpy().tobytes())
        return digest.hexdigest()

    def build(self, which: str) -> CNN3D | VideoTransformer:
        """The encoder with its trained weights, in evaluation mode."""
        encoder = self.untrained(which)
        try:
            encoder.load_state_dict(self._state(f"{which}."))
        except RuntimeError as error:
            raise CheckpointError(
                f"{self.source}: belongs to another model than its configuration says ({_mismatch(error)})"
            ) from None
        return encoder

    def untrained(self, which: str) -> CNN3D | VideoTransformer:
        """The same encoder with random weights, in evaluation mode; a frozen embedder keeps the ones it was given."""
        if which not in self.names:
            raise CheckpointError(f"{self.source}: holds no encoder {which!r}, only {', '.join(self.names) or 'none'}")
        model = self.config.model
        if which == "cnn":
            return CNNS[model.cnn](model.width, model.init).eval()
        transformer = dataclasses.replace(model.transformer, weights="")  # they are in the checkpoint
        encoder = VideoTransformer(transformer, self.config.clip.frames, model.init).eval()
        if isinstance(encoder.embedder, TimmEmbedder) and transformer.frozen:
            encoder.embedder.backbone.load_state_dict(self._state("transformer.embedder.backbone."))
        return encoder

    def _state(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): x for name, x in self.tensors.items() if name.startswith(prefix)}


def encoders_of(checkpoint: Checkpoint, source: str) -> EncoderWeights:
    """The query CNN and transformer, without heads, queue and optimiser."""
    prefixes = ("query.cnn.", "query.transformer.")
    tensors = {name.removeprefix("query."): x for name, x in checkpoint.learner.items() if name.startswith(prefixes)}
    return EncoderWeights(source=source, config=checkpoint.config, step=checkpoint.step, tensors=tensors)


def save_encoders(path: Path, weights: EncoderWeights) -> None:
    """Writes encoders.safetensors, with the configuration in its metadata."""
    metadata = {"config": json.dumps(configuration.to_dict(weights.config)), "step": str(weights.step)}
    tensors = {name: x.detach().cpu().contiguous() for name, x in weights.tensors.items()}
    with _replacing(path) as temporary:
        save_file(tensors, temporary, metadata)


def read_encoders(path: Path) -> EncoderWeights:
    """The encoders of a run folder, a checkpoint or encoders.safetensors. Raises CheckpointError."""
    if path.suffix != ".safetensors":
        return encoders_of(load(path), str(_find(path)))
    path = _find(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: is damaged or no safetensors file ({_first_line(error)})") from None
    if not {"config", "step"} <= metadata.keys():
        raise CheckpointError(f"{path}: was not written by cacl (it holds no configuration)")
    try:
        values, step = json.loads(metadata["config"]), int(metadata["step"])
    except ValueError:
        raise CheckpointError(f"{path}: its metadata is damaged") from None
    return EncoderWeights(source=str(path), config=_config(path, values), step=step, tensors=tensors)


def _find(path: Path) -> Path:
    file = path / LAST if path.is_dir() else path
    if not file.exists():
        raise CheckpointError(f"{file}: no such checkpoint; give a run folder, a .pt or a .safetensors file")
    return file


def _config(path: Path, values: dict[str, Any]) -> Config:
    try:
        return configuration.from_dict(values)
    except ConfigError as error:
        raise CheckpointError(f"{path}: its configuration is not one of this version ({_first_line(error)})") from None


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when all went well."""
    temporary = path.with_name(f".{path.name}.writing")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _mismatch(error: RuntimeError) -> str:
    """The first thing that torch has against a state dict; its first line only names the class."""
    lines = [line.strip() for line in str(error).splitlines()]
    return (lines[1:] or lines)[0][:200]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
