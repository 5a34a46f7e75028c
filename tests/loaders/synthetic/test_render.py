"""Frames of the synthetic set: motions that are there, and frames that do not betray them."""

import functools
import itertools
import math

import numpy as np
import pytest

from cacl.loaders.sampling.rng import RandomStream
from cacl.loaders.synthetic.render import DEFAULT_SIZE, MOTIONS, MotionLabels, draw_speeds, motion_labels, render
from cacl.loaders.synthetic.textures import TEXTURES
from tests.loaders.synthetic.measured_motion import INNER, measure_motion, sample

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


# --- Labels of the motion

AXES = {"horizontal": ("right", "left"), "vertical": ("down", "up")}
AXES |= {"rotation": ("clockwise", "counter-clockwise"), "zoom": ("zoom-in", "zoom-out")}
"""The motion forwards and the one backwards along each axis."""
MIDDLES = {"horizontal": 1.75, "vertical": 1.75, "rotation": math.radians(3.75), "zoom": 0.0225}
"""The middles of the ranges of speeds, in points, radians and growth per frame, in videos of up to 40 frames."""


def test_two_motions_have_an_axis_in_common_if_they_are_each_others_time_reverse():
    videos = {motion: render(motion, "noise", RandomStream(6), frames=6, size=(16, 24)) for motion in MOTIONS}
    labels = {motion: motion_labels(motion, RandomStream(6)) for motion in MOTIONS}
    for one, other in itertools.permutations(MOTIONS, 2):
        reverse = np.array_equal(videos[one][::-1], videos[other])
        assert reverse == (labels[one].axis == labels[other].axis)
        if reverse:
            assert {labels[one].direction, labels[other].direction} == {"forwards", "backwards"}
            assert labels[one].speed == labels[other].speed
    for axis, (forwards, backwards) in AXES.items():
        assert labels[forwards][:2] == (axis, "forwards")
        assert labels[backwards][:2] == (axis, "backwards")


@pytest.mark.parametrize(("axis", "frames"), [*((axis, 3) for axis in AXES), ("zoom", 80)])
def test_a_video_moves_as_drawn_and_as_its_labels_say(axis: str, frames: int):
    """Without the noise of encoding. In 80 frames a zoom takes half the steps that were drawn."""
    position = list(AXES).index(axis)
    middles = np.array(list(MIDDLES.values())) * min(1, 40 / frames)
    middle, step = frames // 2, max(1, frames // 40)  # so slow a zoom is measured in every second frame
    seen = set()
    for number, (appearance, sign) in enumerate(itertools.product(APPEARANCES, (1, -1))):
        motion = AXES[axis][sign < 0]
        video = render(motion, appearance, RandomStream(26, number), frames=frames)
        measured = measure_motion(video[middle - step : middle + step + 1 : step]) / step / middles
        speed = measured[position] * sign
        assert speed == pytest.approx(draw_speeds(RandomStream(26, number))[axis] / MIDDLES[axis], abs=0.02)
        assert np.abs(np.delete(measured, position)).max() < 0.02
        assert abs(speed - 1) > 0.04  # so that the measurement decides
        labels = MotionLabels(axis, "forwards" if sign > 0 else "backwards", "fast" if speed > 1 else "slow")
        assert motion_labels(motion, RandomStream(26, number)) == labels
        seen.add(labels)
    assert len(seen) == 4


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
