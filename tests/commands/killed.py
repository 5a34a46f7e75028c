"""The command line in a process that kills itself in the middle of a training."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from cacl.training.run_state import RunState
from tests import forked


def cacl(run: str, step: str, *arguments: str) -> None:
    """Is the command `cacl`, which is killed before the run in a folder takes the step after so many."""
    take = RunState.train_step

    def take_or_die(state: RunState[Any], *batch: Any, **options: Any) -> Any:
        if (state.config.run, state.step) == (run, int(step)):
            os.kill(os.getpid(), signal.SIGKILL)
        return take(state, *batch, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunState, "train_step", take_or_die)
        forked.cacl(*arguments)
