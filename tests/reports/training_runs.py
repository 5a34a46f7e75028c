"""Folders of runs with scalars that are made up, and what a page says of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from cacl import config as configuration
from tests.tiny import tiny_config


def made_up_run(run: Path, lines: Iterable[Mapping[str, float | None]], **sections: dict[str, Any]) -> Path:
    """Writes the files of a run folder that a page is made of."""
    run.mkdir()
    (run / "config.toml").write_text(configuration.to_toml(tiny_config(run, sections)))
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def logged(run: Path) -> list[dict[str, float | None]]:
    """Reads the scalars of a run as JSON has them."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def values_in(page: Page) -> dict[str, list[str]]:
    """Returns the rows of the table of a page by their names."""
    rows = page.locator("tbody tr").all_inner_texts()
    return {name: values for name, *values in (row.split("\t") for row in rows)}


def levenshtein(order: Sequence[int]) -> int:
    """Returns the edit distance of an order to the true one."""
    row = list(range(len(order) + 1))
    for i, value in enumerate(order, 1):
        before, row[0] = row[0], i
        for j in range(1, len(order) + 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (value != j - 1))
    return row[-1]
