"""What a run saves and when, and what a resumed run goes on from."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from cacl import config as configuration
from cacl import distributed
from cacl.checkpoints import checkpoint
from cacl.checkpoints.checkpoint import CHECKPOINT_NAME, Checkpoint
from cacl.checkpoints.encoders import ENCODERS_NAME, EncoderWeights
from cacl.config import Config
from cacl.errors import CheckpointError
from cacl.training.run_state import RunState

log = logging.getLogger(__name__)

MAY_CHANGE_ON_RESUME = (
    "name",
    "run",
    "data.",
    "loader.",
    "retrieval.",
    "knn.",
    "profile.",
    "train.device",
    "train.activation_checkpointing",
    "train.log_every",
    "train.loggers",
    "train.checkpoint_every",
)
"""Keys that a resumed run may set anew: they change how it runs, not what it computes. The videos are compared by
their fingerprint, wherever they lie."""


class Checkpointer:
    """Saves the state of a run into its folder: a checkpoint at regular steps, and the encoders at the end.

    All ranks call it alike, and rank 0 writes.
    """

    def __init__(self, config: Config, data_fingerprint: str) -> None:
        """Writes nothing yet.

        Args:
            config: The configuration of the run.
            data_fingerprint: The fingerprint of the training videos.
        """
        self.run, self.every = Path(config.run), config.train.checkpoint_every
        self.data_fingerprint = data_fingerprint

    def due(self, step: int) -> bool:
        """Returns whether a checkpoint is to be saved after this step."""
        return step % self.every == 0

    def save(self, state: RunState[Any], name: str = CHECKPOINT_NAME) -> None:
        """Replaces a checkpoint in the run folder by one of this state.

        Args:
            state: The state.
            name: The name of the file.
        """
        if distributed.rank() == 0:
            checkpoint.save(self.run / name, state.make_checkpoint(self.data_fingerprint))

    def save_encoders(self, state: RunState[Any]) -> None:
        """Writes the trained encoders alone, for everybody who does not go on training."""
        if distributed.rank() == 0:
            saved = state.make_checkpoint(self.data_fingerprint)
            EncoderWeights.of_checkpoint(saved, str(self.run)).save(self.run / ENCODERS_NAME)


def refused_changes(begun: Config, config: Config) -> list[str]:
    """Finds what keeps a run from going on with another configuration.

    Args:
        begun: The configuration that the run began with.
        config: The other configuration.

    Returns:
        `key: old -> new` for each key that decides what the run computes and that differs.
    """
    changes = configuration.differences(begun, config)
    return [change for change in changes if not change.startswith(MAY_CHANGE_ON_RESUME)]


def load_to_resume(config: Config) -> Checkpoint | None:
    """Reads the checkpoint that a resumed run goes on from.

    Args:
        config: The configuration of the resumed run.

    Returns:
        The checkpoint; None if the run folder holds none yet.

    Raises:
        CheckpointError: The checkpoint is damaged, or was made with a configuration that computes something else.
    """
    run = Path(config.run)
    if not (run / CHECKPOINT_NAME).exists():
        log.info("%s holds no checkpoint yet: beginning at step 0", run)
        return None
    saved = checkpoint.load(run)
    if refused := refused_changes(saved.config, config):
        raise CheckpointError(
            f"{run} was begun with another configuration ({'; '.join(refused)}): set it back, or begin another run"
        )
    return saved
