"""Every key of the configuration, and configurations that differ in one: for tests of what a key may decide."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any


def config_keys(config: Any, prefix: str = "") -> Iterator[str]:
    """Yields the keys of a configuration, or of one of its sections: `name`, ..., `data.root`, ..."""
    for field in dataclasses.fields(config):
        value, key = getattr(config, field.name), prefix + field.name
        yield from config_keys(value, f"{key}.") if dataclasses.is_dataclass(value) else [key]


def value_at(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = getattr(config, name)
    return config


def with_value(config: Any, key: str, value: Any) -> Any:
    """Returns the configuration with another value of one key, which is not checked."""
    first, _, rest = key.partition(".")
    return dataclasses.replace(config, **{first: with_value(getattr(config, first), rest, value) if rest else value})


def other_value(value: Any) -> Any:
    """Returns a different value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, dict):
        return {key: other_value(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(other_value(part) for part in value) or ("another",)
    return f"another {value}" if isinstance(value, str) else value + type(value)(1)
