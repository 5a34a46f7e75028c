"""Which sinks a run has."""

from __future__ import annotations

import importlib.util

from cacl.config import Config
from cacl.errors import UsageError
from cacl.registry import LOGGERS
from cacl.reporting.sinks.jsonl import JsonlSink
from cacl.reporting.sinks.sink import ScalarSink
from cacl.reporting.sinks.tensorboard import TensorBoardSink

ALWAYS: tuple[type[ScalarSink], ...] = (JsonlSink, TensorBoardSink)
"""The sinks of every run. `cacl.registry.LOGGERS` has those that `train.loggers` chooses."""


def check_installed(config: Config) -> None:
    """Checks that the packages of the loggers of a run are installed, without importing any.

    Args:
        config: The configuration of the run.

    Raises:
        UsageError: A package is missing. The message has the command that installs it.
    """
    for name in config.train.loggers:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # any folder of this name, such as W&B makes, is found without origin
            raise UsageError(f'train.loggers: "{name}" is not installed; `pip install {name}` installs it')


def open_sinks(config: Config, first_step: int) -> list[ScalarSink]:
    """Opens the sinks of a run.

    Args:
        config: The configuration of the run.
        first_step: Steps that were taken before this process began.

    Returns:
        The sinks, to be closed by the caller.

    Raises:
        CaclError: A logger cannot be opened.
    """
    chosen = (LOGGERS.load(name) for name in config.train.loggers)
    return [sink(config, first_step) for sink in (*ALWAYS, *chosen)]
