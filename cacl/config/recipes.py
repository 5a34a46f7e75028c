"""The recipes: configurations that are installed with the package, in cacl/recipes, and found by their names."""

from __future__ import annotations

import difflib
import os
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import takewhile
from pathlib import Path

from cacl.errors import ConfigError

SUFFIX = ".toml"


def names() -> list[str]:
    """Returns the names of all recipes in alphabetical order."""
    return sorted(entry.name.removesuffix(SUFFIX) for entry in _folder().iterdir() if entry.name.endswith(SUFFIX))


def read(name: str) -> str:
    """Returns the text of a recipe, comments included.

    Args:
        name: The name of its file, without `.toml`.

    Raises:
        ConfigError: There is no such recipe.
    """
    if name not in names():
        raise ConfigError(f"{name}: is no recipe; {_way_out(name)}")
    return (_folder() / f"{name}{SUFFIX}").read_text(encoding="utf-8")


def summary(text: str) -> str:
    """Returns the first sentence of the comment with which the text of a recipe begins."""
    lines = takewhile(lambda line: line.startswith("#"), text.splitlines())
    comment = " ".join(line.removeprefix("#").strip() for line in lines)
    return re.split(r"(?<=\.) (?=[A-Z])", comment, maxsplit=1)[0]


def find(name_or_file: str | Path) -> Traversable:
    """Finds what `--config` names.

    A bare name is that of a recipe, even where the working directory has a file of that name. What has a suffix may be
    a file, and what has a slash is one.

    Args:
        name_or_file: The name of a recipe, or the path of a TOML file.

    Returns:
        The file. Only with a slash in its path it may be missing.

    Raises:
        ConfigError: This is neither a recipe nor a file.
    """
    name, path = os.fspath(name_or_file), Path(name_or_file)
    if os.sep in name or (path.suffix and path.exists()):
        return path
    if name in names():
        return _folder() / f"{name}{SUFFIX}"
    hint = f" (./{name} is the file)" if path.is_file() else ""
    raise ConfigError(f"{name}: is neither a recipe nor a file with a suffix{hint}; {_way_out(name)}")


def _folder() -> Traversable:
    return files("cacl") / "recipes"


def _way_out(name: str) -> str:
    near = difflib.get_close_matches(name.removesuffix(SUFFIX), names(), 1)
    return (f"did you mean {near[0]}? " if near else "") + f"there are {', '.join(names())}"
