"""Frames are mirrored and turned as the container says."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cacl.clips import VideoRecord
from cacl.errors import DataError
from cacl.loaders.decode.probe import probe
from cacl.loaders.decode.raw import decode_frames
from cacl.loaders.decode.yuv import apply_orientation, planes
from cacl.loaders.prepared.transcode import TranscodeSettings, transcode

MakeVideo = Callable[..., Path]


MATRICES = {
    (False, 0): (1, 0, 0, 1),
    (False, 90): (0, -1, 1, 0),
    (False, 180): (-1, 0, 0, -1),
    (False, 270): (0, 1, -1, 0),
    (True, 0): (-1, 0, 0, 1),
    (True, 90): (0, 1, 1, 0),
    (True, 180): (1, 0, 0, -1),
    (True, 270): (0, -1, -1, 0),
}
"""(a, b, c, d) of the track header of QuickTime files, by mirroring and counter-clockwise turns: pixel (x, y) is
displayed at (a x + c y, b x + d y), shifted to begin at 0."""


def set_matrix(path: Path, matrix: Sequence[float]) -> None:
    at, _ = display_matrix(path)
    content = bytearray(path.read_bytes())
    a, b, c, d = (round(value * 2**16) for value in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


@pytest.mark.parametrize("orientation", MATRICES)
def test_frames_are_shown_as_the_container_says(
    make_video: MakeVideo, tmp_path: Path, orientation: tuple[bool, int]
) -> None:
    """The first frame grows redder to the right and greener downwards, so that no two orientations of it are alike."""
    path = make_video(tmp_path / "video.mp4", frames=3, size=(64, 48))
    set_matrix(path, MATRICES[orientation])
    video = probe(path)
    assert (video.mirrored, video.rotation) == orientation
    assert (video.width, video.height) == ((64, 48) if video.rotation % 180 == 0 else (48, 64))
    check_orientation(path, video)
    location = path.parent / "prepared"
    converted = transcode(path, video, location, TranscodeSettings(short_side=48)).video
    assert (converted.mirrored, converted.rotation, converted.width, converted.height) == (
        (False, 0, video.width, video.height)
    )
    original = apply_orientation(planes(next(decode_frames(path, video, [0])))[0], video)
    kept = planes(next(decode_frames(location, converted, [0])))[0]
    assert np.abs(original.astype(int) - kept).mean() < 3


@pytest.mark.parametrize("degrees", [-0.9, 0.9])
@pytest.mark.parametrize("orientation", MATRICES)
def test_a_matrix_that_is_nearly_a_turn(
    make_video: MakeVideo, tmp_path: Path, orientation: tuple[bool, int], degrees: float
) -> None:
    path = make_video(tmp_path / "video.mp4", frames=3)
    a, b, c, d = MATRICES[orientation]
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    set_matrix(
        path,
        [2.5 * x for x in (a * cosine - b * sine, a * sine + b * cosine)]
        + [0.5 * x for x in (c * cosine - d * sine, c * sine + d * cosine)],
    )
    video = probe(path)
    assert (video.mirrored, video.rotation) == orientation


@pytest.mark.parametrize("matrix", [(0, 0, 0, 0), (0.7071, 0.7071, -0.7071, 0.7071), (1, 0, 0.5, 1), (1, 1, 1, 1)])
def test_other_matrices_are_named(make_video: MakeVideo, tmp_path: Path, matrix: tuple[float, ...]) -> None:
    path = make_video(tmp_path / "video.mp4", frames=3)
    set_matrix(path, matrix)
    with pytest.raises(
        DataError, match=r"^has the display matrix \(.*\): only quarter turns and reflections are handled$"
    ):
        probe(path)


@pytest.mark.parametrize("name", ["video_90.mov", "fire2.mp4", "nasa_13013.mp4"])
def test_real_files_are_turned_as_their_container_says(footage: Path, name: str) -> None:
    path = footage / "formats" / name
    video = probe(path)
    _, matrix = display_matrix(path)
    assert matrix == MATRICES[video.mirrored, video.rotation]
    check_orientation(path, video)


def test_leading_axes_are_left_alone(make_video: MakeVideo, tmp_path: Path) -> None:
    video = probe(make_video(tmp_path / "video.mp4", frames=3))
    stack = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    for mirrored, rotation in MATRICES:
        turned = replace(video, mirrored=mirrored, rotation=rotation)
        for outer in range(2):
            for inner in range(3):
                expected = apply_orientation(stack[outer, inner], turned)
                np.testing.assert_array_equal(apply_orientation(stack, turned)[outer, inner], expected)


def check_orientation(path: Path, video: VideoRecord) -> None:
    decoded = planes(next(decode_frames(path, video, [0])))[0]
    _, (a, b, c, d) = display_matrix(path)
    y, x = np.indices(decoded.shape)
    to_x, to_y = a * x + c * y, b * x + d * y
    displayed = np.zeros((video.height, video.width), np.uint8)
    displayed[to_y - to_y.min(), to_x - to_x.min()] = decoded
    np.testing.assert_array_equal(apply_orientation(decoded, video), displayed)


def display_matrix(path: Path) -> tuple[int, tuple[int, ...]]:
    """Returns the offset of the matrix in the first track header, and its (a, b, c, d); see ISO/IEC 14496-12, 8.3.2."""
    content = path.read_bytes()
    header = content.index(b"tkhd") + 4
    at = header + (52 if content[header] == 1 else 40)
    a, b, _, c, d, *_ = struct.unpack(">9i", content[at : at + 36])
    return at, tuple(value >> 16 for value in (a, b, c, d))
