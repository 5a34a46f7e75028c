"""The page of a retrieval in a browser, against what `--json` tells and what the evaluation returned."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Page

from cacl.config import Config, load
from cacl.evaluation import retrieval as evaluation
from cacl.evaluation.retrieval import Fold, RetrievalTable
from cacl.loaders.catalog.scan import scan
from cacl.reports import retrieval
from cacl.reports.retrieval import write_retrieval_page
from tests.reports.results import LABELS, Evaluate

FEATURES = ("cnn, trained", "transformer, trained")


@pytest.fixture(scope="module")
def written(evaluate: Evaluate, trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The page of a real run by two labellings, and the tables that its command printed."""
    folder = tmp_path_factory.mktemp("retrieval")
    tables = evaluate("retrieval", trained_run, "--label", "label", "--label", "colour", "--report", folder)
    return folder / "index.html", tables


@pytest.fixture
def page(written: tuple[Path, Any], open_page: Callable[..., Page]) -> Page:
    return open_page(written[0])


def test_numbers_are_those_of_json(written: tuple[Path, Any], page: Page) -> None:
    tables = page.locator("table:not(.words)")
    assert tables.count() == 2
    for number, table in enumerate(written[1]):
        rows = tables.nth(number).locator("tbody tr")
        assert rows.count() == len(table["recall"])
        for row in rows.all():
            name, *cells = row.locator("th, td").all_inner_texts()
            recall = [f"{100 * value:.1f}" for value in table["recall"][name].values()]
            precision = f"{100 * table['mean_average_precision'][name]:.1f}"
            assert [cells[0], *cells[2:6], cells[6]] == [*recall, precision]


def test_cards_are_sorted_and_marked_by_labels(written: tuple[Path, Any], page: Page) -> None:
    """Recall at 1 and the mean average precision come out of the cards, too."""
    for number, (label, feature) in enumerate(
        (label, feature) for label in ("label", "colour") for feature in FEATURES
    ):
        page.get_by_label("Feature and labels").select_option(str(number))
        cards = all_cards(page)
        assert len(cards) == 4
        precisions = [card["precision"] for card in cards]
        assert precisions == sorted(precisions)
        (table,) = (table for table in written[1] if table["label"] == label)
        assert np.mean(precisions) == pytest.approx(100 * table["mean_average_precision"][feature], abs=0.05)
        right = [card["outcome"] == "right" for card in cards]
        assert np.mean(right) == pytest.approx(table["recall"][feature]["R@1"])
        for card in cards:
            own = LABELS[label][card["path"]]
            assert card["label"] == own
            assert len(card["neighbors"]) == 5
            similarities = [float(neighbor["similarity"]) for neighbor in card["neighbors"]]
            assert similarities == sorted(similarities, reverse=True)
            for neighbor in card["neighbors"]:
                assert neighbor["label"] == LABELS[label][neighbor["path"]]
                assert neighbor["result"] == ("right" if neighbor["label"] == own else "wrong")
            assert card["outcome"] == card["neighbors"][0]["result"]


def test_filters_work_by_keyboard_and_say_how_many(page: Page) -> None:
    status = page.get_by_role("status")
    assert status.inner_text() == "4 of 4 queries"
    page.get_by_label("Label", exact=True).focus()
    page.keyboard.press("ArrowDown")  # the first of the labels, behind "all"
    assert status.inner_text() == "2 of 4 queries"
    assert {card["label"] for card in all_cards(page)} == {"run"}
    page.get_by_label("Label", exact=True).select_option("")
    counts = {}
    for outcome in ("right", "wrong"):
        page.get_by_label("Nearest video", exact=True).select_option(outcome)
        found = all_cards(page)
        assert {card["outcome"] for card in found} <= {outcome}
        counts[outcome] = len(found)
    assert sum(counts.values()) == 4


def test_every_control_is_reached_by_keyboard(page: Page) -> None:
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"panel", "class", "outcome", "motion"} <= reached


def test_another_labelling_shows_its_own_confusion(page: Page) -> None:
    assert page.locator(".panel:visible h3").all_inner_texts() == ["Confusion of cnn, trained, by label"]
    page.get_by_label("Feature and labels").select_option("3")
    assert page.locator(".panel:visible h3").all_inner_texts() == ["Confusion of transformer, trained, by colour"]
    names = page.get_by_label("Label", exact=True).locator("option").all_inner_texts()
    assert names == ["all", "blue (2)", "red (2)"]


