"""The videos of the run whose results are shown, as the fixtures `footage` and `trained_run` make them."""

from collections.abc import Callable
from typing import Any

Evaluate = Callable[..., Any]
"""Calls `cacl eval ... --json`, and returns what it printed; `evaluate` is the fixture of this kind."""

HTML = ["run/<b>&amp;.mp4", "walk/'\"</script><script>alert(1)</script>.mp4"]
"""Paths that are not what they look like."""
_NAMES = [f"{label}/{number}.mp4" for label in ("run", "walk") for number in range(5)]
_NAMES += HTML
LABELS = {
    "label": {name: name.partition("/")[0] for name in _NAMES},
    "colour": {name: ("red", "blue")[number % 2] for number, name in enumerate(_NAMES)},
}
"""The labels of the videos by their path."""
TEST = ("run/4.mp4", "walk/4.mp4", *HTML)
"""The paths of the test videos."""
