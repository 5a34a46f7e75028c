"""What makes a section of the configuration of a class."""

from __future__ import annotations

import dataclasses
from typing import TypeVar, dataclass_transform

from pydantic import ConfigDict

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def section(cls: type[T]) -> type[T]:
    """Makes a frozen dataclass of a class, whose fields are the keys of a section, and which knows no others."""
    # By default pydantic ignores unknown keys.
    cls.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]
    return dataclasses.dataclass(frozen=True, slots=True, kw_only=True)(cls)
