"""What holds for all pages."""

from __future__ import annotations

import re
import resource
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from cacl.errors import DataError, UsageError
from cacl.reports.figures import SERIES
from cacl.reports.page import make_report_folder, write_page


def test_names_that_are_no_utf_8_are_shown_with_backslashes(tmp_path: Path, open_page: Callable[..., Page]) -> None:
    shown = open_page(write_empty_page(tmp_path, title="\udcff", failures=["<b>\udce9.mp4"]))
    assert shown.title() == "\\udcff"
    assert "Cannot be loaded: <b>\\udce9.mp4" in shown.inner_text("main")


def test_a_page_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    """The limit of the size of files stands for a full disk."""
    before = write_empty_page(tmp_path, title="before").read_text()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(DataError, match=r"/index\.html: cannot be written \(File too large\)"):
            write_empty_page(tmp_path, title="after")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.read_text() for file in tmp_path.iterdir()] == [before]


def test_a_folder_that_takes_no_files_is_refused_at_once(tmp_path: Path) -> None:
    make_report_folder(tmp_path / "new/folder")
    make_report_folder(tmp_path / "new/folder")
    assert [*(tmp_path / "new/folder").iterdir()] == []
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"--out .*/file: no such folder can be made \(File exists\)"):
        make_report_folder(tmp_path / "file", "--out")
    if Path("/proc/self").exists():  # Nobody, not even root, makes files there.
        with pytest.raises(UsageError, match="--report /proc: cannot be written into"):
            make_report_folder(Path("/proc"))


def write_empty_page(folder: Path, **values: Any) -> Path:
    """Writes a page of no clips."""
    empty = {"clips": [], "failures": [], "frames": 4, "stride": 1, "size": 16, "videos": 0, "root": "", "config": ""}
    return write_page(folder, "clips.html", **empty | values)


@pytest.mark.parametrize("form", ["light", "dark"])
def test_text_can_be_told_from_its_background(form: str) -> None:
    """By the contrast ratios that WCAG 2.2 asks for, 4.5 for text (1.4.3) and 3 for curves (1.4.11)."""
    css = (files("cacl.reports") / "templates/page.css").read_text()
    light, dark = (dict(re.findall(r"--([\w-]+): #(\w{6})", part)) for part in css.split("prefers-color-scheme: dark"))
    colors = light if form == "light" else light | dark
    for name in ("ink", "faint", "link", "right", "wrong"):
        assert all(contrast(colors[name], colors[behind]) >= 4.5 for behind in ("paper", "panel")), name
    for number in range(len(SERIES)):
        assert all(contrast(colors[f"series-{number}"], colors[behind]) >= 3 for behind in ("paper", "panel")), number


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours by the definition of WCAG 2.2."""

    def luminance(color: str) -> float:
        shares = [int(color[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)
