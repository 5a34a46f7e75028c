"""A real browser that shows the pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium. Without it the test is skipped, or fails if CACL_REQUIRE_BROWSER=1 promised one."""
    executable = shutil.which("chromium")
    if executable is None:
        if os.environ.get("CACL_REQUIRE_BROWSER") == "1":
            pytest.fail("CACL_REQUIRE_BROWSER=1, but there is no chromium; `make browser` installs it")
        pytest.skip("there is no chromium (`make browser` installs it)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """`open_page(file, color_scheme="dark")` shows a page. At the end of the test none may have had anything to say on
    the console, asked for anything beside its own file, or be wider than the window."""
    contexts, complaints, requests, pages = [], [], [], []

    def show(file: Path, *, width: int = 1200, height: int = 900, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        pages.append(page)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        return page

    yield show
    too_wide = [page.evaluate("document.documentElement.scrollWidth > innerWidth") for page in pages]
    for context in contexts:
        context.close()
    assert complaints == []
    assert not [url for url in requests if not url.startswith(("file:", "data:", "blob:"))]
    assert not any(too_wide)
