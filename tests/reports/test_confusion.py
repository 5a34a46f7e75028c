"""Pictures of confusions, of few classes and of many."""

import re
from pathlib import Path

import numpy as np
import pytest

from cacl.reports.confusion import LISTED, MOST_NAMES, confusion_figure, frequent_confusions

ROWS, COLUMNS = "true class", "guessed class"


def random_counts(classes: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    counts = np.zeros((classes, classes), np.int64)
    rows = rng.integers(classes, size=10 * classes)
    np.add.at(counts, (rows, np.where(rng.random(rows.shape) < 0.6, rows, rng.integers(classes, size=rows.shape))), 1)
    return counts


def test_the_most_frequent_confusions_come_first() -> None:
    counts = np.array([[5, 2, 0], [2, 0, 0], [3, 0, 9]])
    found = [(case.true_class, case.other, case.videos, case.share) for case in frequent_confusions(counts, "abc")]
    assert found == [("c", "a", 3, 3 / 12), ("b", "a", 2, 1.0), ("a", "b", 2, 2 / 7)]
    assert len(frequent_confusions(random_counts(30), [f"c{n}" for n in range(30)])) == LISTED


@pytest.mark.parametrize("classes", [3, 40, 101, 400])
def test_every_cell_that_has_videos_is_filled(tmp_path: Path, classes: int) -> None:
    """One corner of each cell is the beginning of a part of a path; the file stays small."""
    counts = random_counts(classes)
    svg = confusion_figure(tmp_path, "confusion", counts, [f"class {n}" for n in range(classes)], ROWS, COLUMNS)
    patches = re.findall(r'<g id="confusion-patch_(\d+)">\s*<path d="([^"]*)"([^>]*)', svg)
    cells = sum(path.count("M") for _, path, style in patches if "--series-" in style)
    assert cells == np.count_nonzero(counts)
    assert len(svg) < 600_000
    assert (f"{classes - 1} -->" in svg) == (classes <= MOST_NAMES)  # matplotlib writes texts in comments
    assert {file.suffix for file in tmp_path.iterdir()} == {".png", ".svg"}


def test_names_are_no_formulas_and_may_be_long(tmp_path: Path) -> None:
    names = ["$x$", "a name that is longer than what fits beside the picture"]
    svg = confusion_figure(tmp_path, "confusion", np.eye(2, dtype=np.int64), names, ROWS, COLUMNS)
    assert "<!-- $x$ -->" in svg
    assert "<!-- a name that is longer t… -->" in svg


def test_colours_are_those_of_the_page(tmp_path: Path) -> None:
    svg = confusion_figure(tmp_path, "confusion", random_counts(101), [f"c{n}" for n in range(101)], ROWS, COLUMNS)
    assert not re.findall(r"#(?:1f7a8c|c8641b|1d2733)", svg)
    assert {"--series-0", "--series-1", "--ink"} <= set(re.findall(r"var\((--[\w-]+)\)", svg))
