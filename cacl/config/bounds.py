"""Numbers in the configuration, by their bounds.

Values are strict, since TOML tells numbers from strings and booleans and nothing needs to be guessed.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Positive = Annotated[int, Field(ge=1, strict=True)]
Count = Annotated[int, Field(ge=0, lt=2**63, strict=True)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
NonNegative = Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)]
AboveZero = Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]
