"""Values of the configuration that are names in a registry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from cacl.registry import Registry

CHECK_NAMES = "check_names"
"""The key in the context of a validation that says whether names have to be there."""


@dataclass(frozen=True, init=False)
class NameOf:
    """Marks a string as a name that a registry knows at the time of the check, or as one of a few words besides.

        layout: Annotated[str, NameOf(LAYOUTS, "auto")] = "auto"

    Args:
        registry: The registry.
        *words: The words that have a meaning of their own.
    """

    registry: Registry
    words: tuple[str, ...]

    def __init__(self, registry: Registry, *words: str) -> None:
        object.__setattr__(self, "registry", registry)
        object.__setattr__(self, "words", words)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "enum": [*self.words, *self.registry.names()]}

    def _check(self, name: str, info: ValidationInfo) -> str:
        if info.context and not info.context[CHECK_NAMES]:
            return name
        if problem := self.registry.problem(name, self.words):
            raise PydanticCustomError("unknown_name", "{problem}", {"problem": problem})
        return name