def test_all_queries_are_printed(page: Page) -> None:
    """Cards far below the window have pictures, too."""
    page.set_viewport_size({"width": 1200, "height": 100})
    assert page.locator(".query").count() > page.locator(".query:has(li)").count()
    page.pdf()
    page.emulate_media(media="print")
    assert page.locator(".query").last.evaluate("card => getComputedStyle(card).contentVisibility") == "visible"
    assert page.locator(".query").count() == page.locator(".query:has(li)").count() == 4


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_it_fits_a_phone(written: tuple[Path, Any], open_page: Callable[..., Page], color_scheme: str) -> None:
    shown = open_page(written[0], width=360, height=700, color_scheme=color_scheme)
    assert len(all_cards(shown)) == 4


def test_without_a_script_scores_curve_and_confusions_are_there(
    written: tuple[Path, Any], open_page: Callable[..., Page]
) -> None:
    shown = open_page(written[0], java_script_enabled=False)
    assert shown.locator(".panel:visible svg").count() == 4
    assert shown.get_by_role("img", name="Recall at k by label").is_visible()
    assert "shown by the script" in shown.locator("noscript").inner_text()
    assert not shown.get_by_label("Feature and labels").is_visible()


def test_figures_lie_beside_the_page(written: tuple[Path, Any]) -> None:
    names = {"recall_label", "recall_colour"}
    names |= {f"confusion_{label}_{which}_trained" for label in LABELS for which in ("cnn", "transformer")}
    assert {file.name for file in written[0].parent.iterdir()} == {
        "index.html",
        *(f"{name}.{form}" for name in names for form in ("png", "svg")),
    }


def test_a_page_that_would_be_too_large_has_every_nth_query(
    footage: Path, tmp_path: Path, open_page: Callable[..., Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst query is among them."""
    monkeypatch.setattr(retrieval, "MAX_STRIPS", 9)
    table = random_table(footage)
    precisions = table.scores[FEATURES[0]].of_queries
    assert precisions is not None
    order = np.argsort(precisions[:, -1], kind="stable")
    shown = open_page(write_retrieval_page(tmp_path, [table], small_clips(footage)))
    paths = [card["path"] for card in all_cards(shown)]
    step = -(-len(order) // len(paths))
    assert step > 1
    assert paths == [table.query_paths[row] for row in order[::step]]
    assert f"Of {len(order)} queries {len(paths)} are shown, each {step}th" in shown.locator("main").inner_text()


def small_clips(footage: Path) -> Config:
    return load(overrides=[f"data.root={footage}", "clip.frames=8", "clip.stride=1", "clip.size=32"])


def random_table(footage: Path) -> RetrievalTable:
    """Six videos query the six others by random features."""
    catalog = scan(small_clips(footage).data)
    rng = np.random.default_rng(1)
    arrays = {name: rng.standard_normal((12, 8)) for name in FEATURES}
    labels = [video.label_in("label") or "" for video in catalog.videos]
    fold = Fold([*range(0, 12, 2)], [*range(1, 12, 2)])
    return RetrievalTable(
        label="label",
        num_classes=2,
        query_split="test",
        groups=None,
        gallery=None,
        num_folds=1,
        num_gallery=6,
        scores=evaluation._scores(labels, arrays, [fold], 0, torch.device("cpu")),
        catalog=catalog,
        labels=labels,
        queries=fold.queries,
    )


READ_CARDS = """async () => {
  const found = [];
  for (const card of document.querySelectorAll(".query")) {
    card.scrollIntoView();
    // A card that is not near the window is not laid out, and its text is empty.
    while (!card.querySelector("li")?.innerText) await new Promise(requestAnimationFrame);
    found.push({
      path: card.querySelector("h4").innerText,
      about: card.querySelector(".about p").innerText,
      neighbors: [...card.querySelectorAll("li")].map((item) => [item.querySelector("img").alt, item.innerText]),
    });
  }
  return found;
}"""


def all_cards(page: Page) -> list[dict[str, Any]]:
    """Scrolls to each card, and reads what it says."""
    found = []
    for card in page.evaluate(READ_CARDS):
        pattern = r"(\w+); nearest video . (\w+); average precision ([\d.]+) %"
        label, outcome, precision = parts(pattern, card["about"])
        neighbors = []
        for number, (alt, text) in enumerate(card["neighbors"], 1):
            path, other, result, similarity = parts(rf"{number}: (.*), (\w+), (\w+), similarity (-?[\d.]+)", alt)
            mark = {"right": "✓", "wrong": "✗"}[result]
            assert text.split("\n") == [f"{mark} {other}", similarity, path]
            neighbors.append({"path": path, "label": other, "result": result, "similarity": similarity})
        query = {"path": card["path"], "label": label, "outcome": outcome, "precision": float(precision)}
        found.append(query | {"neighbors": neighbors})
    return found


def parts(pattern: str, text: str) -> tuple[str, ...]:
    """The groups of a pattern that the text has."""
    match = re.fullmatch(pattern, text)
    assert match is not None, text
    return match.groups()
