"""The texts that matplotlib draws, and where: each has to stay in the picture, and none upon another."""

from __future__ import annotations

from collections.abc import Collection
from itertools import combinations
from typing import NamedTuple

import pytest
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.text import Text


class DrawnText(NamedTuple):
    """A text, and its box in pixels."""

    text: str
    left: float
    bottom: float
    right: float
    top: float


def observe_texts(monkeypatch: pytest.MonkeyPatch) -> Collection[DrawnText]:
    """Returns what the texts of the PNG that is drawn next are entered in, each once, however often it is drawn."""
    texts: dict[Text, DrawnText] = {}
    draw = Text.draw

    def observed(text: Text, renderer: RendererBase) -> None:
        draw(text, renderer)
        if isinstance(renderer, RendererAgg) and text.get_visible() and text.get_text():
            box = Text.get_window_extent(text, renderer)
            texts[text] = DrawnText(text.get_text(), box.x0, box.y0, box.x1, box.y1)

    monkeypatch.setattr(Text, "draw", observed)
    return texts.values()


def assert_in_the_picture_and_apart(texts: Collection[DrawnText], width: int, height: int) -> None:
    """Compares all texts of a picture of so many pixels."""
    assert texts
    for text in texts:
        assert 0 <= text.left <= text.right <= width, text
        assert 0 <= text.bottom <= text.top <= height, text
    for one, other in combinations(texts, 2):
        beside = one.right <= other.left or other.right <= one.left
        above = one.top <= other.bottom or other.top <= one.bottom
        assert beside or above, f"{one} on {other}"
