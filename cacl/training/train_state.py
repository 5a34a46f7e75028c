"""The state of a training run without labels: the method, its optimiser, and what is special about its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cacl.clips import ClipBatch
from cacl.config import Config
from cacl.method.cacl import CACL
from cacl.training.run_state import RunState


class TrainState(RunState[CACL]):
    """The state of a training run without labels."""

    def __init__(self, config: Config, clips_per_epoch: int, device: torch.device) -> None:
        """Draws the weights of a new run; `restore` replaces them by those of a checkpoint.

        Args:
            config: The configuration of the run.
            clips_per_epoch: The number of clips of an epoch.
            device: The device to train on.

        Raises:
            ConfigError: The precision or the optimiser that the configuration asks for is not available here.
        """
        torch.manual_seed(config.seed)
        self.model = CACL(config).to(device)
        super().__init__(config, clips_per_epoch, device, trained=self.model.query)

    @property
    def min_clips_per_rank(self) -> int:
        """The least number of clips that one rank needs in a step."""
        return self.model.min_clips_per_rank

    def learning_rates(self) -> Mapping[str, float]:
        """Returns the learning rate of the next step, which all parameters share."""
        return {"learning_rate": self.schedule.at(self.step)}

    def compute_loss(self, batch: ClipBatch, counts: Sequence[int] | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the losses of the method, and keeps the new keys for `end_step`.

        Args:
            batch: The clips of this rank, on the device.
            counts: The number of clips of each rank; None: all have as many.

        Returns:
            The weighted sum of the losses, and scalars by name, on the device.
        """
        losses, self._keys = self.data_parallel(batch, self.step, counts)
        return losses.total, losses.metrics

    def end_step(self) -> None:
        """Lets the momentum copies follow, and the new keys enter the queue."""
        self.model.update(self._keys)
