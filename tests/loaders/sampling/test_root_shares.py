"""Several roots in one stream: each video as often as the weight of its root says, whatever the other roots are."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from cacl.clips import ClipPlan, RootShare
from cacl.config import AugmentConfig, ClipConfig
from cacl.loaders.sampling.sampler import ClipSampler
from tests.loaders.sampling.records import record

CLIP = ClipConfig(frames=4, stride=1)
SIZES = (5, 1, 8, 3)
VIDEOS = [record(40 + n, path=f"v{n}") for n in range(sum(SIZES))]
FIRST = (0, 5, 6, 14)

SHARES = {
    "one of each": SIZES,
    "whole rounds": (10, 3, 8, 9),
    "fewer than videos": (2, 1, 1, 2),
    "rounds and some": (13, 2, 5, 4),
}
"""The clips of an epoch from each root."""


def sampler(clips: tuple[int, ...], seed: int = 7) -> ClipSampler:
    return ClipSampler(VIDEOS, CLIP, AugmentConfig(), seed, shares=list(map(RootShare, SIZES, clips)))


def epochs(made: ClipSampler, count: int) -> list[list[ClipPlan]]:
    plans = map(made.plan, range(count * made.clips_per_epoch))
    return [list(islice(plans, made.clips_per_epoch)) for _ in range(count)]


def root_of(plan: ClipPlan) -> int:
    return max(root for root, first in enumerate(FIRST) if plan.video >= first)


def facts(plan: ClipPlan) -> tuple[object, ...]:
    views = tuple((v.top, v.left, v.side, v.flip, v.color.tobytes()) for v in plan.views)
    return plan.index, plan.video, plan.start, plan.stride, plan.order, views


@pytest.mark.parametrize("clips", SHARES.values(), ids=SHARES)
def test_each_epoch_has_the_share_of_each_root(clips: tuple[int, ...]) -> None:
    for epoch in epochs(sampler(clips), 12):
        assert Counter(map(root_of, epoch)) == dict(enumerate(clips))


@pytest.mark.parametrize("clips", SHARES.values(), ids=SHARES)
def test_after_any_epoch_each_video_was_visited_as_often_as_any_other_of_its_root(clips: tuple[int, ...]) -> None:
    """A root whose clips are not a multiple of its videos visits some of them once more, and the others first then."""
    visits = Counter[int]()
    for number, epoch in enumerate(epochs(sampler(clips), 24), start=1):
        visits.update(plan.video for plan in epoch)
        for first, size, share in zip(FIRST, SIZES, clips, strict=True):
            whole, more = divmod(number * share, size)
            assert (
                sorted(visits[video] for video in range(first, first + size))
                == [whole] * (size - more) + [whole + 1] * more
            )


@pytest.mark.parametrize("clips", SHARES.values(), ids=SHARES)
def test_an_epoch_visits_no_video_much_more_often_than_another_of_its_root(clips: tuple[int, ...]) -> None:
    for epoch in epochs(sampler(clips), 24):
        visits = Counter(plan.video for plan in epoch)
        for first, size, share in zip(FIRST, SIZES, clips, strict=True):
            counts = [visits[video] for video in range(first, first + size)]
            assert max(counts) <= -(-share // size) + 1  # where one round ends and the next begins
            assert min(counts) >= share // size


def test_which_videos_a_part_of_a_round_takes_changes_from_round_to_round() -> None:
    """Two of five videos at a time: every five epochs make two rounds."""
    parts = [
        frozenset(plan.video for plan in epoch if root_of(plan) == 0) for epoch in epochs(sampler((2, 1, 1, 2)), 50)
    ]
    assert len(set(parts)) > 5


def test_roots_of_weight_1_are_as_one_root() -> None:
    one = ClipSampler(VIDEOS, CLIP, AugmentConfig(), 7)
    for index in range(4 * len(VIDEOS)):
        assert facts(sampler(SIZES).plan(index)) == facts(one.plan(index))


def test_a_plan_is_a_pure_function() -> None:
    clips = SHARES["rounds and some"]
    forward = [facts(sampler(clips).plan(index)) for index in range(150)]
    one = sampler(clips)
    assert [facts(one.plan(index)) for index in reversed(range(150))] == forward[::-1]
    assert [facts(sampler(clips, seed=8).plan(index)) for index in range(150)] != forward


def test_every_visit_is_another_clip() -> None:
    plans = [plan for epoch in epochs(sampler(SHARES["whole rounds"]), 3) for plan in epoch]
    assert len({facts(plan)[1:] for plan in plans}) == len(plans)


def test_the_slots_of_roots_are_mixed() -> None:
    """The epoch is not one root after the other: in a hundred epochs, every root comes first and last."""
    ends = [(root_of(epoch[0]), root_of(epoch[-1])) for epoch in epochs(sampler(SHARES["rounds and some"]), 100)]
    assert {first for first, _ in ends} == {last for _, last in ends} == set(range(4))


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("batch_size", [6, 7])
def test_ranks_share_the_same_clips(world_size: int, batch_size: int) -> None:
    made = sampler(SHARES["rounds and some"])
    alone = [plan.index for batch in made.stretch(0, 90, batch_size) for plan in batch]
    assert alone == list(range(90))
    shares = [made.stretch(0, 90, batch_size, rank, world_size) for rank in range(world_size)]
    assert sorted(plan.index for share in shares for batch in share for plan in batch) == alone
    whole = {plan.index: facts(plan) for batch in made.stretch(0, 90, batch_size) for plan in batch}
    for rank in range(world_size):
        for batch in sampler(SHARES["rounds and some"]).stretch(0, 90, batch_size, rank, world_size):
            assert all(whole[plan.index] == facts(plan) for plan in batch)
