"""How work that takes long tells its progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

ProgressCallback: TypeAlias = Callable[[int, int, str], None]
"""A function that is called after each piece of work, in the thread that started it: with the number of pieces that are
done, the number of all pieces, and the path of the file that this piece was about."""
