"""The rows of an ablation: which keys of a recipe each of them changes."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cacl import config as configuration
from cacl.config import Config
from cacl.config.loading import leaves
from cacl.errors import ConfigError, UsageError

RECIPE = "recipe"
"""The name of the row that is the recipe itself."""
UNTRAINED_ROW = "untrained"
"""The name of the row of the untrained encoders, which have other weights with each seed."""
NAME = re.compile(r"\w[\w .,+-]*")
"""What the name of a row looks like, since its folder is called after it."""
OWN_KEYS = ("run", "seed", "name")
"""The keys that each run of an ablation has for itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A recipe with some of its keys changed."""

    name: str
    config: Config
    """The changed recipe. Each run has its own `run`, `seed` and `name`."""

    @property
    def folder(self) -> str:
        """The name of the folder that holds its runs."""
        return self.name.replace(" ", "_")


def method_rows(recipe: Config) -> list[Row]:
    """Makes the rows that show what each part of the method is worth.

    These are the contrast of the CNN alone, that of the transformer alone, everything but clips played backwards,
    everything but the order, and the order alone. A part that the recipe does not have has no row, nor has what equals
    the recipe or a row before it.

    Args:
        recipe: The recipe.

    Returns:
        The rows without the recipe itself.
    """
    losses = [name for name, weight in recipe.losses.items() if weight > 0]
    changes: dict[str, dict[str, Any]] = {}
    if "contrast" in losses:
        for encoder in ("cnn", "transformer"):
            changes[f"{encoder} alone"] = {"contrast.pairs": encoder} | _without(losses, "contrast")
        changes["without reversed"] = {"contrast.reversed_weight": 0.0}
    if "order" in losses and len(losses) > 1:
        changes["without order"] = {"losses.order": 0.0}
        changes["order alone"] = _without(losses, "order")
    rows: list[Row] = []
    for name, values in changes.items():
        config = configuration.replace(recipe, values)
        if config not in (recipe, *(row.config for row in rows)):
            rows.append(Row(name=name, config=config))
    return rows


def _without(losses: Sequence[str], kept: str) -> dict[str, float]:
    return {f"losses.{name}": 0.0 for name in losses if name != kept}


def parse_row(text: str, recipe: Config) -> Row:
    """Reads a row that is written as `name: key=value key=value`.

    Args:
        text: The row.
        recipe: The recipe whose keys it changes.

    Returns:
        The row.

    Raises:
        UsageError: It is not written like this, or its name cannot be that of a folder.
        ConfigError: The changed recipe does not hold together.
    """
    name, colon, changes = (part.strip() for part in text.partition(":"))
    wrong = [part for part in changes.split() if "=" not in part]
    if not colon or wrong:
        raise UsageError(
            f'--row "{text}": write it as "name: key=value key=value"; values with blanks in them go into a file for '
            "--rows"
        )
    return _make_row(name, recipe, lambda: configuration.override(recipe, changes.split()))


def read_rows(file: Path, recipe: Config) -> list[Row]:
    """Reads rows from a TOML file that has a table for each of them, with the keys that it changes.

    Args:
        file: The file.
        recipe: The recipe whose keys they change.

    Returns:
        The rows.

    Raises:
        UsageError: The file cannot be read, or the name of a row cannot be that of a folder.
        ConfigError: A changed recipe does not hold together.
    """
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--rows {file}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--rows {file}: is not valid TOML: {error}") from None
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            raise UsageError(f'--rows {file}: {name} is no row; write a table for each, as ["no queue"]')
    return [
        _make_row(name, recipe, lambda table=table: configuration.replace(recipe, dict(leaves(table))))
        for name, table in tables.items()
    ]


def _make_row(name: str, recipe: Config, change: Callable[[], Config]) -> Row:
    if name == UNTRAINED_ROW:
        raise UsageError(f"row {name!r}: is what the table calls the untrained encoders; give it another name")
    if not NAME.fullmatch(name):
        raise UsageError(f"row {name!r}: its folder is called after it; use letters, digits, blanks and .,+-")
    try:
        config = change()
    except ConfigError as error:
        raise ConfigError("\n".join(f"row {name!r}: {line}" for line in str(error).splitlines())) from None
    for key in OWN_KEYS:
        if getattr(config, key) != getattr(recipe, key):
            raise UsageError(f"row {name!r}: each run has its own {key}; leave it out")
    return Row(name=name, config=config)


def with_recipe(rows: Sequence[Row], recipe: Config, reference: str) -> list[Row]:
    """Adds the recipe itself where it is the reference, and checks that all rows can stand beside each other.

    Args:
        rows: The rows.
        recipe: The recipe.
        reference: The name of the row that the others are compared with.

    Returns:
        All rows.

    Raises:
        UsageError: Two rows have one name or one folder, or none is called like the reference.
    """
    if reference == RECIPE and all(row.name != RECIPE for row in rows):
        rows = [*rows, Row(name=RECIPE, config=recipe)]
    names = [row.name for row in rows]
    if reference not in names:
        raise UsageError(f"--reference {reference}: there is no such row; there are {', '.join(names)}")
    folders: dict[str, str] = {}
    for row in rows:
        if row.folder in folders:
            raise UsageError(f"rows {folders[row.folder]!r} and {row.name!r} would share a folder: rename one of them")
        folders[row.folder] = row.name
    return list(rows)
