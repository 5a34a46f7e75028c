"""From a TOML file and `--set key=value` to a checked configuration, and back to TOML."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tomli_w
from pydantic import TypeAdapter, ValidationError

from cacl.config import recipes
from cacl.config.data_schema import RootConfig
from cacl.config.names import CHECK_NAMES
from cacl.config.rules import contradicting_roots, contradictions
from cacl.config.schema import Config
from cacl.errors import ConfigError


def load(
    name_or_file: str | Path | None = None,
    overrides: Sequence[str] = (),
    arguments: Mapping[str, str | None] = MappingProxyType({}),
    base: Mapping[str, Any] = MappingProxyType({}),
) -> Config:
    """Reads a configuration and validates the whole of it.

    Args:
        name_or_file: The name of a recipe, or the path of a TOML file; `recipes.find` tells one from the other. None
            takes the defaults.
        overrides: What is set after the file, each as `section.key=value`. The value is TOML, or a string without
            quotes.
        arguments: The strings that arguments of their own set, by key. None stands for what was not given.
        base: Plain nested values of the keys that nothing else sets, in place of their defaults.

    Returns:
        The configuration, with the defaults for the keys that are not set.

    Raises:
        ConfigError: The file cannot be read, a key is set by an argument and an override, or the configuration does not
            hold together. The message has one line for each problem.
    """
    values: dict[str, Any] = {} if name_or_file is None else _read(name_or_file)
    values = _laid_over(base, values)
    _set_given(values, overrides, arguments)
    return from_dict(values)


def load_given(
    overrides: Sequence[str] = (), arguments: Mapping[str, str | None] = MappingProxyType({})
) -> tuple[Config, frozenset[str]]:
    """Reads what is set without any file, for the other keys to be chosen afterwards, with `replace`.

    Args:
        overrides: As for `load`.
        arguments: As for `load`.

    Returns:
        The configuration, with the defaults for the keys that are not set, and the keys that are set. Whether they
        contradict others is not known before those are chosen, apart from those that name the videos.

    Raises:
        ConfigError: A key is unknown or is set twice, a value is out of bounds, or the keys that name the videos
            contradict each other.
    """
    values: dict[str, Any] = {}
    _set_given(values, overrides, arguments)
    config = _validate(values)
    if problems := list(contradicting_roots(config.data)):  # No choice changes these.
        raise ConfigError("\n".join(problems))
    return config, frozenset(key for key, _ in leaves(values))


def override(config: Config, overrides: Sequence[str], *, check_names: bool = True) -> Config:
    """Sets some keys of a configuration anew.

    Args:
        config: The configuration that the other keys are taken from.
        overrides: What is set, each as `section.key=value`.
        check_names: As for `from_dict`.

    Returns:
        The new configuration.

    Raises:
        ConfigError: The new configuration does not hold together. The message has one line for each problem.
    """
    return replace(config, dict(map(_parse, overrides)), check_names=check_names)


def replace(config: Config, values: Mapping[str, Any], *, check_names: bool = True) -> Config:
    """Sets some keys of a configuration to other values.

    Args:
        config: The configuration that the other keys are taken from.
        values: The values by key, such as `clip.frames`.
        check_names: As for `from_dict`.

    Returns:
        The new configuration.

    Raises:
        ConfigError: The new configuration does not hold together. The message has one line for each problem.
    """
    nested = to_dict(config)
    for key, value in values.items():
        _set(nested, key, value)
    return from_dict(nested, check_names=check_names)


def from_dict(values: Mapping[str, Any], *, check_names: bool = True) -> Config:
    """Validates plain nested values, as TOML or a checkpoint hold them.

    Args:
        values: The values by key, with a mapping for each section.
        check_names: Whether each name that a registry should have has to be there. An evaluation needs the encoder of
            a training, and not its losses and augmentations, which another package may have registered.

    Returns:
        The configuration, with the defaults for the keys that are absent.

    Raises:
        ConfigError: A key is unknown, a value is out of bounds, or two keys contradict each other. The message has one
            line for each problem.
    """
    config = _validate(values, check_names=check_names)
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
    before, after = dict(leaves(to_dict(old))), dict(leaves(to_dict(new)))
    changes = {key: (before.get(key, "unset"), after.get(key, "unset")) for key in before | after}
    return [f"{key}: {was} -> {becomes}" for key, (was, becomes) in changes.items() if was != becomes]


def _validate(values: Mapping[str, Any], *, check_names: bool = True) -> Config:
    """Checks each value by itself."""
    try:
        return TypeAdapter(Config).validate_python(values, context={CHECK_NAMES: check_names})
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(e) for e in error.errors())) from None


def _read(name_or_file: str | Path) -> dict[str, Any]:
    file = recipes.find(name_or_file)
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: is not valid TOML: {error}") from None


def _laid_over(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested values, and those of `base` where there are none. They may be changed, and `base` stays."""
    merged = copy.deepcopy(dict(base))
    for key, value in values.items():
        below = merged.get(key)
        if isinstance(value, dict) and isinstance(below, Mapping):
            value = _laid_over(below, value)
        merged[key] = value
    return merged


