"""What the tests of the configuration share: its keys, and what is said of wrong ones."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from cacl.config import Config, load
from cacl.errors import ConfigError
from tests.config_keys import config_keys, value_at
from tests.launch import ROOT

RECIPES = sorted((ROOT / "cacl/recipes").glob("*.toml"))


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


DEFAULTS = {key: value_at(Config(), key) for key in config_keys(Config())}
FLOATS = [key for key, value in DEFAULTS.items() if isinstance(value, float)]


def problems(*overrides: str) -> list[str]:
    """The lines of the error that these overrides of the defaults give."""
    with pytest.raises(ConfigError) as caught:
        load(None, overrides)
    return str(caught.value).splitlines()


def problem(*overrides: str) -> str:
    (line,) = problems(*overrides)
    return line
