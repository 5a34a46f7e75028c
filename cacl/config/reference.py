"""What every key of the configuration takes, stands at, and means, told from the schema and its docstrings."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from cacl.config import data_schema, schema
from cacl.config.loading import way_out
from cacl.errors import ConfigError

TYPE_NAMES = {"string": "string", "boolean": "true or false", "integer": "whole number", "number": "number"}
MODULES = (data_schema, schema)
"""The modules that the classes of the sections stand in."""
LARGEST = {2**63: "2^63"}
"""Bounds that are better read in another form."""


@dataclass(frozen=True)
class Key:
    """A key of the configuration."""

    name: str
    """The full name, such as `clip.frames`."""
    type: str
    """What values it takes, in words. Values are written as in TOML."""
    choices: tuple[str, ...]
    """The values that it takes, where they are few."""
    default: Any
    """The value that it has where nothing sets it."""
    meaning: str
    """What it decides."""

    def default_as_toml(self) -> str:
        """Returns the default as it is written in a file."""
        if isinstance(self.default, dict):
            return f"{{{', '.join(f'{key} = {json.dumps(value)}' for key, value in self.default.items())}}}"
        return json.dumps(self.default)  # Strings, numbers, booleans and lists of them look the same in TOML.


@dataclass(frozen=True)
class Section:
    """A section of the configuration with its own keys; those of sections in it are another's."""

    name: str
    """The full name, such as `model.transformer`. The keys that stand before all sections have an empty one."""
    meaning: str
    keys: tuple[Key, ...]
    is_list: bool = False
    """Whether it may be there several times, as an entry of a list: `data.roots`."""

    @property
    def heading(self) -> str:
        """The name in brackets, as a file has it before the keys."""
        return f"[[{self.name}]]" if self.is_list else f"[{self.name}]"


def sections(part: str = "") -> list[Section]:
    """Returns all sections in their order, or a part of them.

    Args:
        part: A section, which brings the sections in it along, or a key, which comes alone in its section.

    Raises:
        ConfigError: There is no such section or key.
    """
    found = list(_sections())
    if not part:
        return found
    chosen = [section for section in found if f"{section.name}.".startswith(f"{part}.")]
    if chosen:
        return chosen
    for section in found:
        keys = tuple(key for key in section.keys if key.name == part)
        if keys:
            return [replace(section, keys=keys)]
    raise ConfigError(f"{part}: no such key; {way_out(part.split('.'))}")


def _sections() -> Iterator[Section]:
    described = TypeAdapter(schema.Config).json_schema()
    yield from _walk("", described, schema.Config(), described["$defs"])


def _walk(
    name: str, described: Mapping[str, Any], values: Any, definitions: Mapping[str, Any], *, is_list: bool = False
) -> Iterator[Section]:
    """Yields a section, and then the sections in it.

    Args:
        name: The full name of the section.
        described: Its JSON schema.
        values: The section with its defaults.
        definitions: The JSON schemas of all sections by the names of their classes.
        is_list: Whether the section is an entry of a list.
    """
    prefix = f"{name}." if name else ""
    meanings = _meanings()[type(values).__name__]
    inner = {key: value["$ref"].rpartition("/")[2] for key, value in described["properties"].items() if "$ref" in value}
    keys = tuple(
        Key(prefix + key, _type(value), tuple(value.get("enum", ())), getattr(values, key), meanings[key])
        for key, value in described["properties"].items()
        if key not in inner
    )
    yield Section(name, inspect.cleandoc(type(values).__doc__ or ""), keys, is_list)
    for key, kind in inner.items():
        yield from _walk(prefix + key, definitions[kind], getattr(values, key), definitions)
    for key, value in described["properties"].items():
        if kind := _entry_kind(value):
            yield from _walk(prefix + key, definitions[kind], _defaults(kind), definitions, is_list=True)


def _defaults(kind: str) -> Any:
    """Returns a section with its defaults by the name of its class."""
    return next(getattr(module, kind)() for module in MODULES if hasattr(module, kind))


def _entry_kind(described: Mapping[str, Any]) -> str:
    """Returns the class of the entries where a JSON schema is that of a list of sections, or an empty string."""
    return described.get("items", {}).get("$ref", "").rpartition("/")[2]


def _type(described: Mapping[str, Any]) -> str:
    """Returns in words what a JSON schema allows."""
    if described.get("enum") == []:
        return "names that `--import` brings"
    if _entry_kind(described):
        return "a list of sections"
    if "enum" in described:
        return _joined([json.dumps(choice) for choice in described["enum"]])
    if described["type"] == "array" and "prefixItems" in described:
        (part,) = {_type(part) for part in described["prefixItems"]}
        return f"[a, b], each a {part}"
    if described["type"] == "array":
        return f"a list of {_type(described['items'])}"
    if described["type"] == "object":
        return f"a table of {_type(described['propertyNames'])}, each a {_type(described['additionalProperties'])}"
    bounds = {
        word: LARGEST.get(described[name], f"{described[name]:g}")
        for name, word in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "above"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "below"),
        )
        if name in described
    }
    return ", ".join([TYPE_NAMES[described["type"]], *(f"{word} {bound}" for word, bound in bounds.items())])


def _joined(words: Sequence[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


@cache
def _meanings() -> dict[str, dict[str, str]]:
    """Returns the docstring of each field by class and field, on one line. Python drops them, so the source is read."""
    found: dict[str, dict[str, str]] = {}
    for section in [part for module in MODULES for part in ast.parse(inspect.getsource(module)).body]:
        if isinstance(section, ast.ClassDef):
            fields = found[section.name] = {}
            for field, after in zip(section.body, section.body[1:], strict=False):
                match field, after:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                        fields[name] = " ".join(text.split())
    return found
