from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page

from cacl.cli import main
from tests.reports.strips import frames_of
from tests.reports.training_runs import levenshtein


@pytest.fixture(scope="module")
def page(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of six videos, one of which has a name that is HTML.

    The views show whole frames in their own colours, as those of a corner cannot be told apart.
    """
    root, out = tmp_path_factory.mktemp("videos"), tmp_path_factory.mktemp("look")
    for number in range(5):
        make_video(root / f"{number}.mp4", frames=20, size=(48, 48), gop=4)
    make_video(root / "<b>&amp;.mp4", frames=20, size=(48, 48), gop=4)
    options = ["clip.frames=8", "clip.stride=1", "clip.size=32", "loader.backend=cpu", "loader.threads=1"]
    options += ["augment.crop=[1, 1]", "augment.color_jitter_prob=0", "augment.grayscale_prob=0"]
    settings = [part for option in options for part in ("--set", option)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["cacl", "data", "look", str(root), "--out", str(out), "--clips", "6", *settings])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    return out / "index.html"


def test_each_clip_is_shown_in_both_views_and_shuffled(page: Path, open_page: Callable[..., Page]) -> None:
    shown = open_page(page)
    assert shown.title() == "What training sees"
    assert sorted(shown.locator(".card h2").all_inner_texts()) == [*(f"{n}.mp4" for n in range(5)), "<b>&amp;.mp4"]
    names = shown.locator(".card").first.locator("figcaption").all_inner_texts()
    assert names == ["query view", "its shuffled copy", "key view"]
    assert all(shown.locator(".strip img").evaluate_all("images => images.map(image => image.naturalWidth == 8 * 32)"))


def test_the_shuffled_copy_has_the_frames_of_the_query_view(page: Path, open_page: Callable[..., Page]) -> None:
    """In another order, as far as the page says; the least distance that reorders frames is 2."""
    card = open_page(page).locator(".card").first
    sources = card.locator("img").evaluate_all("images => images.map(image => image.src)")
    query, shuffled = (frames_of(source) for source in sources[:2])
    order = [int(np.argmin([np.abs(frame - other).mean() for other in query])) for frame in shuffled]
    assert sorted(order) == list(range(8))
    assert f"true order: {levenshtein(order)} of" in card.inner_text()


def test_previews_pause_by_keyboard_and_for_those_who_ask(page: Path, open_page: Callable[..., Page]) -> None:
    state = "getComputedStyle(document.querySelector('.strip img')).animationName"
    shown = open_page(page)
    assert shown.evaluate(state) == "play"
    shown.keyboard.press("Tab")  # the link to the content
    shown.keyboard.press("Tab")
    shown.keyboard.press("Enter")
    assert shown.evaluate(state) == "none"
    assert shown.get_by_role("button").inner_text() == "Play previews"
    for script in (True, False):
        still = open_page(page, reduced_motion="reduce", java_script_enabled=script)
        assert still.evaluate(state) == "none"
        assert still.get_by_role("button").count() == script


def test_it_fits_a_phone_and_has_a_dark_form(page: Path, open_page: Callable[..., Page]) -> None:
    shown = open_page(page, width=360, height=700, color_scheme="dark")
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 23, 28)"
