"""Plans are pure functions of (seed, epoch, video), and say what the documentation promises."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise, permutations

import numpy as np
import pytest

from cacl.clips import ClipPlan, VideoRecord
from cacl.config import AugmentConfig, ClipConfig
from cacl.loaders.sampling.augmentation import IDENTITY_COLOR, center_crop_view
from cacl.loaders.sampling.rng import RandomStream
from cacl.loaders.sampling.sampler import (
    ClipSampler,
    consecutive_starts,
    draw_frame_order,
    evaluation_plans,
    fitting_stride,
    plans_at,
)
from tests.loaders.sampling.records import VIDEOS, record

CLIP, AUGMENT = ClipConfig(), AugmentConfig()


def sampler(videos: list[VideoRecord] = VIDEOS, clip: ClipConfig = CLIP, seed: int = 7) -> ClipSampler:
    return ClipSampler(videos, clip, AUGMENT, seed)


def facts(plan: ClipPlan) -> tuple[object, ...]:
    """Returns a plan as values that compare exactly."""
    views = tuple(
        (v.top, v.left, v.side, v.flip, v.color.tobytes(), v.color.dtype.str, v.pillow_steps) for v in plan.views
    )
    return plan.index, plan.video, plan.start, plan.stride, plan.length, plan.order, views, plan.resize


# --- The stream


def test_a_plan_is_a_pure_function() -> None:
    forward = [facts(sampler().plan(index)) for index in range(50)]
    one = sampler()
    backward = [facts(one.plan(index)) for index in reversed(range(50))]
    assert forward == backward[::-1]
    assert forward != [facts(sampler(seed=8).plan(index)) for index in range(50)]


def test_a_plan_does_not_depend_on_other_videos() -> None:
    other = [replace(v, frames=v.frames * 3, width=400) if n % 2 else v for n, v in enumerate(VIDEOS)]
    for index in range(40):
        mine, theirs = sampler().plan(index), sampler(other).plan(index)
        assert mine.video == theirs.video
        if mine.video % 2 == 0:
            assert facts(mine) == facts(theirs)


def test_each_epoch_visits_each_video_once() -> None:
    visited = [sampler().plan(index).video for index in range(11 * 20)]
    epochs = [tuple(visited[first : first + 11]) for first in range(0, len(visited), 11)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert len(set(epochs)) == 20
    starts = {video: set[int]() for video in range(11)}
    for index in range(11 * 20):
        plan = sampler().plan(index)
        starts[plan.video].add(plan.start)
    assert all(len(starts[video]) > 1 for video in range(1, 11)), "clips of a video change from epoch to epoch"


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("count", [3, 11])  # fewer than a batch, and not a multiple of one
def test_ranks_share_the_same_batches(world: int, count: int) -> None:
    """All batches are complete, too."""
    shares = [list(sampler(VIDEOS[:count]).batches(0, 9, 8, rank, world)) for rank in range(world)]
    for step, parts in enumerate(zip(*shares, strict=True)):
        assert [len(part) for part in parts] == [8 // world] * world
        together = [facts(plan) for part in parts for plan in part]
        assert together == [facts(sampler(VIDEOS[:count]).plan(index)) for index in range(8 * step, 8 * step + 8)]


def test_resuming_goes_on_identically() -> None:
    whole = [[facts(plan) for plan in batch] for batch in sampler().batches(0, 12, 4)]
    for step in range(13):
        resumed = [[facts(plan) for plan in batch] for batch in sampler().batches(step, 12, 4)]
        assert resumed == whole[step:]


# --- Which frames


@pytest.mark.parametrize("length", [2, 3, 8, 16])
@pytest.mark.parametrize("stride", [1, 2, 5])
def test_clips_lie_inside_and_short_videos_get_the_largest_stride_that_fits(length: int, stride: int) -> None:
    clip = ClipConfig(frames=length, stride=stride)
    for frames in range(length, length * stride + 10):
        video = record(frames)
        fits = [s for s in range(1, stride + 1) if (length - 1) * s < frames]
        assert fitting_stride(video, clip) == max(fits)
        starts = set()
        for index in range(40):
            numbers = sampler([video], clip).plan(index).frame_numbers
            assert len(set(numbers)) == length
            assert 0 <= numbers[0] < numbers[-1] < frames
            assert {b - a for a, b in pairwise(numbers)} == {max(fits)}
            starts.add(numbers[0])
        possible = frames - (length - 1) * max(fits)
        if possible <= 4:  # with 40 draws, one of 4 is missed with a probability below 4 * (3/4)**40 = 4e-5
            assert starts == set(range(possible))


def test_too_short_for_a_clip_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match="should not have passed the scan"):
        fitting_stride(record(15), CLIP)


def test_evaluation_clips_are_evenly_spaced() -> None:
    numbers = [4, 0, 9]
    plans = list(evaluation_plans(VIDEOS, numbers, 10, CLIP, AUGMENT))
    assert [plan.video for plan in plans] == [n for n in numbers for _ in range(10)]
    assert [plan.index for plan in plans] == [n * 10 + which for n in numbers for which in range(10)]
    for first in range(0, 30, 10):
        some = plans[first : first + 10]
        video = VIDEOS[some[0].video]
        starts = [plan.start for plan in some]
        last = video.frames - 1
        assert starts[0] == 0
        assert some[-1].frame_numbers[-1] == last
        even = np.linspace(0, last - 15 * some[0].stride, 10)
        assert np.abs(np.array(starts) - even).max() <= 0.5
        for plan in some:
            assert plan.stride == fitting_stride(video, CLIP)
            assert plan.order == tuple(range(16))
            (view,) = plan.views
            assert facts(replace(plan, views=(center_crop_view(video, AUGMENT),))) == facts(plan)
            assert not view.flip
            np.testing.assert_array_equal(view.color, IDENTITY_COLOR)
    (single,) = evaluation_plans([record(91)], [0], 1, CLIP, AUGMENT)
    assert single.start == 30  # of 0 to 60
    every = [plan.video for plan in evaluation_plans(VIDEOS, range(11), 10, CLIP, AUGMENT)]
    assert Counter(every) == dict.fromkeys(range(11), 10)


@pytest.mark.parametrize(
    ("frames", "distance", "starts"),
    [
        (96, None, [0, 32, 64]),  # a clip of 16 frames at a stride of 2 takes 32
        (95, None, [0, 32, 64]),  # whose last frame would not be looked at
        (110, None, [0, 32, 64]),  # 14 frames are less than half a clip
        (111, None, [0, 32, 64, 80]),
        (31, None, [0]),
        (20, None, [0]),  # whose stride is 1
        (32, None, [0]),
        (62, 8, [0, 8, 16, 24, 31]),
        (200, 100, [0, 100, 169]),
    ],
)
def test_a_video_is_cut_into_clips_that_follow_one_another(
    frames: int, distance: int | None, starts: list[int]
) -> None:
    video = record(frames)
    found = consecutive_starts(video, CLIP, distance)
    assert found == starts
    assert found[-1] + 15 * fitting_stride(video, CLIP) < frames


@pytest.mark.parametrize(
    ("stretch", "starts"),
    [((10, 74), [10, 42]), ((10, 41), [10]), ((20, 30), [9]), ((0, 4), [0]), ((95, 100), [69])],
)
def test_a_stretch_is_cut_likewise_and_a_short_one_has_a_clip_around_it(
    stretch: tuple[int, int], starts: list[int]
) -> None:
    assert consecutive_starts(record(100), CLIP, None, stretch) == starts


def test_plans_at_given_starts_are_those_of_an_evaluation() -> None:
    given = [(4, [3, 0]), (9, [5])]
    plans = list(plans_at(VIDEOS, given, CLIP, AUGMENT))
    assert [(plan.index, plan.video, plan.start) for plan in plans] == [(0, 4, 3), (1, 4, 0), (2, 9, 5)]
    for plan in plans:
        (other,) = evaluation_plans(VIDEOS, [plan.video], 1, CLIP, AUGMENT)
        assert facts(plan) == facts(replace(other, index=plan.index, start=plan.start))


def test_evaluation_looks_at_the_largest_crop_of_training() -> None:
    """The crop is a share of the short side, and lies in the middle."""
    video = record(width=320, height=240)
    for crop, side in {(0.5, 1.0): 240, (0.25, 0.75): 180, (0.875, 0.875): 210}.items():
        (plan,) = evaluation_plans([video], [0], 1, CLIP, AugmentConfig(crop=crop))
        (view,) = plan.views
        assert view.side == side
        assert abs(view.top + side / 2 - 120) <= 1
        assert abs(view.left + side / 2 - 160) <= 1


# --- Frame orders


def test_shuffled_orders_have_the_stated_distribution() -> None:
    """n ~ U{1..T} positions are permuted: an order that moves m positions arises from each n >= m with probability
    C(T-m, n-m) / C(T, n) / n!. All 24 orders of four frames are counted, and 49.7 is the 99.9 % quantile of chi-square.
    """
    length, samples = 4, 24_000
    seen = Counter(draw_frame_order(RandomStream(1, n), length) for n in range(samples))
    total = statistic = 0.0
    for order in permutations(range(length)):
        moved = sum(a != b for a, b in enumerate(order))
        probability = sum(
            math.comb(length - moved, n - moved) / math.comb(length, n) / math.factorial(n) / length
            for n in range(max(1, moved), length + 1)
        )
        total += probability
        statistic += (seen[order] - samples * probability) ** 2 / (samples * probability)
    assert math.isclose(total, 1)
    assert seen.keys() <= set(permutations(range(length)))
    assert statistic < 49.7


@pytest.mark.parametrize("length", [2, 3, 16])
def test_share_of_clips_left_alone(length: int) -> None:
    samples = 4000
    orders = [draw_frame_order(RandomStream(2, n), length) for n in range(samples)]
    assert all(sorted(order) == list(range(length)) for order in orders)
    identities = orders.count(tuple(range(length)))
    expected = sum(1 / math.factorial(n) for n in range(1, length + 1)) / length
    assert abs(identities / samples - expected) < 4 * math.sqrt(expected * (1 - expected) / samples)


def test_min_remaining_frames_keep_starts_from_the_end() -> None:
    clip = ClipConfig(frames=4, stride=2, min_remaining_frames=12)  # a span of 7
    for frames in (12, 13, 15):
        made = ClipSampler([record(frames)], clip, AUGMENT, 7)
        assert {made.plan(index).start for index in range(100)} == set(range(frames - 12 + 1))
        starts = {plan.start for plan in evaluation_plans([record(frames)], [0], 10, clip, AUGMENT)}
        assert max(starts) == frames - 7, "an evaluation sees all"


GOLDEN = (3, 6, 2, (11, 4, 2, 1, 5, 6, 15, 14, 0, 3, 8, 10, 12, 13, 9, 7), (4, 38, 112, True), (0, 64, 112, False))
GOLDEN_COLORS = [
    [
        [0.27917, 0.54807, 0.10644, -0.07907],
        [0.27917, 0.54807, 0.10644, -0.07907],
        [0.27917, 0.54807, 0.10644, -0.07907],
    ],
    [
        [1.44452, 0.40499, -0.37859, -0.02916],
        [-0.19791, 1.40378, 0.26505, -0.02916],
        [1.08831, -0.71649, 1.09911, -0.02916],
    ],
]
GOLDEN_EPOCH = [8, 3, 5, 10, 1, 9, 2, 7, 6, 0, 4]


def test_golden_plan() -> None:
    """A run that is resumed after an upgrade of any library must go on with the very same clips."""
    plan = sampler().plan(11 * 3 + 2)
    a, b = plan.views
    ours = (plan.video, plan.start, plan.stride, plan.order, *((v.top, v.left, v.side, v.flip) for v in (a, b)))
    assert ours == GOLDEN
    np.testing.assert_allclose([v.color for v in plan.views], GOLDEN_COLORS, rtol=0, atol=1e-5)  # written rounded
    assert [sampler().plan(index).video for index in range(11)] == GOLDEN_EPOCH
