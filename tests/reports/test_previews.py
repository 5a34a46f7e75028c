import numpy as np
import pytest
import torch

from cacl.reports.previews import FRAMES, make_strip, strip_size
from tests.reports.strips import frames_of


def test_a_strip_has_the_frames_from_left_to_right() -> None:
    """Frame t is red in its first t rows of blocks, and blue below; WebP keeps flat colours to a few levels."""
    clip = torch.zeros(3, FRAMES, 32, 16)
    for frame in range(FRAMES):
        clip[0, frame, : 4 * frame] = 1
        clip[2, frame, 4 * frame :] = 0.5
    for number, frame in enumerate(frames_of(make_strip(clip))):
        assert frame.shape == (32, 16, 3)
        upper, lower = frame[: 4 * number], frame[4 * number :]
        assert (np.abs(upper - np.array([255.0, 0, 0])).mean() if number else 0) < 25
        assert np.abs(lower - np.array([0.0, 0, 128])).mean() < 25


@pytest.mark.parametrize(("frames", "expected"), [(16, [0, 2, 4, 6, 9, 11, 13, 15]), (4, [0, 0, 1, 1, 2, 2, 3, 3])])
def test_frames_are_taken_from_the_first_to_the_last(frames: int, expected: list[int]) -> None:
    levels = torch.arange(frames) / 15
    clip = levels.view(1, -1, 1, 1).expand(3, -1, 8, 8)
    found = [round(frame.mean() / 255 * 15) for frame in frames_of(make_strip(clip))]
    assert found == expected


def test_values_beyond_black_and_white_are_those() -> None:
    black, white = (frames_of(make_strip(torch.full((3, 2, 8, 8), value)))[0] for value in (-3.0, 3.0))
    assert black.max() <= 2
    assert white.min() >= 253


def test_more_strips_have_smaller_frames() -> None:
    assert [strip_size(count) for count in (1, 1500, 1501, 2500, 2501, 5500, 5501)] == [128, 128, 96, 96, 64, 64, 48]


def test_a_strip_that_is_too_large_loses_quality() -> None:
    """Noise is the worst of all clips; the lowest quality is taken even where it is not low enough."""
    clip = torch.rand(3, FRAMES, 64, 64, generator=torch.Generator().manual_seed(0))
    whole, least = len(make_strip(clip)), len(make_strip(clip, 0))
    assert least < 0.75 * whole
    for most_bytes in range(least, whole, 500):
        assert least <= len(make_strip(clip, most_bytes)) <= most_bytes
    assert len(make_strip(clip, whole)) == whole
    assert len(frames_of(make_strip(clip, 0))) == FRAMES