def _set_given(values: dict[str, Any], overrides: Sequence[str], arguments: Mapping[str, str | None]) -> None:
    given = {key: value for key, value in arguments.items() if value is not None}
    for key, value in map(_parse, overrides):
        if key in given:
            raise ConfigError(
                f"{key} is given twice, as {given[key]} and by --set {key}={value}: leave one of them out"
            )
        _set(values, key, value)
    for key, value in given.items():
        _set(values, key, value)


def _parse(override: str) -> tuple[str, Any]:
    """Returns the key and the value of `section.key=value`."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override}: write it as section.key=value")
    try:
        return key.strip(), tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), text  # A bare word is a string, as in --set model.cnn=r3d18.


def _set(values: dict[str, Any], key: str, value: object) -> None:
    *sections, leaf = key.split(".")
    for depth, name in enumerate(sections):
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{key} = {value!r}: {'.'.join(sections[: depth + 1])} is a value, not a section")
    values[leaf] = value


def _explain(error: Any) -> str:
    path = [str(part) for part in error["loc"] if part != "[key]"]  # so pydantic points at the key of a table
    key = ".".join(path)
    if error["type"] == "unexpected_keyword_argument":
        return f"{key}: no such key; {way_out([part for part in path if not part.isdecimal()])}"
    if error["type"] == "dataclass_type":
        return f"{key} = {error['input']!r}: is no section; write {{key = value, ...}}, or its keys below its name"
    message = error["msg"].removeprefix("Input ")
    return f"{key} = {error['input']!r}: {message}"


def way_out(path: Sequence[str]) -> str:
    """Returns what to do about an unknown key: the nearest key of its section or of all, or what the section has.

    Args:
        path: The parts of the key.
    """
    defaults = dataclasses.asdict(Config())
    defaults["data"]["roots"] = dataclasses.asdict(RootConfig())  # Each entry of the list has these keys.
    known = [key.split(".") for key, _ in leaves(defaults, sections=True)]
    siblings = [key for key in known if key[:-1] == list(path[:-1])]
    for candidates in (siblings, known) if len(path) > 1 else (known,):
        names = {key[-1]: key for key in reversed(candidates)}
        near = difflib.get_close_matches(path[-1], names, 1)
        if near:
            return f"did you mean {'.'.join(names[near[0]])}?"
    if len(path) > 1:
        return f"{'.'.join(path[:-1])} has {', '.join(key[-1] for key in siblings)}"
    return f"there are {', '.join(key[-1] for key in siblings)}"


def leaves(values: Mapping[str, Any], prefix: str = "", *, sections: bool = False) -> Iterator[tuple[str, Any]]:
    """Yields the key and the value of everything in plain nested values that is no mapping.

    Args:
        values: The values, with a mapping for each section.
        prefix: What stands before each key.
        sections: Whether the mappings are yielded, too, each before what it holds.
    """
    for name, value in values.items():
        if isinstance(value, dict):
            if sections:
                yield prefix + name, value
            yield from leaves(value, f"{prefix}{name}.", sections=sections)
        else:
            yield prefix + name, value
