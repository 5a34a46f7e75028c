"""Names of figures, and letters that fonts lack."""

from __future__ import annotations

import warnings
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from cacl.reports import figures
from cacl.reports.confusion import confusion_figure
from cacl.reports.curves import draw_curves
from cacl.reports.figures import figure_names
from tests.tiny import tiny_config

NAMES = ["中文", "عربي", "$\\frac{1", "<b>&amp;</svg>", "--><script>", "a\nb", "\udcff\udcfe", "x" * 300, "", "🎉"]


def test_each_figure_has_a_file_of_its_own() -> None:
    names = figure_names(["a-b", "a b", "A_B", "loss", "x" * 300, "x" * 299, "中文", "!?", "a b 2"])
    assert names == ["a_b", "a_b_2", "A_B_3", "loss", "x" * 50, "x" * 50 + "_2", "中文", "figure", "a_b_2_2"]


@pytest.mark.parametrize("count", [1, len(NAMES)])
def test_classes_may_have_any_names(tmp_path: Path, count: int) -> None:
    """Neither a warning nor an error comes of them, and the file is XML that shows no element of a name."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = confusion_figure(tmp_path, "any", np.eye(count, dtype=np.int64), NAMES[:count], "true", "guessed")
    shown = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(svg).iter()}
    assert shown <= {"svg", "metadata", "defs", "style", "g", "path", "use", "clipPath", "rect", *RDF}
    ElementTree.parse(tmp_path / "any.svg")
    assert (tmp_path / "any.png").read_bytes().startswith(b"\x89PNG")


def test_letters_come_from_the_first_font_that_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Matplotlib brings the last one, too, which has a "ᶎ" that the first one lacks."""
    monkeypatch.setattr(figures, "FONTS", ("DejaVu Sans", "no such font", "STIXGeneral"))
    svg = confusion_figure(tmp_path, "letters", np.eye(1, dtype=np.int64), ["A\u1d8e"], "true", "guessed")
    assert "letters-DejaVuSans-" in svg
    assert "letters-STIXGeneral-" in svg


def test_scalars_may_have_any_names(tmp_path: Path) -> None:
    line = {"step": 1.0} | {f"{name.encode('utf-8', 'replace').decode()}/{name}": 1.0 for name in NAMES[:5]}
    drawn = draw_curves([line | {"a.b/x": 1.0, "a-b/x": 1.0}], tiny_config(tmp_path), tmp_path)
    assert len(drawn) == 7
    assert len({*tmp_path.iterdir()}) == 14


RDF = ("RDF", "Work", "type", "format", "creator", "title", "Agent")
"""What describes the file, not the picture."""
