"""The page of a recognition in a browser, for classifiers on frozen features and for a fine-tuned network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page

from cacl.training.finetuning import finetune
from tests.reports.results import LABELS, Evaluate
from tests.training.finetuning_runs import finetune_config


@pytest.fixture(scope="module")
def frozen(evaluate: Evaluate, trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The page of two classifiers on the features of a real run, and the tables that its command printed."""
    folder = tmp_path_factory.mktemp("frozen")
    classifiers = ("--classifier", "knn", "--classifier", "linear")
    return folder / "index.html", evaluate("recognition", trained_run, *classifiers, "--report", folder)


@pytest.fixture(scope="module")
def network(evaluate: Evaluate, footage: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The page of a fine-tuned network, which is judged by mean probabilities."""
    folder, run = tmp_path_factory.mktemp("network"), tmp_path_factory.mktemp("finetuned") / "run"
    data = {"root": str(footage), "cache": str(run.parent / "cache")}
    finetune(finetune_config(run, steps=2, data=data, retrieval={"clips_per_video": 2}))
    return folder / "index.html", evaluate("recognition", run, "--average", "probabilities", "--report", folder)


def test_scores_are_those_of_json(frozen: tuple[Path, Any], open_page: Callable[..., Page]) -> None:
    page, tables = open_page(frozen[0]), frozen[1]
    regions = page.get_by_role("region", name="4 test videos of 2 classes")
    assert regions.count() == 2
    for number, table in enumerate(tables):
        for name, result in table["results"].items():
            row = regions.nth(number).locator("tr", has=page.get_by_role("rowheader", name=name, exact=True))
            cells = row.locator("td").all_inner_texts()
            scores = [f"{100 * result[score]:.1f}" for score in ("top1", "top5", "mean_per_class")]
            assert [cells[0], *cells[2:4]] == scores


def test_mistakes_are_sorted_and_are_those_of_the_confusion(
    frozen: tuple[Path, Any], open_page: Callable[..., Page]
) -> None:
    page = open_page(frozen[0])
    options = page.get_by_label("Classification").locator("option").all_inner_texts()
    features = [f"{which} vector, trained" for which in ("cnn", "transformer")]
    titles = ("k-NN by label", "linear probe by label")
    assert options == [f"{title}: {feature}" for title in titles for feature in features]
    results = [table["results"][feature] for table in frozen[1] for feature in features]
    for number, result in enumerate(results):
        page.get_by_label("Classification").select_option(str(number))
        assert page.locator(".panel:visible h3").inner_text() == options[number]
        check_panel(page, result)


def test_a_network_has_the_same_page(network: tuple[Path, Any], open_page: Callable[..., Page]) -> None:
    page = open_page(network[0], width=360, height=700, color_scheme="dark")
    assert page.locator(".panel:visible h3").inner_text() == "fine-tuned cnn by label"
    check_panel(page, network[1]["results"]["fine-tuned"])
    assert "mean probabilities of 2 clips in the centre crop" in page.locator("main").inner_text()


def test_controls_are_reached(frozen: tuple[Path, Any], open_page: Callable[..., Page]) -> None:
    page = open_page(frozen[0])
    reached = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"panel", "motion"} <= reached


def test_without_a_script_everything_is_shown(frozen: tuple[Path, Any], open_page: Callable[..., Page]) -> None:
    page = open_page(frozen[0], java_script_enabled=False)
    assert page.locator(".panel:visible").count() == 4
    assert not page.get_by_label("Classification").is_visible()


def check_panel(page: Page, result: dict[str, Any]) -> None:
    """The visible mistakes and accuracies are those of a result."""
    classes, confusion = ["run", "walk"], np.array(result["confusion"])
    shown = np.zeros((2, 2), int)
    confidences = []
    for card in page.locator(".mistake:visible").all():
        guess, true_class, confidence, path = card.locator("dd").all_inner_texts()
        assert true_class == LABELS["label"][path]
        shown[classes.index(true_class), classes.index(guess.removeprefix("✗ "))] += 1
        confidences.append(float(confidence.removesuffix(" %")))
    np.testing.assert_array_equal(shown, confusion * ~np.eye(2, dtype=bool))
    assert confidences == sorted(confidences, reverse=True)
    assert all(50 <= confidence <= 100 for confidence in confidences)  # the larger one of two
    rows = page.locator(".classes:visible tbody tr").all_inner_texts()
    expected = sorted((share, name) for name, share in result["per_class"].items())
    assert [row.split("\t") for row in rows] == [[name, "2", f"{100 * share:.1f} %"] for share, name in expected]
