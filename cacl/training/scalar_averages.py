"""The means of what the steps since the last log line reported."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from cacl.stages import stage

T = TypeVar("T")


class ScalarAverages:
    """Averages the scalars of steps on the device, which is waited for only when the means are taken."""

    def __init__(self) -> None:
        """Begins with no steps, at this moment."""
        self._begin()

    def _begin(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps, self.clips, self.seconds_waited, self.began = 0, 0, 0.0, time.monotonic()

    def timed(self, batches: Iterator[T]) -> Iterator[T]:
        """Passes batches on, and measures how long each is waited for.

        Args:
            batches: The batches of a loader.

        Yields:
            The same batches.
        """
        while True:
            start = time.monotonic()
            with stage("data"):
                batch = next(batches, None)
            if batch is None:
                return
            self.seconds_waited += time.monotonic() - start
            yield batch

    def add(self, scalars: dict[str, Tensor], clips: int) -> None:
        """Adds the scalars of one step.

        Args:
            scalars: Scalars by name, the same names in every step. A step without any was skipped, and does not count.
            clips: The number of clips of all ranks in this step.
        """
        if not scalars:
            return
        self.steps += 1
        self.clips += clips
        for name, value in scalars.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time that the block takes out of the account."""
        start = time.monotonic()
        yield
        self.began += time.monotonic() - start

    def take(self) -> dict[str, float]:
        """Waits for the device, returns the means of the steps since the last call, and begins anew.

        Returns:
            The means by name, and with them `clips_per_second`, over all ranks, and `data_wait_share`, the share of the
            time in which this rank waited for its batches.
        """
        values = torch.stack([value.float().cpu() for value in self.sums.values()]) / self.steps
        seconds = time.monotonic() - self.began
        scalars = dict(zip(self.sums, values.tolist(), strict=True))
        scalars |= {"clips_per_second": self.clips / seconds, "data_wait_share": self.seconds_waited / seconds}
        self._begin()
        return scalars
