"""The interface of a sink, and how a run is known to services that keep many runs."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from cacl.config import Config
from cacl.files import atomic_write

LOGGER_ID_NAME = "logger_id.txt"
"""The name of the file in a run folder."""


class ScalarSink(Protocol):
    """A place that the scalars of a run are written to, by one rank."""

    def __init__(self, config: Config, first_step: int) -> None:
        """Opens the sink.

        Args:
            config: The resolved configuration, which names the run folder.
            first_step: Steps that were taken before this process began. What an earlier attempt wrote of later steps
                is not to stand beside what this one writes of them.

        Raises:
            CaclError: The sink cannot be opened.
        """
        ...

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the scalars of a logging step.

        Args:
            step: Steps taken so far, of the whole run. It rises from call to call.
            scalars: Numbers by name. They may be infinite or not a number.
        """
        ...

    def close(self) -> None:
        """Writes what is still to be written. The sink is not used any more."""
        ...


def logger_id(run: Path, first_step: int) -> str:
    """Returns the name by which services know a run, which stays in the run folder when that is moved.

    Args:
        run: The run folder.
        first_step: Steps that were taken before this process began. A run that begins at 0 gets a new name.

    Returns:
        Eight hexadecimal digits, drawn at random.
    """
    file = run / LOGGER_ID_NAME
    if first_step == 0 or not file.exists():
        with atomic_write(file) as temporary:
            temporary.write_text(secrets.token_hex(4))
    return file.read_text()
