"""Every key of the configuration, and configurations that differ in one: for tests of what a key may decide."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any


def keys(config: Any, prefix: str = "") -> Iterator[str]:
    """`name`, ..., `data.root`, ...: whatever a configuration, or a section of one, has."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        yield from keys(value, f"{prefix}{field.name}.") if dataclasses.is_dataclass(value) else [prefix + field.name]


def value_of(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = getattr(config, name)
    return config


def changed(config: Any, key: str, value: Any) -> Any:
    """The configuration with another value of one key, which is not checked."""
    first, _, rest = key.partition(".")
    return dataclasses.replace(config, **{first: changed(getattr(config, first), rest, value) if rest else value})


def another(value: Any) -> Any:
    """A different value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return tuple(another(part) for part in value)
    return f"another {value}" if isinstance(value, str) else value + type(value)(1)
