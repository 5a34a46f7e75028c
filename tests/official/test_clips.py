"""The clips of the recipe against those of the release: random draws, starts, and the frames of an evaluation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cacl.loaders.sampling.sampler import ClipSampler, evaluation_plans
from cacl.reporting.console import Console
from cacl.training.training_videos import find_training_videos
from tests.official import release
from tests.official.second_implementation import (
    jitter_of,
    recipe,
    record,
)


def chi_square(seen: Counter[Any], values: Sequence[Any]) -> float:
    """Returns how many standard deviations the statistic for equal probabilities lies above its mean."""
    assert seen.keys() <= set(values)
    expected = sum(seen.values()) / len(values)
    statistic = sum((seen[value] - expected) ** 2 / expected for value in values)
    return (statistic - (len(values) - 1)) / math.sqrt(2 * (len(values) - 1))


def test_draws_have_the_distributions_of_the_release() -> None:
    config, samples = recipe(), 3000
    sampler = ClipSampler([record(50)], config.clip, config.augment, seed=3)
    plans = [sampler.plan(index) for index in range(samples)]
    views = [view for plan in plans for view in plan.views]
    assert all(plan.frame_numbers == range(plan.start, plan.start + 31, 2)[:16] for plan in plans)
    assert chi_square(Counter(plan.start for plan in plans), release.starts(50)) < 4
    assert chi_square(Counter(view.top for view in views), range(128 - 112 + 1)) < 4
    assert chi_square(Counter(view.left for view in views), range(171 - 112 + 1)) < 4
    assert {view.side for view in views} == {112}
    assert {plan.resize for plan in plans} == {(128, 171)}

    jitters = [jitter_of(view.pillow_steps) for view in views]
    orders = Counter(tuple(name for name, _ in jitter) for jitter, _ in jitters if jitter)
    assert chi_square(orders, list(permutations(("brightness", "contrast", "saturation", "hue")))) < 4
    for event, share in (
        ([view.flip for view in views], 0.5),
        ([bool(jitter) for jitter, _ in jitters], 0.8),
        ([grey for _, grey in jitters], 0.2),
    ):
        assert abs(np.mean(event) - share) < 4 * math.sqrt(share * (1 - share) / len(views))
    for name, low, high in (
        ("brightness", 0.6, 1.4),
        ("contrast", 0.6, 1.4),
        ("saturation", 0.6, 1.4),
        ("hue", -0.1, 0.1),
    ):
        factors = np.array([factor for jitter, _ in jitters for step, factor in jitter if step == name])
        ranks = (np.sort(factors) - low) / (high - low)
        # Kolmogorov and Smirnov: beyond 1.95 / sqrt(n) with a probability of 0.1 %
        assert np.abs(ranks - (np.arange(len(ranks)) + 0.5) / len(ranks)).max() < 1.95 / math.sqrt(len(ranks)), name


@pytest.mark.parametrize("length", [46, 47, 60])
def test_every_start_is_drawn_and_no_other(length: int) -> None:
    config = recipe()
    sampler = ClipSampler([record(length)], config.clip, config.augment, seed=1)
    assert {sampler.plan(index).start for index in range(250)} == set(release.starts(length))


def test_shorter_videos_are_left_out(make_video: Callable[..., Path], tmp_path: Path) -> None:
    lengths = (30, 45, 46, 47)
    for length in lengths:
        make_video(tmp_path / f"videos/{length}.mp4", frames=length, size=(32, 32))
    settings = {"root": tmp_path / "videos", "cache": tmp_path / "cache", "layout": "folder", "max_rejected_share": 0.5}
    config = recipe(*(f"data.{key}={value}" for key, value in settings.items()))
    found = find_training_videos(config, Console(enabled=False), None)
    assert [video.path for video in found.videos] == [f"{n}.mp4" for n in lengths if release.starts(n)]


@pytest.mark.parametrize("stride", [2, 4])
def test_evaluation_sees_the_frames_of_the_release(stride: int) -> None:
    config = recipe(f"clip.stride={stride}", "clip.min_remaining_frames=0")
    retrieval = config.retrieval
    for length in (*range(16, 70), 100, 179, 300, 1001):
        plans = evaluation_plans(
            [record(length)], [0], retrieval.clips_per_video, config.clip, config.augment, retrieval.clip_starts
        )
        expected = release.evaluation_frames(length, interval=stride)
        assert [list(plan.frame_numbers) for plan in plans] == expected, length
