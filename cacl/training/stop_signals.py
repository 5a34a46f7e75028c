"""Stopping a run by Ctrl-C or SIGTERM: the step that is under way is finished and saved first."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from cacl.errors import CaclError


class TrainingInterruptedError(CaclError):
    """The run was stopped by a signal, after it had saved a checkpoint.

    Args:
        number: The number of the signal.
        step: The number of steps that were taken.
        num_steps: The number of steps of the run.
    """

    exit_code = 130

    def __init__(self, number: int, step: int, num_steps: int) -> None:
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name} after step {step} of {num_steps}; --resume goes on")


class StopSignals:
    """Collects SIGINT and SIGTERM while it is open, in place of the handlers that were set before.

    The training loop looks at `received` in every step.
    """

    def __init__(self) -> None:
        """Leaves the handlers as they are until the block is entered."""
        self.received = 0
        """The highest number of the signals received so far; 0 if there was none."""
        self._handlers_before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers_before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.received = max(self.received, number)
