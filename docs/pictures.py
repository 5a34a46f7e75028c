"""Draws the pictures of reports in README and docs: `python docs/pictures.py`, with the shell of Debian's Chromium.

It trains the demonstration, writes a report of each kind into build/reports, and photographs these pages in a headless
browser. docs/retrieval.webp moves: it has one picture for each frame of the previews. docs/gallery holds small reports.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from cacl.reports.previews import FRAMES

ROOT = Path(__file__).parents[1]
SHELL = "chromium-headless-shell"
PICTURES, PAGES, REPORTS = ROOT / "docs/pictures", ROOT / "docs/gallery", ROOT / "build/reports"
VIDEOS, FEW_VIDEOS, RUN, INDEX = (REPORTS / name for name in ("videos", "few_videos", "run", "index"))
QUERY = VIDEOS / "videos/clockwise_bricks_16.mp4"
COMMANDS = {
    "synth": f"data synth {VIDEOS} --train 16 --test 4",
    "clips": f"data look {VIDEOS} --config demo --out {REPORTS}/clips",
    "training": f"train {VIDEOS} --config demo --run {RUN} --resume --report {REPORTS}/training",
    "retrieval": f"eval retrieval {RUN} --label motion --label appearance --report {REPORTS}/retrieval",
    "recognition": f"eval recognition {RUN} --label appearance --classifier linear --report {REPORTS}/recognition",
    "embed": f"embed {RUN} {VIDEOS} --out {INDEX}",
    "few": f"data synth {FEW_VIDEOS} --train 1 --test 1 --seed 5",
    "few_queries": f"eval retrieval {RUN} --label motion --label appearance --set data.root={FEW_VIDEOS}/some.csv"
    f" --report {REPORTS}/few_queries",
    "search": f"search {INDEX} {QUERY} --report {REPORTS}/search",
}
"""The commands of `cacl`, in their order, by the name of the report that each of them writes, where it does."""
REPORT_NAMES = ("clips", "training", "retrieval", "recognition", "search")
"""The reports that are photographed."""
GALLERY = {
    "retrieval": "few_queries",
    "recognition": "recognition",
    "training": "training",
    "clips": "clips",
    "search": "search",
}
"""The reports whose pages are small enough for this repository, by their names there."""
FORMS = {
    "desktop": {"viewport": {"width": 1100, "height": 900}},
    "dark": {"viewport": {"width": 1100, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 900}},
}
"""The options of the browser by form of a page."""
SHOWN_QUERIES = 3
"""The queries of the moving picture."""
LOADING_MILLISECONDS = 500
"""How long what the scripts of a page draw is waited for."""
FRAME_MILLISECONDS = 160
"""How long each picture of the moving one stays."""


def main() -> None:
    """Writes the reports, and draws all pictures of them."""
    for name, arguments in COMMANDS.items():
        subprocess.run([sys.executable, "-m", "cacl.cli", *arguments.split()], cwd=ROOT, check=True)
        if name == "few":
            list_some(FEW_VIDEOS)
    draw()


def list_some(videos: Path) -> None:
    """Lists the videos of three of the six textures, so that their page is small enough for this repository."""
    header, *rows = (videos / "labels.csv").read_text().splitlines(keepends=True)
    kept = [row for row in rows if any(texture in row for texture in ("bricks", "checkerboard", "waves"))]
    (videos / "some.csv").write_text("".join([header, *kept]))


def draw() -> None:
    """Draws all pictures of the reports that are there. Where this repository lies is not shown."""
    for name in {*REPORT_NAMES, *GALLERY.values()}:
        file = REPORTS / name / "index.html"
        file.write_text(file.read_text(encoding="utf-8").replace(f"{ROOT}/", ""), encoding="utf-8")
    for folder in (PICTURES, PAGES):
        folder.mkdir(exist_ok=True)
    for name, report in GALLERY.items():
        shutil.copy(REPORTS / report / "index.html", PAGES / f"{name}.html")
    with sync_playwright() as playwright:
        executable = shutil.which(SHELL) or sys.exit(f"there is no {SHELL}: `make browser` installs it")
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        for name in REPORT_NAMES:
            for form in FORMS:
                with opened(browser, name, form) as page:
                    show_frame(page, 0)
                    save(Image.open(io.BytesIO(page.screenshot())), PICTURES / f"{name}_{form}.webp")
        draw_moving_picture(browser)
        browser.close()


@contextmanager
def opened(browser: Browser, report: str, form: str) -> Iterator[Page]:
    """Yields the page of a report."""
    context = browser.new_context(**FORMS[form])
    try:
        page = context.new_page()
        page.goto((REPORTS / report / "index.html").as_uri())
        page.wait_for_timeout(LOADING_MILLISECONDS)
        yield page
    finally:
        context.close()


def show_frame(page: Page, number: int) -> None:
    """Lets all previews stand still at one of their frames."""
    page.evaluate(
        """number => document.querySelectorAll(".strip img").forEach(image => {
            image.style.animation = "none";
            image.style.transform = `translateX(-${100 / 8 * number}%)`;
        })""",
        number,
    )


def save(picture: Image.Image, file: Path, **options: Any) -> None:
    """Writes a WebP file."""
    picture.save(file, "WEBP", quality=75, method=6, **options)
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1000:.0f} kB")


def draw_moving_picture(browser: Browser) -> None:
    """Draws docs/retrieval.webp: the queries in the middle between the worst and the best, as they move."""
    with opened(browser, "retrieval", "desktop") as page:
        page.evaluate(
            """count => {
                const cards = [...document.querySelectorAll("#queries > .query")];
                const first = Math.floor((cards.length - count) / 2);
                document.querySelector("#queries").replaceChildren(...cards.slice(first, first + count));
            }""",
            SHOWN_QUERIES,
        )
        queries = page.locator("#queries")
        queries.scroll_into_view_if_needed()
        page.wait_for_timeout(LOADING_MILLISECONDS)
        pictures = []
        for number in range(FRAMES):
            show_frame(page, number)
            pictures.append(Image.open(io.BytesIO(queries.screenshot())).convert("RGB"))
    file = ROOT / "docs/retrieval.webp"
    save(pictures[0], file, save_all=True, append_images=pictures[1:], duration=FRAME_MILLISECONDS, loop=0)


if __name__ == "__main__":
    main()
