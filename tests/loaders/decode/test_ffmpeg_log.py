"""What FFmpeg logs in one thread, and the settings of its log."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import av.logging
import pytest

from cacl.errors import DataError
from cacl.loaders.decode.probe import probe
from tests.loaders.decode.damaged_files import overwritten

MakeVideo = Callable[..., Path]


def test_messages_of_other_threads_are_not_held_against_a_file(make_video: MakeVideo, tmp_path: Path) -> None:
    options = {"level": "3", "slicecrc": "1"}
    bad, good = (make_video(tmp_path / f"{name}.mkv", codec="ffv1", options=options) for name in ("bad", "good"))
    overwritten(bad, 7)

    def verdict(path: Path) -> str:
        try:
            return str(probe(path).frames)
        except DataError as error:
            return str(error)[:10]

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(verdict, [bad, good] * 12)) == ["is damaged", "24"] * 12


@pytest.mark.parametrize(("level", "skip_repeated"), [(None, True), (av.logging.INFO, False)])
def test_what_ffmpeg_logs_is_as_it_was_after_a_probe(
    make_video: MakeVideo, tmp_path: Path, level: int | None, skip_repeated: bool
) -> None:
    path = make_video(tmp_path / "video.mp4")
    before = av.logging.get_level(), av.logging.get_skip_repeated()
    try:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skip_repeated)
        probe(path)
        assert (av.logging.get_level(), av.logging.get_skip_repeated()) == (level, skip_repeated)
    finally:
        av.logging.set_level(before[0])
        av.logging.set_skip_repeated(before[1])
