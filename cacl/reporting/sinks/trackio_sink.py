"""Scalars in trackio, which keeps them on this machine, or in a Space of Hugging Face."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path

from cacl.config import Config, to_dict
from cacl.errors import UsageError
from cacl.reporting.sinks.sink import logger_id


class TrackioSink:
    """Writes to a run of trackio whose name the run folder keeps, so that a resumed run goes on with it.

    Trackio tells runs by their name alone, of which the `name` of the configuration is a part. Steps that it already
    has are not written again, since it would show them twice. Its variables of the environment say where the run goes,
    such as TRACKIO_DIR. What it prints goes to stderr, since stdout is for results.
    """

    def __init__(self, config: Config, first_step: int) -> None:
        """Opens the run of trackio. See `ScalarSink`."""
        import trackio  # pyright: ignore[reportMissingImports]

        try:
            with redirect_stdout(sys.stderr):
                self._run = trackio.init(
                    project=os.environ.get("TRACKIO_PROJECT", "cacl"),
                    name=f"{config.name}-{logger_id(Path(config.run), first_step)}",
                    config=to_dict(config),
                    resume="allow",
                    embed=False,
                )
        except (OSError, ValueError) as error:  # a token that is missing is an OSError
            raise UsageError(f'train.loggers, "trackio": {" ".join(str(error).split())}') from None
        self._next_step = self._run._next_step

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Hands the scalars to a thread of trackio. See `ScalarSink`."""
        if step >= self._next_step:
            self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        """Waits until the thread has written everything."""
        import trackio  # pyright: ignore[reportMissingImports]

        with redirect_stdout(sys.stderr):
            trackio.finish()
