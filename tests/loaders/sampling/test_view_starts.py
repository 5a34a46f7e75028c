"""Views at different moments of a video: where they start, and that nothing else about a plan changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from cacl.clips import ClipPlan, VideoRecord
from cacl.config import AugmentConfig, ClipConfig
from cacl.loaders.sampling.sampler import ClipSampler
from tests.loaders.sampling.records import VIDEOS, record

AUGMENT = AugmentConfig()


def sampler(
    apart: int, videos: Sequence[VideoRecord] = VIDEOS, views: int = 2, seed: int = 7, **clip: int
) -> ClipSampler:
    return ClipSampler(videos, ClipConfig(max_frames_apart=apart, **clip), AUGMENT, seed, views)  # type: ignore


def facts(plan: ClipPlan) -> tuple[object, ...]:
    """Everything of a plan but where its views start."""
    views = tuple((v.top, v.left, v.side, v.flip, v.color.tobytes(), v.pillow_steps) for v in plan.views)
    return plan.index, plan.video, plan.start, plan.stride, plan.length, plan.order, views, plan.resize


def starts(made: ClipSampler, count: int) -> list[tuple[int, ...]]:
    return [made.plan(index).view_starts for index in range(count)]


# --- What changes and what does not


@pytest.mark.parametrize("apart", [1, 40, 10**12])
def test_only_the_starts_of_later_views_change(apart: int) -> None:
    moved = 0
    for index in range(60):
        plain, plan = sampler(0).plan(index), sampler(apart).plan(index)
        assert plain.view_starts == ()
        assert facts(plan) == facts(plain)
        assert len(plan.view_starts) == len(plan.views) == 2
        assert plan.view_starts[0] == plan.start
        moved += plan.view_starts[1] != plan.start
    assert moved > 30


def test_starts_are_a_pure_function_of_seed_and_sample() -> None:
    forward = starts(sampler(40), 50)
    one = sampler(40)
    assert [one.plan(index).view_starts for index in reversed(range(50))] == forward[::-1]
    assert starts(sampler(40, seed=8), 50) != forward
    for world in (1, 2, 3):
        shares = [list(sampler(40).batches(0, 6, 8, rank, world)) for rank in range(world)]
        assert [plan.view_starts for step in zip(*shares, strict=True) for part in step for plan in part] == starts(
            sampler(40), 48
        )


def test_starts_do_not_depend_on_the_number_of_views() -> None:
    one, two, three = (starts(sampler(40, views=views), 50) for views in (1, 2, 3))
    assert [clip[:2] for clip in three] == two
    assert [clip[:1] for clip in three] == one
    assert sum(len(set(clip)) == 3 for clip in three) > 30


def test_the_moments_of_a_plan_are_its_views_one_by_one() -> None:
    plan = sampler(40).plan(3)
    first, second = plan.moments
    assert first.start != second.start
    for moment, start, view in zip(plan.moments, plan.view_starts, plan.views, strict=True):
        assert list(moment.frame_numbers) == [start + number * plan.stride for number in range(plan.length)]
        assert moment.views == (view,)
        assert moment.moments == (moment,)
        same = ("index", "video", "stride", "length", "order", "resize")
        assert all(getattr(moment, name) == getattr(plan, name) for name in same)
    (alone,) = sampler(0).plan(3).moments
    assert len(alone.views) == 2


# --- Which starts are drawn


def test_any_start_within_the_distance_is_as_likely_as_any_other() -> None:
    """A clip spans 7 frames, so one of 21 starts at 0 to 14. For each start of the first view, those of the second are
    counted: 122.3 is the 99.9 % quantile of chi-square with 78 degrees of freedom, and 36.1 that with 14.
    """
    apart, last, samples = 3, 14, 3000
    seen = Counter(starts(sampler(apart, [record(21)], frames=4), samples))
    firsts = Counter[int]()
    for (first, _), count in seen.items():
        firsts[first] += count
    assert sum((firsts[first] - samples / 15) ** 2 / (samples / 15) for first in range(15)) < 36.1
    possible = {first: range(max(0, first - apart), min(last, first + apart) + 1) for first in range(15)}
    assert all(second in possible[first] for first, second in seen)
    assert sum(map(len, possible.values())) == 93
    statistic = 0.0
    for first, seconds in possible.items():
        expected = firsts[first] / len(seconds)
        statistic += sum((seen[first, second] - expected) ** 2 / expected for second in seconds)
    assert statistic < 122.3


@pytest.mark.parametrize("apart", [4, 10**12])
def test_with_the_length_of_the_video_the_moments_are_independent(apart: int) -> None:
    """One of 11 frames starts at 0 to 4. 51.2 is the 99.9 % quantile of chi-square with 24 degrees of freedom."""
    seen = Counter(starts(sampler(apart, [record(11)], frames=4), 1000))
    assert sum((seen[first, second] - 40) ** 2 / 40 for first in range(5) for second in range(5)) < 51.2
    assert len(seen) == 25


def test_every_view_is_within_the_video() -> None:
    made = sampler(25, views=3)
    for index in range(100):
        plan = made.plan(index)
        for moment in plan.moments:
            assert moment.start >= 0
            assert moment.frame_numbers[-1] < VIDEOS[plan.video].frames
            assert abs(moment.start - plan.start) <= 25


def test_a_video_with_room_for_one_clip_shows_the_same_moment_twice() -> None:
    for frames in (4, 5, 6, 7):  # up to the span of a clip of stride 2; shorter ones have a smaller stride
        made = sampler(40, [record(frames)], frames=4)
        room = frames - 3 * min(2, (frames - 1) // 3)
        assert {second for _, second in starts(made, 60)} == set(range(room))
    assert set(starts(sampler(40, [record(7)], frames=4), 60)) == {(0, 0)}
    assert set(starts(sampler(40, [record(12)], frames=4, min_remaining_frames=12), 60)) == {(0, 0)}
    assert set(starts(sampler(40, [record(13)], frames=4, min_remaining_frames=12), 60)) == {
        (first, second) for first in (0, 1) for second in (0, 1)
    }


def test_golden_starts() -> None:
    """A run that is resumed after an upgrade of any library must go on with the very same clips."""
    expected = [(38, 39, 13), (1, 6, 6), (20, 8, 16), (55, 16, 44), (7, 1, 0), (34, 18, 44)]
    assert starts(sampler(40, views=3), 6) == expected
