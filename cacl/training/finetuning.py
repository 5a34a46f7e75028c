"""`cacl finetune`: from an encoder and labelled videos to a classifier. The loop is `fit` in `trainer`."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from cacl import config as configuration
from cacl import distributed
from cacl.checkpoints.checkpoint import FinetuneRecord
from cacl.checkpoints.encoders import EncoderWeights
from cacl.config import Config
from cacl.errors import DataError, UsageError
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.clip_loader import ClipLoader
from cacl.models.encoder import Encoder
from cacl.registry import ENCODERS
from cacl.reporting.console import Console
from cacl.reporting.sinks.select import check_installed
from cacl.training.checkpointer import load_to_resume
from cacl.training.finetune_state import FinetuneState
from cacl.training.trainer import LogWatcher, check_batch_size, make_run_folder, run_to_the_end
from cacl.training.training_videos import find_labelled_videos
from cacl.training.validation import Validation

log = logging.getLogger(__name__)

INHERITED = ("clip", "augment", "loader", "model", "train", "retrieval")
"""The sections that a run of fine-tuning has from the run of its encoder, unless something sets their keys."""
FIXED_BY_WEIGHTS = {
    "cnn": {"model.cnn", "model.width"},
    "transformer": {
        "clip.frames",
        "model.transformer.embedder",
        "model.transformer.width",
        "model.transformer.depth",
        "model.transformer.heads",
        "model.transformer.normalize",
    },
}
"""The keys that the weights of an encoder decide."""


def inherited_settings(weights: str) -> dict[str, Any]:
    """Returns the settings that the run of an encoder hands on to a run of fine-tuning.

    Args:
        weights: The run folder, checkpoint or encoders.safetensors of the encoder.

    Returns:
        The values as `load` takes them for its `base`.

    Raises:
        CheckpointError: There is no such file, or it cannot be read.
    """
    values = configuration.to_dict(EncoderWeights.read(Path(weights)).config)
    values["model"]["transformer"]["weights"] = ""  # They are among those of the encoder.
    return {section: values[section] for section in INHERITED}


def finetune(config: Config, *, resume: bool = False, on_log: LogWatcher | None = None) -> dict[str, Any]:
    """Trains an encoder and a linear classifier on labelled videos to the end.

    Args:
        config: The configuration of the run, which names the encoder, and the folder that everything is written to.
        resume: Whether to go on from the checkpoint in the run folder, if there is one.
        on_log: What looks at the run whenever its scalars have been written.

    Returns:
        What `cacl.training.trainer.train` returns, and the `best` validation: its `step` and its `val_accuracy`.

    Raises:
        CaclError: Something went wrong that a user can mend. The message is one line.
        TrainingInterruptedError: A signal asked the run to stop, and it saved a checkpoint before it did.
    """
    check_installed(config)
    make_run_folder(config, resume=resume)
    with (
        distributed.process_group(config.train.device) as device,
        Console(enabled=distributed.rank() == 0) as console,
    ):
        saved = load_to_resume(config) if resume else None
        catalog = find_labelled_videos(config, console, saved)
        check_batch_size(config)
        loader = _loader(config, catalog, "train", device)
        val_loader = _loader(config, catalog, "val", device)
        if len(loader.classes) < 2:
            raise DataError(
                f"{catalog.root}: all training videos have the {config.finetune.label} {min(loader.classes)!r}, and a "
                "classifier needs two classes: name another column as finetune.label"
            )
        log.info("%s validation videos, %s classes", len(val_loader.catalog.videos), len(loader.classes))
        state = FinetuneState(
            config,
            loader.catalog.clips_per_epoch,
            device,
            build_encoder=lambda: _build_encoder(config, is_new=saved is None),
            record=FinetuneRecord(classes=loader.classes, val_fingerprint=val_loader.catalog.fingerprint),
        )
        summary = run_to_the_end(state, loader, console, saved, Validation(state, val_loader), on_log)
    return summary | {"best": {"step": state.record.best_step, "val_accuracy": state.record.best_accuracy}}


def _loader(config: Config, catalog: Catalog, split: str, device: Any) -> ClipLoader:
    rank, world_size, label = distributed.rank(), distributed.world_size(), config.finetune.label
    return ClipLoader.from_config(
        config, catalog=catalog, views=1, split=split, labels=label, rank=rank, world_size=world_size, device=device
    )


def _build_encoder(config: Config, *, is_new: bool) -> Encoder:
    """Builds the encoder of a new run with its weights, and that of a run that goes on without."""
    which = config.finetune.encoder
    if config.finetune.weights and is_new:
        weights = EncoderWeights.read(Path(config.finetune.weights))
        changed = [
            line
            for line in configuration.differences(weights.config, config)
            if line.partition(":")[0] in FIXED_BY_WEIGHTS[which]
        ]
        if changed:
            raise UsageError(
                f"finetune.weights = {config.finetune.weights} decide {'; '.join(changed)}: leave that as it is"
            )
        return dataclasses.replace(weights, config=config).build(which)
    return ENCODERS.load(config.model.cnn if which == "cnn" else "video_transformer")(config)
