"""What holds for all pages."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from cacl.errors import DataError, UsageError
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
