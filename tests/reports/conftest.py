"""A real browser that shows the pages, and a small run with results to show."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from cacl.cli import main
from cacl.training.trainer import train
from tests.reports.accessibility import accessibility_problems
from tests.reports.results import LABELS, TEST, Evaluate
from tests.tiny import tiny_config

PATIENCE = 240_000
"""The milliseconds that the browser may take for anything. By default it has 30 seconds, which may not do where much
else runs."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The shell of Debian's Chromium. Without it the test is skipped, or fails if CACL_REQUIRE_BROWSER=1 promised one.

    It has none of the services that a whole browser keeps busy. As it takes itself to be more urgent than any other
    process, it is closed after the tests of a file, and does not stay open beside those that show no page.
    """
    executable = shutil.which("chromium-headless-shell")
    if executable is None:
        if os.environ.get("CACL_REQUIRE_BROWSER") == "1":
            pytest.fail("CACL_REQUIRE_BROWSER=1, but there is no chromium-headless-shell; `make browser` installs it")
        pytest.skip("there is no chromium-headless-shell (`make browser` installs it)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-gpu"], timeout=PATIENCE
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """`open_page(file, color_scheme="dark")` shows a page. At the end of the test none may have had anything to say on
    the console, asked for anything beside its own file, be wider than the window, or lack what the keyboard and screen
    readers need."""
    contexts, complaints, requests, pages = [], [], [], []

    def show(file: Path, *, width: int = 1200, height: int = 900, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        pages.append(page)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        return page

    yield show
    missing = [problem for page in pages for problem in accessibility_problems(page)]
    too_wide = [page.evaluate("document.documentElement.scrollWidth > innerWidth") for page in pages]
    for context in contexts:
        context.close()
    assert complaints == []
    assert missing == []
    assert not [url for url in requests if not url.startswith(("file:", "data:", "blob:"))]
    assert not any(too_wide)


@pytest.fixture(scope="session")
def footage(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of 8 to 19 frames with the names and labels of tests/reports/results.py."""
    root, rows = tmp_path_factory.mktemp("footage"), []
    for number, (name, label) in enumerate(LABELS["label"].items()):
        make_video(root / name, frames=8 + number, size=(32, 24), gop=4, first=7 * number)
        rows.append([name, label, LABELS["colour"][name], "test" if name in TEST else "train"])
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "colour", "split"], *rows])
    return root


@pytest.fixture(scope="session")
def trained_run(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was trained for an epoch."""
    folder = tmp_path_factory.mktemp("report")
    data = {"root": str(footage), "cache": str(folder / "cache")}
    layers = {"data": data, "retrieval": {"clips_per_video": 2}, "train": {"epochs": 1, "batch_size": 4}}
    train(tiny_config(folder / "run", layers))
    return folder / "run"


@pytest.fixture(scope="session")
def evaluate() -> Evaluate:
    """`evaluate("retrieval", run, "--report", folder)` calls `cacl eval` with `--json`, and returns what it printed."""

    def call(*arguments: object) -> Any:
        out = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
            patch.setattr("sys.argv", ["cacl", "eval", *map(str, arguments), "--json"])
            with pytest.raises(SystemExit) as ended:
                main()
        assert not ended.value.code
        return json.loads(out.getvalue())

    return call
