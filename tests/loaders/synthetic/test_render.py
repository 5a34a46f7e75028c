"""Frames of the synthetic set: motions that are there, and frames that do not betray them."""

import functools
import itertools
import math

import numpy as np
import pytest

from cacl.loaders.sampling.rng import RandomStream
from cacl.loaders.synthetic.render import DEFAULT_SIZE, MOTIONS, render
from cacl.loaders.synthetic.textures import TEXTURES

OPPOSITES = [("left", "right"), ("up", "down"), ("clockwise", "counter-clockwise"), ("zoom-in", "zoom-out")]
APPEARANCES = list(TEXTURES)


# --- One frame says nothing


@pytest.mark.parametrize("appearance", APPEARANCES)
@pytest.mark.parametrize(("motion", "opposite"), OPPOSITES)
def test_the_videos_of_a_pair_are_each_others_time_reverse(motion: str, opposite: str, appearance: str):
    for number in range(3):
        forward = render(motion, appearance, RandomStream(0, number), frames=8, size=(32, 40))
        backward = render(opposite, appearance, RandomStream(0, number), frames=8, size=(32, 40))
        np.testing.assert_array_equal(forward[::-1], backward)


@pytest.mark.parametrize("appearance", APPEARANCES)
def test_still_scales_are_the_scales_of_a_zoom(appearance: str):
    """With the same random numbers, all motions but zooms share their middle frame, which a zoom has, too."""
    frames, seen = 5, set()
    for number in range(40):
        videos = {
            motion: render(motion, appearance, RandomStream(1, number), frames=frames, size=(16, 24))
            for motion in MOTIONS
        }
        middle = videos["left"][frames // 2]
        for motion in ("right", "up", "down", "clockwise", "counter-clockwise"):
            np.testing.assert_array_equal(videos[motion][frames // 2], middle)
        seen.add(next(t for t in range(frames) if np.array_equal(videos["zoom-in"][t], middle)))
    assert seen == set(range(frames))


# --- Every motion is there


@functools.cache
def origins(motion: str, amount: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns where the content of each pixel was one frame ago (column, row), from the definition of a motion.

    The amount is in points, degrees or growth; y points down.
    """
    height, width = DEFAULT_SIZE
    x = np.arange(width)[None, :] - (width - 1) / 2 + np.zeros((height, 1))
    y = np.arange(height)[:, None] - (height - 1) / 2 + np.zeros((1, width))
    cos, sin, grown = math.cos(math.radians(amount)), math.sin(math.radians(amount)), math.exp(amount)
    from_x, from_y = {
        "left": (x + amount, y),
        "right": (x - amount, y),
        "up": (x, y + amount),
        "down": (x, y - amount),
        "clockwise": (cos * x + sin * y, -sin * x + cos * y),
        "counter-clockwise": (cos * x - sin * y, sin * x + cos * y),
        "zoom-in": (x / grown, y / grown),
        "zoom-out": (x * grown, y * grown),
    }[motion]
    return (from_x + (width - 1) / 2)[INNER], (from_y + (height - 1) / 2)[INNER]


def sample(images: np.ndarray, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Interpolates images [N, H, W] bilinearly at positions [h, w], which gives [N, h, w]."""
    left, top = np.floor(column).astype(int), np.floor(row).astype(int)
    right_share, lower_share = (column - left).astype(np.float32), (row - top).astype(np.float32)
    upper = images[:, top, left] * (1 - right_share) + images[:, top, left + 1] * right_share
    lower = images[:, top + 1, left] * (1 - right_share) + images[:, top + 1, left + 1] * right_share
    return upper * (1 - lower_share) + lower * lower_share


INNER = np.s_[8:-8, 8:-8]
AMOUNTS = {
    **dict.fromkeys(("left", "right", "up", "down"), (1.0, 1.5, 2.0, 2.5)),
    **dict.fromkeys(("clockwise", "counter-clockwise"), (2.5, 3.3, 4.2, 5.0)),
    **dict.fromkeys(("zoom-in", "zoom-out"), (0.015, 0.02, 0.025, 0.03)),
}


@pytest.mark.parametrize("appearance", APPEARANCES)
def test_each_motion_explains_its_own_videos_best(appearance: str):
    for motion, number in itertools.product(MOTIONS, range(2)):
        video = render(motion, appearance, RandomStream(2, number)).mean(axis=-1, dtype=np.float32)
        before, after = video[3:-1:12], video[4::12, *INNER]
        errors = {
            guess: min(np.square(sample(before, *origins(guess, amount)) - after).mean() for amount in amounts)
            for guess, amounts in AMOUNTS.items()
        }
        best, second = sorted(errors, key=errors.__getitem__)[:2]
        assert best == motion, (number, errors)
        assert errors[best] < errors[second] / 2, (motion, number, errors)


# --- What is drawn


@pytest.mark.parametrize("appearance", APPEARANCES)
def test_colours_contrast_and_differ_between_videos(appearance: str):
    videos = [render("left", appearance, RandomStream(4, number), frames=1) for number in range(8)]
    lumas = [video @ np.array([0.299, 0.587, 0.114]) for video in videos]
    assert all(np.ptp(luma) > 60 for luma in lumas)
    means = np.array([video.mean(axis=(0, 1, 2)) for video in videos])
    assert means.std(axis=0).mean() > 20


def test_a_larger_frame_shows_the_same():
    small = render("clockwise", "noise", RandomStream(5), frames=3, size=(80, 96))
    large = render("clockwise", "noise", RandomStream(5), frames=3, size=(240, 288))
    np.testing.assert_allclose(large[:, 1::3, 1::3].astype(int), small, atol=1)
