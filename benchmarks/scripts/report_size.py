"""How large is the page of a retrieval with many queries, and how long does a browser take to open it?

    python benchmarks/scripts/report_size.py VIDEOS --queries 1000 --gallery 3000

The videos of a folder stand, again and again, for as many videos as the page is to have: the size of a preview depends
on what is in it, and real footage is what to measure it with. Features are random, so that queries have hardly a
nearest video in common, and the page has as many previews as it can have. It is written as `cacl eval retrieval
--report` writes it, into `--out` or a folder for temporary files, and opened several times in a new headless Chromium.
A time is from the call that opens the page until the first query card, scrolled to at once, has its pictures decoded.
JSON goes to stdout.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from playwright.sync_api import Browser, sync_playwright

from cacl.benchmarks.harness import machine
from cacl.config import load
from cacl.evaluation.retrieval import Fold, RetrievalTable, _scores
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.scan import scan
from cacl.reports.page import make_report_folder
from cacl.reports.retrieval import write_retrieval_page

PACKAGES = ("cacl", "torch", "numpy", "pillow", "playwright")
FEATURES = ("cnn, trained", "transformer, trained")
WIDTH = 64
FIRST_CARD = """async () => {
  document.querySelector(".query").scrollIntoView();
  while (!document.querySelector(".query img")) await new Promise(requestAnimationFrame);
  const images = [...document.querySelector(".query").querySelectorAll("img")];
  await Promise.all(images.map((image) => image.decode()));
  await new Promise(requestAnimationFrame);
  return images.length;
}"""
"""Waits until the first card has its pictures, and returns their number."""


def random_table(catalog: Catalog, queries: int, classes: int) -> RetrievalTable:
    """Retrieves by random features: the first videos of the catalog query the others."""
    rng, count = np.random.default_rng(0), len(catalog.videos)
    labels = [f"class {number:03}" for number in rng.integers(classes, size=count)]
    arrays = {name: rng.standard_normal((count, WIDTH), np.float32) for name in FEATURES}
    fold = Fold(list(range(queries)), list(range(queries, count)))
    return RetrievalTable(
        label="label",
        num_classes=classes,
        query_split="test",
        groups=None,
        gallery=None,
        num_folds=1,
        num_gallery=count - queries,
        scores=_scores(labels, arrays, [fold], 0, torch.device("cpu")),
        catalog=catalog,
        labels=labels,
        queries=fold.queries,
    )


def open_page(browser: Browser, file: Path) -> tuple[float, int]:
    """Opens a page in a context of its own. Returns the seconds until the first card, and the number of cards."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    start = time.perf_counter()
    page.goto(file.as_uri())
    page.evaluate(FIRST_CARD)
    seconds = time.perf_counter() - start
    cards = page.locator(".query").count()
    context.close()
    return seconds, cards


def main() -> None:
    """Writes a page, opens it, and prints what it took."""
    parser = argparse.ArgumentParser(description="Measures the page of a retrieval.")
    parser.add_argument("videos", help="folder of real videos")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--gallery", type=int, default=3000)
    parser.add_argument("--classes", type=int, default=101)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, help="folder that keeps the page")
    options = parser.parse_args()
    config = load(overrides=[f"data.root={options.videos}"])
    footage = scan(config.data)
    found = footage.videos
    wanted = options.queries + options.gallery
    catalog = replace(footage, videos=tuple(found[number % len(found)] for number in range(wanted)))
    table = random_table(catalog, options.queries, options.classes)
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        start = time.perf_counter()
        file = write_retrieval_page(make_report_folder(options.out or Path(temporary)), [table], config)
        written = time.perf_counter() - start
        times, cards, version = [], 0, ""
        for _ in range(options.repeats):
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium-headless-shell"), args=["--no-sandbox", "--disable-gpu"]
            )
            seconds, cards = open_page(browser, file)
            times.append(seconds)
            version = browser.version
            browser.close()
        result = {
            "machine": machine.describe(PACKAGES),
            "chromium": version,
            "queries": options.queries,
            "cards": cards,
            "gallery": options.gallery,
            "bytes": file.stat().st_size,
            "seconds_to_write": round(written, 1),
            "seconds_to_first_card": {
                "median": round(statistics.median(times), 2),
                "all": [round(seconds, 2) for seconds in times],
            },
        }
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
