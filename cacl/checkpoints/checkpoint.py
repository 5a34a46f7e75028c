"""The checkpoint of a training run: one file with everything that the run needs to go on.

What is not in the file needs no storing: the data position, the learning rate and every random draw are functions of
the step.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cacl import config as configuration
from cacl.config import Config
from cacl.errors import CheckpointError, ConfigError
from cacl.files import atomic_write

FORMAT = 2
"""The version of the file format. Files of another version are refused."""
KEYS = {"format", "config", "step", "data_fingerprint", "model", "optimizer", "torch"}
FINETUNE_KEY = "finetune"
"""The key that only checkpoints of `cacl finetune` have."""
CHECKPOINT_NAME = "checkpoint.pt"
"""The name of the file in a run folder."""
BEST_NAME = "best.pt"
"""The name of the checkpoint that did best on the validation videos, in the folder of a run of `cacl finetune`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneRecord:
    """What a run of `cacl finetune` keeps beside weights and optimiser."""

    classes: tuple[str, ...]
    """The names of the classes, in the order of the logits."""
    val_fingerprint: str
    """The fingerprint of the validation videos."""
    best_step: int = 0
    """The number of steps after which the validation went best; 0 before the first one."""
    best_accuracy: float = -1.0
    """The share of the validation videos that were classified rightly then, from 0 to 1."""
    best_loss: float = 0.0
    """The mean loss of the validation videos then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The state of a training run after some step."""

    config: Config
    step: int
    """The number of steps taken."""
    data_fingerprint: str
    """The fingerprint of the training videos."""
    model: dict[str, Tensor]
    """The state dict of `cacl.method.cacl.CACL`, or of `cacl.models.video_classifier.VideoClassifier`."""
    optimizer: dict[str, Any]
    """The state dict of the optimiser."""
    finetune: FinetuneRecord | None = None
    """What a run of `cacl finetune` keeps besides; None for a run without labels."""


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Writes the file whole or not at all: a reader, or a run that is killed now, sees the old one or the new one.

    Args:
        path: The file to write. Its folder must exist.
        checkpoint: What to write.

    Raises:
        OSError: The file cannot be written.
    """
    values = {
        "format": FORMAT,
        "config": configuration.to_dict(checkpoint.config),
        "step": checkpoint.step,
        "data_fingerprint": checkpoint.data_fingerprint,
        "model": checkpoint.model,
        "optimizer": checkpoint.optimizer,
        "torch": str(torch.__version__),
    }
    if checkpoint.finetune is not None:
        values[FINETUNE_KEY] = asdict(checkpoint.finetune)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        torch.save(values, file)


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint onto the CPU. Nothing that the file brings is executed.

    Args:
        path: The file, or the run folder that it lies in.

    Returns:
        The checkpoint.

    Raises:
        CheckpointError: The file is missing, damaged, or not a checkpoint of this version.
    """
    path = find_file(path)
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # unpickling garbage raises anything
        raise CheckpointError(f"{path}: is damaged or no checkpoint") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT or values.keys() - {FINETUNE_KEY} != KEYS:
        raise CheckpointError(f"{path}: is not a checkpoint of this version of cacl")
    return Checkpoint(
        config=stored_config(path, values["config"]),
        step=values["step"],
        data_fingerprint=values["data_fingerprint"],
        model=values["model"],
        optimizer=values["optimizer"],
        finetune=FinetuneRecord(**values[FINETUNE_KEY]) if FINETUNE_KEY in values else None,
    )


def find_file(path: Path) -> Path:
    """Finds the checkpoint that a path stands for.

    Args:
        path: A run folder or a file.

    Returns:
        The checkpoint in the run folder, or the file itself.

    Raises:
        CheckpointError: There is no such file.
    """
    file = path / CHECKPOINT_NAME if path.is_dir() else path
    if not file.exists():
        problem = f"no {CHECKPOINT_NAME} in this folder" if path.is_dir() else "no such checkpoint"
        raise CheckpointError(f"{path}: {problem}; give a run folder, a .pt or a .safetensors file")
    return file


def stored_config(path: Path, values: dict[str, Any]) -> Config:
    """Checks a configuration that was read from a file. Names are checked when what they stand for is needed.

    Args:
        path: The file, for the message.
        values: The configuration as plain nested values.

    Returns:
        The configuration.

    Raises:
        CheckpointError: It is not a configuration of this version.
    """
    try:
        return configuration.from_dict(values, check_names=False)
    except ConfigError as error:
        raise CheckpointError(f"{path}: its configuration is not one of this version ({first_line(error)})") from None


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message, or the name of its class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
