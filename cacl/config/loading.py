"""From a TOML file and `--set key=value` to a checked configuration, and back to TOML."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import TypeAdapter, ValidationError

from cacl.config.rules import contradictions
from cacl.config.schema import Config
from cacl.errors import ConfigError


def load(path: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Reads a configuration and validates the whole of it.

    Args:
        path: The TOML file. None takes the defaults.
        overrides: What is set after the file, each as `section.key=value`. The value is TOML, or a string without
            quotes.

    Returns:
        The configuration, with the defaults for the keys that are not set.

    Raises:
        ConfigError: The file cannot be read, or the configuration does not hold together. The message has one line for
            each problem.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text())
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: is not valid TOML: {error}") from None
    for text in overrides:
        _set(values, text)
    return from_dict(values)


def override(config: Config, overrides: Sequence[str]) -> Config:
    """Sets some keys of a configuration anew.

    Args:
        config: The configuration that the other keys are taken from.
        overrides: What is set, each as `section.key=value`.

    Returns:
        The new configuration.

    Raises:
        ConfigError: The new configuration does not hold together. The message has one line for each problem.
    """
    values = to_dict(config)
    for text in overrides:
        _set(values, text)
    return from_dict(values)


def from_dict(values: Mapping[str, Any]) -> Config:
    """Validates plain nested values, as TOML or a checkpoint hold them.

    Args:
        values: The values by key, with a mapping for each section.

    Returns:
        The configuration, with the defaults for the keys that are absent.

    Raises:
        ConfigError: A key is unknown, a value is out of bounds, or two keys contradict each other. The message has one
            line for each problem.
    """
    try:
        config = TypeAdapter(Config).validate_python(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(e) for e in error.errors())) from None
    problems = list(contradictions(config))
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def to_dict(config: Config) -> dict[str, Any]:
    """Returns the values of all keys, with a dictionary for each section."""
    return dataclasses.asdict(config)


def to_toml(config: Config) -> str:
    """Returns the configuration with all its keys as TOML, from which `load` makes an equal one."""
    return tomli_w.dumps(to_dict(config))


def differences(old: Config, new: Config) -> list[str]:
    """Returns `key: old -> new` for every key in which two configurations differ."""
    before, after = dict(_leaves(to_dict(old))), dict(_leaves(to_dict(new)))
    return [f"{key}: {before[key]} -> {after[key]}" for key in before if before[key] != after[key]]


def _set(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override}: write it as section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # A bare word is a string, as in --set model.cnn=r3d18.
    *sections, leaf = key.strip().split(".")
    for depth, name in enumerate(sections):
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {override}: {'.'.join(sections[: depth + 1])} is a value, not a section")
    values[leaf] = value


def _explain(error: Any) -> str:
    path = [str(part) for part in error["loc"]]
    key = ".".join(path)
    if error["type"] == "unexpected_keyword_argument":
        return f"{key}: no such key; {_nearest(path)}"
    message = error["msg"].removeprefix("Input ")
    return f"{key} = {error['input']!r}: {message}"


def _nearest(path: Sequence[str]) -> str:
    """Returns the way out for an unknown key: the nearest key of its section or of all, or what the section has."""
    known = [key.split(".") for key, _ in _leaves(dataclasses.asdict(Config()), sections=True)]
    siblings = [key for key in known if key[:-1] == list(path[:-1])]
    for candidates in (siblings, known) if len(path) > 1 else (known,):
        names = {key[-1]: key for key in reversed(candidates)}
        near = difflib.get_close_matches(path[-1], names, 1)
        if near:
            return f"did you mean {'.'.join(names[near[0]])}?"
    if len(path) > 1:
        return f"{'.'.join(path[:-1])} has {', '.join(key[-1] for key in siblings)}"
    return f"there are {', '.join(key[-1] for key in siblings)}"


def _leaves(values: Mapping[str, Any], prefix: str = "", *, sections: bool = False) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            if sections:
                yield prefix + name, value
            yield from _leaves(value, f"{prefix}{name}.", sections=sections)
        else:
            yield prefix + name, value
