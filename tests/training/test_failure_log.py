"""When a run stops because of files that fail, and what its failure log holds after any end."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cacl.clips import Failure, VideoRecord
from cacl.config import from_dict
from cacl.errors import DataError
from cacl.loaders.catalog.catalog import Catalog
from cacl.training.failure_log import FAILURE_LOG_NAME, MAX_FAILURES_IN_A_ROW, FailureLog

BATCH = 4
Open = Callable[..., FailureLog]


def named(number: int) -> VideoRecord:
    return VideoRecord(
        path=f"{number}.mp4", frames=9, declared_frames=9, rate=25, width=64, height=48, codec="h264", content_hash=""
    )


@pytest.fixture(autouse=True)
def _hears_messages(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="cacl")


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    def make(
        videos: int = 10, *, allowed: float = 0.2, on_failure: str = "skip", step: int = 0, writes: bool = True
    ) -> FailureLog:
        values: dict[str, Any] = {"data": {"max_rejected_share": allowed}, "loader": {"on_failure": on_failure}}
        config = from_dict({"run": str(tmp_path), "train": {"batch_size": BATCH}, **values})
        records = tuple(named(number) for number in range(videos))
        catalog = Catalog(root=Path("/set"), layout="folder", videos=records, rejected=(), missing=())
        return FailureLog(catalog, config, step, writes=writes)

    return make


def fail(failure_log: FailureLog, *clips: tuple[int, int]) -> None:
    """Records clips (index, video) as failed, in the steps that they belong to."""
    for step in sorted({index // BATCH for index, _ in clips}):
        of_step = [clip for clip in clips if clip[0] // BATCH == step]
        failure_log.record(step + 1, [Failure(index, video, f"/set/{video}.mp4: is gone") for index, video in of_step])


def lines(run: Path) -> list[tuple[int, int, str, str | None]]:
    read: Iterable[dict[str, Any]] = map(json.loads, (run / FAILURE_LOG_NAME).read_text().splitlines())
    return [(line["step"], line["index"], line["path"], line["reason"]) for line in read]


# --- When to stop


def test_skipping_names_each_file_once(opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    failure_log = opened()
    fail(failure_log, (3, 7), (5, 2), (13, 7), (26, 7))
    assert caplog.messages == [
        "step 1: skipping clip 3: /set/7.mp4: is gone",
        "step 2: skipping clip 5: /set/2.mp4: is gone",
    ]
    assert (failure_log.clips_skipped, failure_log.files_failed) == (4, Counter({"7.mp4": 3, "2.mp4": 1}))


def test_failing_stops_at_once_and_says_how_not_to(opened: Open, tmp_path: Path) -> None:
    failure_log = opened(on_failure="fail")
    with pytest.raises(DataError, match=r'^/set/7\.mp4: is gone; loader\.on_failure = "skip" goes on without it$'):
        fail(failure_log, (13, 7))
    assert lines(tmp_path) == [(4, 13, "7.mp4", "/set/7.mp4: is gone")]


@pytest.mark.parametrize(("allowed", "most"), [(0.2, 2), (0.0, 0), (0.29, 2), (0.3, 3), (1.0, 9)])
def test_too_many_failing_videos(opened: Open, allowed: float, most: int) -> None:
    failure_log = opened(allowed=allowed)
    fail(failure_log, *((video, video) for video in range(most)))
    with pytest.raises(DataError) as caught:
        fail(failure_log, (most, most))
    message = str(caught.value)
    if most < 9:
        assert (
            f"{most + 1} of 10 training videos fail, more than data.max_rejected_share = {allowed} allows: " in message
        )
    else:
        assert "data.root = /set: all 10 training videos fail: " in message
    assert "/set/0.mp4: is gone" in message
    assert ("; and 7 more" in message) == (most == 9)
    assert "--resume" in message


def test_the_same_videos_may_fail_forever(opened: Open) -> None:
    failure_log = opened()
    for epoch in range(50):  # at other places in each, and so sometimes four times among ten clips
        fail(failure_log, (10 * epoch + epoch % 5, 3), (10 * epoch + 5 + epoch % 4, 8))
    assert failure_log.files_failed == {"3.mp4": 50, "8.mp4": 50}


def test_all_failing_is_too_many_after_one_epoch(opened: Open) -> None:
    """Ten is no multiple of the batch, so a step ends with two clips of the next epoch, of videos that came before."""
    failure_log = opened(allowed=1.0)
    with pytest.raises(DataError, match="all 10 training videos fail"):
        fail(failure_log, *((index, index % 10) for index in range(12)))


def test_videos_that_load_again_do_not_add_up(opened: Open) -> None:
    """Each video fails once, as over a network that fails once in a while."""
    failure_log = opened()
    fail(failure_log, *((10 * epoch + epoch, epoch) for epoch in range(10)))
    assert len(failure_log.files_failed) == 10


@pytest.mark.parametrize("before", [0, 7])
def test_a_disk_that_went_away_ends_a_large_run_soon(opened: Open, before: int) -> None:
    """The failing videos are far fewer than are allowed."""
    failure_log = opened(100_000, allowed=1.0)
    fail(failure_log, *((index, index) for index in range(before, before + MAX_FAILURES_IN_A_ROW - 1)))
    fail(failure_log, *((index, index) for index in range(200, 200 + MAX_FAILURES_IN_A_ROW - 1)))
    with pytest.raises(
        DataError, match=rf"the last {MAX_FAILURES_IN_A_ROW} clips all failed: /set/{before}\.mp4: is gone; "
    ):
        fail(failure_log, *((index, index % 7) for index in range(400, 900)))
    assert failure_log.recent.keys() >= set(range(400, 500))


# --- The file


def test_it_goes_on_from_the_step_of_the_checkpoint(opened: Open, tmp_path: Path) -> None:
    whole = opened()
    fail(whole, (1, 3), (6, 8), (11, 3), (17, 8))
    content = (tmp_path / FAILURE_LOG_NAME).read_bytes()
    assert [line[:2] for line in lines(tmp_path)] == [(1, 1), (2, 6), (3, 11), (5, 17)]

    resumed = opened(step=2)
    assert (resumed.clips_skipped, resumed.files_failed) == (2, {"3.mp4": 1, "8.mp4": 1})
    assert [line[0] for line in lines(tmp_path)] == [1, 2]
    fail(resumed, (11, 3), (17, 8))
    assert (tmp_path / FAILURE_LOG_NAME).read_bytes() == content
    assert (resumed.clips_skipped, resumed.files_failed) == (whole.clips_skipped, whole.files_failed)

    assert opened(step=0).clips_skipped == 0
    assert lines(tmp_path) == []


def test_a_line_that_was_torn_is_not_there(opened: Open, tmp_path: Path) -> None:
    fail(opened(), (1, 3), (6, 8), (11, 3))
    whole = (tmp_path / FAILURE_LOG_NAME).read_bytes()
    for end in range(0, len(whole), 5):
        (tmp_path / FAILURE_LOG_NAME).write_bytes(whole[:end])
        count = whole[:end].count(b"\n")
        assert opened(step=9).clips_skipped == count
        assert (tmp_path / FAILURE_LOG_NAME).read_bytes() == b"".join(whole.splitlines(keepends=True)[:count])


def test_one_rank_writes_and_all_count(opened: Open, tmp_path: Path) -> None:
    silent = opened(writes=False)
    fail(silent, (1, 3))
    assert not (tmp_path / FAILURE_LOG_NAME).exists()
    fail(opened(), (1, 3), (6, 8))
    content = (tmp_path / FAILURE_LOG_NAME).read_bytes()
    assert opened(step=1, writes=False).files_failed == silent.files_failed
    assert (tmp_path / FAILURE_LOG_NAME).read_bytes() == content


def test_clips_that_loaded_in_vain_are_no_failures(
    opened: Open, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    failure_log = opened()
    failure_log.record(2, [Failure(5, 1, "/set/1.mp4: is gone")], [(4, 9), (6, 2), (7, 3)])
    assert (failure_log.clips_skipped, failure_log.files_failed) == (4, {"1.mp4": 1})
    assert lines(tmp_path)[0] == (2, 5, "1.mp4", "/set/1.mp4: is gone")
    assert lines(tmp_path)[1:] == [(2, 4, "9.mp4", None), (2, 6, "2.mp4", None), (2, 7, "3.mp4", None)]
    assert caplog.messages[-1] == "step 2: skipped, too few of its clips loaded"
    assert opened(step=2).files_failed == failure_log.files_failed


def test_names_of_any_bytes(opened: Open, tmp_path: Path) -> None:
    failure_log = opened(2, allowed=0.5)
    failure_log.catalog = replace(
        failure_log.catalog, videos=(replace(named(0), path="a\udcff\n,\u2028.mp4"), named(1))
    )
    failure_log.record(1, [Failure(0, 0, "/set/a\udcff\n: is gone")])
    ((_, _, path, reason),) = lines(tmp_path)
    assert (path, reason) == ("a\udcff\n,\u2028.mp4", "/set/a\udcff\n: is gone")
    assert opened(2, allowed=0.5, step=1).files_failed == {path: 1}
