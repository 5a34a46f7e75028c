from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page

from cacl.reports.search import write_search_page
from cacl.search.embed import embed, settings_for_videos
from cacl.search.query import SearchResult, search
from tests.reports.strips import frames_of
from tests.tiny import tiny_weights


@pytest.fixture
def found(make_video: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SearchResult:
    """What is found in three videos by another one. One of them has a name that is HTML."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number, name in enumerate(("a.mp4", "<i>b.mp4", "c.mp4")):
        make_video(tmp_path / "videos" / name, frames=12, size=(64, 48), gop=4, first=20 * number)
    query = make_video(tmp_path / "query.mp4", frames=8, size=(64, 48), gop=4, first=7)
    weights = tiny_weights()
    embed(weights, settings_for_videos(weights.config, str(tmp_path / "videos"), []), tmp_path / "index")
    return search(tmp_path / "index", query, top=5)


def test_the_matches_are_shown_beside_what_they_are_like(
    found: SearchResult, tmp_path: Path, open_page: Callable[..., Page]
) -> None:
    cards = open_page(write_search_page(found, tmp_path)).locator(".card")
    assert cards.count() == 5
    for card, match in zip(cards.all(), found.matches, strict=True):
        assert match.path in card.locator("h2").inner_text()
        assert f"score {match.score:.4f}" in card.inner_text()
        shown, query = card.locator("img").evaluate_all("images => images.map(image => image.src)")
        assert _first_frame(Path(found.root, match.path), shown) == round(25 * match.start_seconds)
        assert _first_frame(Path(found.query), query) == round(25 * match.query_start_seconds)


def test_a_match_whose_file_is_gone_is_named(
    found: SearchResult, tmp_path: Path, open_page: Callable[..., Page]
) -> None:
    gone = found.matches[0].path
    Path(found.root, gone).unlink()
    cards = open_page(write_search_page(found, tmp_path), width=360).locator(".card")
    for card, match in zip(cards.all(), found.matches, strict=True):
        assert ("cannot be shown" in card.inner_text()) == (match.path == gone)
        assert card.locator("img").count() == (1 if match.path == gone else 2)


def _first_frame(file: Path, strip: str) -> int:
    """The frame of a file that the first one of a strip looks most like, in the centre crop."""
    first = frames_of(strip)[0]
    with av.open(str(file)) as container:
        frames = [frame.to_image().crop((8, 0, 56, 48)) for frame in container.decode(video=0)]
    side = len(first)
    smaller = [np.asarray(frame.resize((side, side), Image.Resampling.BILINEAR)).astype(float) for frame in frames]
    return int(np.argmin([np.abs(frame - first).mean() for frame in smaller]))
