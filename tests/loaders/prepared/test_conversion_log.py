"""The conversion log on real files: what was added is there the next time, or adding it is an error."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cacl.clips import Fragments, VideoRecord
from cacl.errors import DataError
from cacl.files import FileStamp
from cacl.loaders.catalog.prepared_files import CONVERSION_LOG_NAME
from cacl.loaders.prepared.conversion_log import ConversionLog, ConvertedSource, RejectedSource

SETTINGS = {"short_side": 48, "codec": "h264"}
REJECTED = RejectedSource(
    path="b\udcff\n.avi", stamp=FileStamp(0, 1_700_000_000_123_456_789), reason="is empty (0 bytes)"
)
FRAGMENTS = Fragments(
    init_segment=b"",
    first_frames=np.array([0, 16], np.int64),
    offsets=np.array([800, 2**33, 2**33 + 9], np.int64),
    checksums=np.array([2**32 - 1, 0], np.uint32),
)
VIDEO = VideoRecord(
    path="",
    frames=23,
    declared_frames=23,
    rate=30000 / 1001,
    width=64,
    height=48,
    codec="h264",
    content_hash="0f" * 16,
    fragments=FRAGMENTS,
)
QUIRKS = {"streams": "holds 2 video streams"}
CONVERTED = ConvertedSource(
    path="a.avi",
    stamp=FileStamp(5, 7),
    content_hash="1e" * 16,
    copied=True,
    video=VIDEO,
    init_checksum=2**32 - 2,
    quirks={"streams": "holds 2"},
)


def opened(folder: Path, **settings: str) -> ConversionLog:
    return ConversionLog(folder, Path("/source"), SETTINGS | settings)


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Lets no file grow beyond a size: a write that would do so ends there, and the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_every_field_is_there_the_next_time(tmp_path: Path) -> None:
    outcomes = [
        REJECTED,
        replace(REJECTED, path="c.avi", stamp=None),
        CONVERTED,
        replace(CONVERTED, path="d.avi", copied=False, stamp=FileStamp(2**40, 2**62)),
    ]
    with opened(tmp_path) as log:
        for outcome in outcomes:
            log.add(outcome)
    with opened(tmp_path) as log:
        assert log.outcomes == {outcome.path: outcome for outcome in outcomes}
        for path in ("a.avi", "d.avi"):
            found = log.outcomes[path]
            assert isinstance(found, ConvertedSource)
            assert found.size_bytes == 2**33 + 9
            assert found.video.fragments is not None  # Comparing videos passes over them.
            for ours, theirs in zip(found.video.fragments, FRAGMENTS, strict=True):
                assert np.array_equal(ours, theirs)
                assert getattr(ours, "dtype", None) == getattr(theirs, "dtype", None)


def test_the_codec_is_that_of_the_set(tmp_path: Path) -> None:
    """A log that does not tell it is from before there was a choice, and of H.264."""
    source = replace(CONVERTED, video=replace(VIDEO, codec="hevc"))
    with opened(tmp_path, codec="hevc") as log:
        log.add(source)
    with opened(tmp_path, codec="hevc") as log:
        assert log.outcomes == {source.path: source}
    with pytest.raises(
        DataError, match=rf"^{tmp_path}: was begun with codec = hevc, not h264; give the same again, or"
    ):
        opened(tmp_path)
    file = tmp_path / CONVERSION_LOG_NAME
    file.write_bytes(file.read_bytes().replace(b',"codec":"hevc"', b""))
    with opened(tmp_path) as log:
        assert log.outcomes == {CONVERTED.path: CONVERTED}
    with pytest.raises(DataError, match=r"was begun with codec = h264, not hevc"):
        opened(tmp_path, codec="hevc")


def test_a_later_line_counts(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        log.add(replace(REJECTED, path="a.avi"))
        log.add(CONVERTED)
        log.add(replace(CONVERTED, init_checksum=3))
    with opened(tmp_path) as log:
        assert log.outcomes == {"a.avi": replace(CONVERTED, init_checksum=3)}


def test_a_line_that_is_written_in_part_is_an_error(tmp_path: Path) -> None:
    """Such a line is not there the next time, when others take its place."""
    with opened(tmp_path) as log:
        log.add(REJECTED)
        size = (tmp_path / CONVERSION_LOG_NAME).stat().st_size
        with at_most(size + 30), pytest.raises(OSError, match="File too large"):
            log.add(CONVERTED)
        assert (tmp_path / CONVERSION_LOG_NAME).stat().st_size == size + 30
    for outcome in (replace(CONVERTED, path="c.avi"), CONVERTED):
        with opened(tmp_path) as log:
            assert CONVERTED.path not in log.outcomes
            log.add(outcome)
    with opened(tmp_path) as log:
        assert log.outcomes.keys() == {REJECTED.path, "c.avi", CONVERTED.path}


def test_a_line_without_its_end_is_not_there(tmp_path: Path) -> None:
    """Though it can be read, it is dropped: the next line would be written behind it, and both be lost."""
    with opened(tmp_path) as log:
        log.add(REJECTED)
        log.add(CONVERTED)
    content = (tmp_path / CONVERSION_LOG_NAME).read_bytes()
    (tmp_path / CONVERSION_LOG_NAME).write_bytes(content[:-1])
    with opened(tmp_path) as log:
        assert log.outcomes == {REJECTED.path: REJECTED}
        log.add(CONVERTED)
    assert (tmp_path / CONVERSION_LOG_NAME).read_bytes() == content
