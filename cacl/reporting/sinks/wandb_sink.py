"""Scalars in Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cacl.config import Config, to_dict
from cacl.errors import UsageError
from cacl.reporting.sinks.sink import logger_id


class WandbSink:
    """Writes to a run of W&B whose id the run folder keeps, so that a resumed run goes on with it.

    Steps that W&B already has are not written again: it takes no step twice. W&B keeps its own files in the run folder.
    Its variables of the environment say where the run goes, such as WANDB_MODE=offline and WANDB_PROJECT.
    """

    def __init__(self, config: Config, first_step: int) -> None:
        """Opens the run of W&B, without a word on the console. See `ScalarSink`."""
        import wandb  # pyright: ignore[reportMissingImports]

        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "cacl"),
                name=config.name,
                id=logger_id(Path(config.run), first_step),
                dir=config.run,
                config=to_dict(config),
                resume="allow",
                settings=wandb.Settings(silent=True, console="off"),
            )
        except wandb.Error as error:
            reason = " ".join(str(error).split())
            raise UsageError(f'train.loggers, "wandb": {reason} WANDB_MODE=offline needs no server') from None

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Hands the scalars to the process of W&B. See `ScalarSink`."""
        self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        """Waits until the process of W&B has written everything."""
        self._run.finish()
