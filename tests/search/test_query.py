"""A search finds what NumPy finds in float64, and says where."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cacl.checkpoints.encoders import EncoderWeights
from cacl.errors import CheckpointError, DataError, UsageError
from cacl.search.query import nearest_spans, search
from tests.search.conftest import Embed, other_weights


def float64_cosines(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    units = [
        x / np.maximum(np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True), 1e-12) for x in (queries, rows)
    ]
    return units[0] @ units[1].T


@pytest.mark.parametrize(("queries", "k"), [(1, 1), (1, 10), (5, 10), (3, 700)])
def test_the_nearest_are_those_of_numpy_in_float64(queries: int, k: int) -> None:
    """Some rows are copies, and some differ by less than float32 can tell in a cosine. One has no direction."""
    rng = np.random.default_rng(queries)
    rows = rng.standard_normal((600, 32)).astype(np.float32)
    rows[200:230] = rows[7] + 1e-6 * rng.standard_normal((30, 32)).astype(np.float32)
    rows[400:404], rows[500] = rows[8], 0
    rows *= rng.uniform(0.1, 10, (600, 1)).astype(np.float32)
    asked = (rows[[7, 8, 9, 7, 10][:queries]] + 0.01 * rng.standard_normal((queries, 32))).astype(np.float32)
    cosines = float64_cosines(asked, rows).astype(np.float32)
    best = np.argsort(-cosines.max(0), kind="stable")[:k]
    for size in (600, 100, 7):
        found, which, scores = nearest_spans(asked, (rows[first : first + size] for first in range(0, 600, size)), k)
        np.testing.assert_allclose(scores, cosines.max(0)[best], rtol=0, atol=1e-7)
        np.testing.assert_allclose(cosines.max(0)[found], scores, rtol=0, atol=1e-7)
        assert len(set(found.tolist())) == min(k, 600)
        np.testing.assert_allclose(cosines[which, found], scores, rtol=0, atol=1e-7)


def test_of_equal_rows_the_earlier_is_nearer() -> None:
    rows = np.ones((50, 8), np.float32)
    found, _, _ = nearest_spans(rows[:2], [rows[:20], rows[20:]], 5)
    assert found.tolist() == [0, 1, 2, 3, 4]


# ------------------------------------------------------------------------------------------------------ whole searches


@pytest.fixture
def index(embed_videos: Embed, folder: Path) -> Path:
    embed_videos()
    return folder / "index"


@pytest.fixture
def query(folder: Path) -> Path:
    """A copy of the longest video, of 15 frames, which is no part of the index."""
    return Path(shutil.copy(folder / "videos/b/05.mp4", folder / "query.mp4"))


def test_a_copy_is_found_at_its_times(index: Path, query: Path, folder: Path) -> None:
    result = search(index, query, top=4)
    assert (result.root, result.spans, result.query_spans, result.excluded) == (str(folder / "videos"), 20, 4, 0)
    assert {match.path for match in result.matches} == {"b/05.mp4"}
    assert sorted(match.start_seconds for match in result.matches) == pytest.approx([0, 4 / 25, 8 / 25, 11 / 25])
    for match in result.matches:
        assert match.score == pytest.approx(1, abs=1e-5)
        assert (match.query_start_seconds, match.query_end_seconds) == (match.start_seconds, match.end_seconds)


def test_all_matches_are_those_of_numpy(index: Path, query: Path) -> None:
    result = search(index, query, top=1000)
    table = pq.read_table(index / "spans.parquet").to_pydict()
    features = np.array(table["feature"], np.float32)
    own = [number for number, path in enumerate(table["path"]) if path == "b/05.mp4"]
    scores = float64_cosines(features[own], features).max(0)
    assert len(result.matches) == len(features)
    by_span = {(m.path, m.start_seconds): m.score for m in result.matches}
    for path, start, score in zip(table["path"], table["start_seconds"], scores, strict=True):
        assert by_span[path, start] == pytest.approx(score, abs=1e-5)
    assert [match.score for match in result.matches] == sorted(by_span.values(), reverse=True)


def test_a_part_of_a_query_is_that_part(index: Path, query: Path) -> None:
    result = search(index, query, from_seconds=0.16, to_seconds=0.32, top=1)
    (match,) = result.matches
    assert (match.path, match.start_seconds, match.query_start_seconds) == ("b/05.mp4", 0.16, 0.16)
    assert (result.query_start_seconds, result.query_end_seconds, result.query_spans) == (0.16, 0.32, 1)
    short = search(index, query, from_seconds=0.24, to_seconds=0.25)  # A clip from frame 4 on is around frame 6.
    assert short.query_start_seconds == 0.16


@pytest.mark.parametrize("link", [False, True])
def test_a_query_does_not_find_itself(index: Path, folder: Path, link: bool) -> None:
    file = folder / "videos/a/02.mp4"
    if link:
        (folder / "link").symlink_to(folder / "videos")
        file = folder / "link/a/02.mp4"
    whole = search(index, file, top=100)
    assert "a/02.mp4" not in {match.path for match in whole.matches}
    assert (whole.excluded, len(whole.matches)) == (3, 17)
    part = search(index, file, from_seconds=0.24, to_seconds=0.4, top=100)
    others = {match.start_seconds for match in part.matches if match.path == "a/02.mp4"}
    assert part.excluded == 2
    assert others == {0.0}


def test_an_index_can_be_searched_elsewhere(index: Path, query: Path, folder: Path) -> None:
    expected = search(index, query).matches
    index.rename(folder / "copied")
    shutil.rmtree(folder / "videos")
    assert search(folder / "copied", query).matches == expected


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ({"from_seconds": 1.0}, r"--from 1 is no part of this video, which lasts 0\.60 seconds"),
        ({"from_seconds": -1.0}, "--from -1 is no part"),
        ({"from_seconds": 0.3, "to_seconds": 0.2}, r"--from 0\.3 --to 0\.2 is no part"),
        ({"to_seconds": 2.0}, "--from 0 --to 2 is no part"),
        ({"to_seconds": float("nan")}, "--from 0 --to nan is no part"),
    ],
)
def test_a_part_must_lie_in_the_query(index: Path, query: Path, times: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        search(index, query, **times)  # type: ignore[arg-type]


def test_bad_input_is_one_line(
    index: Path, query: Path, folder: Path, make_video: Callable[..., Path], weights: EncoderWeights
) -> None:
    def refused(
        error: type[Exception], message: str, where: Path = index, asked: Path = query, **options: object
    ) -> None:
        with pytest.raises(error, match=message) as caught:
            search(where, asked, **options)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)

    refused(DataError, "videos: is no index, or not a finished one; `cacl embed` makes it", folder / "videos")
    refused(UsageError, "--top 0: say a number from 1 on", top=0)
    refused(DataError, r"gone.mp4: cannot be read \(No such file", asked=folder / "gone.mp4")
    refused(DataError, "cannot be opened as a video|cannot be read", asked=folder)
    refused(DataError, "spans.parquet: cannot be opened as a video", asked=index / "spans.parquet")
    refused(DataError, "short.mp4: has 3 frames; a clip needs 4", asked=make_video(folder / "short.mp4", frames=3))
    refused(DataError, "one.mp4: has 1 frame; a clip needs 4", asked=make_video(folder / "one.mp4", frames=1))
    refused(UsageError, "clip.size is 16 in it and 32 here: leave that as it is", overrides=["clip.size=32"])
    other_weights(weights).save(index / "encoder.safetensors")
    refused(CheckpointError, "encoder.safetensors: is not the encoder that .*spans.parquet was made with")
    os.truncate(index / "encoder.safetensors", 100)
    refused(CheckpointError, "encoder.safetensors: is damaged")
    os.truncate(index / "spans.parquet", 100)
    refused(DataError, "spans.parquet: is damaged, or no index; delete it")
