"""Whether packages that only some rivals need are installed."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec


def unavailable_reason(module: str, package: str) -> str:
    """Why a module of an optional package cannot be used here; empty if it can."""
    if not find_spec(module):
        return f"{package} is not installed (pip install {package})"
    try:
        import_module(module)
    except Exception as error:  # TorchCodec raises RuntimeError where FFmpeg's libraries are missing.
        return f"{package} cannot be imported ({str(error).splitlines()[0]})"
    return ""
