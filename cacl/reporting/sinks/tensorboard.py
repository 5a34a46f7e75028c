"""Scalars as TensorBoard events in the run folder."""

from __future__ import annotations

from collections.abc import Mapping

from cacl.config import Config


class TensorBoardSink:
    """Writes events, of which TensorBoard drops those of an earlier attempt at the same steps."""

    def __init__(self, config: Config, first_step: int) -> None:
        """Opens a new file of events. See `ScalarSink`."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(config.run, purge_step=first_step + 1)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes an event for each scalar. See `ScalarSink`."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()
