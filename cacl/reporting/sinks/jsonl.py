"""Scalars as a file of JSON objects in the run folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from cacl.config import Config
from cacl.files import atomic_write, lines_until

METRICS_NAME = "metrics.jsonl"
"""The name of the file in a run folder."""


class JsonlSink:
    """Appends a line for each logging step, which a reader finds there at once.

    A line has the step as "step", and the scalars by name. What is infinite or not a number is null, since JSON has no
    such numbers.
    """

    def __init__(self, config: Config, first_step: int) -> None:
        """Opens the file, and drops the lines of later steps than `first_step`. See `ScalarSink`."""
        file = Path(config.run) / METRICS_NAME
        if file.exists():
            kept = lines_until(file, first_step)
            with atomic_write(file) as temporary:
                temporary.write_text("".join(kept))
        self._file = file.open("a")

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends a line. See `ScalarSink`."""
        values = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
        self._file.write(json.dumps({"step": step} | values, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
