"""What a command leaves behind when it has ended."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

Finished = subprocess.CompletedProcess[str]
Run = Callable[..., Finished]
"""Runs a command with the arguments that it is given; `cacl` and `process` are fixtures of this kind."""


def result(finished: Finished) -> Any:
    """The one JSON document on stdout of a command that went well."""
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)
