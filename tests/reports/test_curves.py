"""Nothing that was logged is lost, and no figure grows with the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page

from cacl.loaders.sampling.rng import RandomStream
from cacl.loaders.sampling.sampler import draw_frame_order
from cacl.reports.curves import MOST_POINTS, draw_curves, read_metrics, thin
from cacl.reports.figures import SERIES
from cacl.reports.scalar_groups import commonest_class_share, group_scalars
from cacl.reports.training import Progress, write_training_page
from tests.drawn_texts import assert_in_the_picture_and_apart, observe_texts
from tests.reports.training_runs import levenshtein, made_up_run, values_in
from tests.tiny import tiny_config

ENCODERS = ("cnn", "transformer")


def colored(file: Path, color: str) -> np.ndarray:
    """Returns where a PNG has a colour: bool [H, W]."""
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    pixels = np.asarray(Image.open(file).convert("RGB")).astype(int)
    return np.asarray((np.abs(pixels - wanted) < 12).all(2))


@pytest.mark.parametrize("count", [1, 7, 10, 11, 25])
def test_neighbours_are_averaged_until_they_are_few(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    values[2:3] = np.nan
    steps, means, size = thin(np.arange(20.0, 20 + count), values, most=5)
    bins = [range(first, min(first + size, count)) for first in range(0, count, size)]
    assert len(bins) <= 5
    assert steps == pytest.approx([20 + np.mean(rows) for rows in bins])
    expected = [np.nan if np.isnan(values[list(rows)]).all() else np.nanmean(values[list(rows)]) for rows in bins]
    assert means == pytest.approx(expected, nan_ok=True)


def test_a_long_run_has_figures_of_bounded_size_and_says_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [{"step": 10 * n, "loss": float(3 / n**0.5 + rng.normal() / 9)} for n in range(1, 20_001)]
    run, config = made_up_run(tmp_path / "run", lines), tiny_config("never written")
    (figure,) = draw_curves(read_metrics(run), config, tmp_path)
    (few,) = draw_curves(lines[:MOST_POINTS], config, tmp_path)
    assert "Each point is the mean of 20 log lines." in figure.caption
    assert "Each point" not in few.caption
    assert len(figure.svg) < 1.1 * len(few.svg)
    assert 'aria-label="Curves of losses from step 10 to 200000. loss: 3' in figure.svg


def test_what_was_cut_off_is_left_out(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", [{"step": 1, "loss": 2.0}])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    assert read_metrics(run) == [{"step": 1, "loss": 2.0}]
    assert read_metrics(tmp_path / "no run") == []


def test_a_single_line_is_a_point_that_can_be_seen(tmp_path: Path) -> None:
    (figure,) = draw_curves([{"step": 20, "gradient_norm": 2.5}], tiny_config("never written"), tmp_path)
    assert colored(tmp_path / "gradient_norm.png", SERIES[0]).sum() > 20
    assert 'aria-label="gradient norm at step 20. gradient norm: 2.5."' in figure.svg


def test_what_is_not_finite_is_a_gap_in_the_curve(tmp_path: Path) -> None:
    """A curve without gaps has a dot in every column of pixels between its ends."""

    def columns(values: list[float | None]) -> np.ndarray:
        lines = [{"step": n, "gradient_norm": value} for n, value in enumerate(values, start=1)]
        (figure,) = draw_curves(lines, tiny_config("never written"), tmp_path)
        assert ("not a number, and left out: 3." in figure.caption) == (None in values)
        return np.flatnonzero(colored(tmp_path / "gradient_norm.png", SERIES[0]).any(0))

    assert np.diff(columns([1.0] * 11)).max() == 1
    assert np.diff(columns([1.0] * 4 + [None] * 3 + [1.0] * 4)).max() > 100


@pytest.mark.parametrize("group", ["loss", "reversed_top1", "what another package logs of each pair", "word" * 40])
def test_texts_stay_in_the_figure_and_apart(group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [f"{anchor}_query.{positive}_key" for anchor in ENCODERS for positive in ENCODERS]
    lines = [{"step": n, **{f"{group}/{pair}": n / 4 for pair in pairs}} for n in (1, 2, 3)]
    texts = observe_texts(monkeypatch)
    draw_curves(lines, tiny_config("never written"), tmp_path)
    (file,) = tmp_path.glob("*.png")
    with Image.open(file) as image:
        assert_in_the_picture_and_apart(texts, *image.size)
    legend = [text for text in texts if " query, " in text.text]
    assert len(legend) == len(pairs)
    assert max(text.top for text in texts if text not in legend) < min(text.bottom for text in legend)


def test_the_dotted_line_is_how_often_the_commonest_distance_is_right() -> None:
    orders = [draw_frame_order(RandomStream(1, n), 5) for n in range(3000)]
    counts = np.bincount([levenshtein(order) for order in orders])
    assert commonest_class_share(5) == pytest.approx(counts.max() / 3000, abs=0.03)


def test_every_scalar_is_in_one_figure() -> None:
    names = ["step", "epoch", "loss", "contrast", "contrast/batch", "mine", "similarity/a.b", "deviation/cnn"]
    names += ["deviation/transformer", "learning_rate/conv4", "learning_rate/classifier"]
    groups = group_scalars(names, tiny_config("never written", {"losses": {"contrast": 1.0}}))
    assert groups == {
        "loss": ["loss", "contrast", "contrast/batch"],
        "similarity": ["similarity/a.b"],
        "learning_rate": ["learning_rate/conv4", "learning_rate/classifier"],
        "mine": ["mine"],
        "deviation": ["deviation/cnn", "deviation/transformer"],
    }


def test_scalars_of_other_packages_are_shown(tmp_path: Path, open_page: Callable[..., Page]) -> None:
    lines = [{"step": n, "loss": 3.0 / n, "deviation/cnn": 1e-7 * n, "<b>": None} for n in (1, 2)]
    write_training_page(tmp_path, made_up_run(tmp_path / "run", lines), None, Progress(4, ""))
    page = open_page(tmp_path / "index.html")
    assert page.locator(".figures h3").all_inner_texts() == ["Losses", "Deviation", "<b>"]
    assert values_in(page) == {
        "loss": ["1.5", "1.5", "3"],
        "deviation/cnn": ["2e-07", "1e-07", "2e-07"],
        "<b>": ["not finite"] * 3,
    }
    alternatives = page.locator("figure svg[role=img]").evaluate_all("x => x.map(y => y.getAttribute('aria-label'))")
    assert alternatives[0] == "Curves of losses from step 1 to 2. loss: 3 to 1.5."
    assert alternatives[2] == "Curves of <b> from step 1 to 2. <b>: never finite."
