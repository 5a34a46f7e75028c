"""What holds for all pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page

from cacl.reports.page import write_page


def test_names_that_are_no_utf_8_are_shown_with_backslashes(tmp_path: Path, open_page: Callable[..., Page]) -> None:
    values = {"clips": [], "failures": ["<b>\udce9.mp4"], "frames": 4, "stride": 1, "size": 16, "videos": 0}
    shown = open_page(write_page(tmp_path, "clips.html", title="\udcff", root="here", config="x = 1", **values))
    assert shown.title() == "\\udcff"
    assert "Cannot be loaded: <b>\\udce9.mp4" in shown.inner_text("main")
