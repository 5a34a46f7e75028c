"""Plans are pure functions of (seed, epoch, video), and say what the documentation promises."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as transforms

from cacl.clips import ClipPlan, VideoRecord
from cacl.config import AugmentConfig, ClipConfig
from cacl.loaders.sampling.augmentation import IDENTITY_COLOR, center_crop_view, color_matrix, draw_view
from cacl.loaders.sampling.rng import RandomStream
from cacl.loaders.sampling.sampler import ClipSampler, draw_frame_order, evaluation_plans, fitting_stride

CLIP, AUGMENT = ClipConfig(), AugmentConfig()


def record(frames: int = 90, width: int = 320, height: int = 240, path: str = "v") -> VideoRecord:
    return VideoRecord(
        path=path, frames=frames, declared_frames=frames, rate=25, width=width, height=height, codec="h264"
    )


VIDEOS = [record(16 + 7 * n, 161 + 10 * n, 120 + 3 * n, path=f"v{n}") for n in range(11)]


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


# --- What a view looks like


@pytest.mark.parametrize(("width", "height"), [(320, 240), (321, 241), (97, 131), (50, 50), (17, 16), (3, 2)])
@pytest.mark.parametrize("crop", [(0.875, 0.875), (0.5, 1.0), (1.0, 1.0), (0.01, 0.02)])
def test_crops_are_even_and_inside(width: int, height: int, crop: tuple[float, float]) -> None:
    config, video = AugmentConfig(crop=crop), record(90, width, height)
    drawn = [draw_view(RandomStream(3, n), video, config) for n in range(300)]
    for view in [*drawn, center_crop_view(video, config)]:
        assert view.top % 2 == view.left % 2 == view.side % 2 == 0
        assert view.top >= 0
        assert view.left >= 0
        assert view.top + view.side <= height
        assert view.left + view.side <= width
        short = min(width, height)
        assert max(2, crop[0] * short - 2) <= view.side <= max(2, crop[1] * short)
    center = center_crop_view(video, config)
    assert 0 <= (height - center.side) - 2 * center.top < 4
    assert 0 <= (width - center.side) - 2 * center.left < 4
    if crop[0] == crop[1]:  # every even place is reached: at most 74 of them, each drawn at least once in 3000
        many = [draw_view(RandomStream(4, n), video, config) for n in range(3000)]
        assert {view.top for view in many} == set(range(0, height - center.side + 1, 2))


def test_every_place_of_a_crop_is_as_likely() -> None:
    """The last position counts, too.

    20.5 and 31.3 are the 99.9 % quantiles of chi-square for 5 and 11 degrees of freedom.
    """
    config, video = AugmentConfig(crop=(0.875, 0.875)), record(90, 92, 80)
    views = [draw_view(RandomStream(6, n), video, config) for n in range(4000)]
    for places, last, quantile in (([v.top for v in views], 10, 20.5), ([v.left for v in views], 22, 31.3)):
        seen, possible = Counter(places), range(0, last + 1, 2)
        expected = len(views) / len(possible)
        assert seen.keys() == set(possible)
        assert sum((seen[edge] - expected) ** 2 / expected for edge in possible) < quantile


def test_the_middle_of_a_resized_frame_is_that_of_torchvision() -> None:
    """The size of the frame before it was resized does not matter."""
    for height, width in ((128, 171), (127, 170), (112, 113), (131, 112), (130, 130)):
        side = int(0.875 * min(height, width)) // 2 * 2
        config = AugmentConfig(resize=(height, width), crop=(0.5, 0.875))
        numbers = torch.arange(height * width).view(1, height, width)
        expected = transforms.center_crop(numbers, [side, side])
        view = center_crop_view(record(90, 97, 131), config)
        assert view.side == side
        cut = numbers[:, view.top : view.top + side, view.left : view.left + side]
        assert torch.equal(cut, expected), (height, width)


def test_the_window_keeps_starts_from_the_end() -> None:
    clip = ClipConfig(frames=4, stride=2, min_remaining_frames=12)  # a span of 7
    for frames in (12, 13, 15):
        made = ClipSampler([record(frames)], clip, AUGMENT, 7)
        assert {made.plan(index).start for index in range(100)} == set(range(frames - 12 + 1))
        starts = {plan.start for plan in evaluation_plans([record(frames)], [0], 10, clip, AUGMENT)}
        assert max(starts) == frames - 7, "an evaluation sees all"


def test_pillows_jitter_takes_the_same_draws() -> None:
    """The steps have the factors that the matrix is made of, in an order of their own. A strength of 0 is no step."""
    linear, pillow = (
        AugmentConfig(color_jitter_prob=0.7, grayscale_prob=0.3, color_arithmetic=form) for form in ("linear", "pillow")
    )
    for number in range(50):
        matrix, jitter = (draw_view(RandomStream(7, number), VIDEOS[0], config) for config in (linear, pillow))
        assert (matrix.top, matrix.left, matrix.flip) == (jitter.top, jitter.left, jitter.flip)
        np.testing.assert_array_equal(matrix.color, color_matrix(**dict(jitter.pillow_steps)))
        np.testing.assert_array_equal(jitter.color, IDENTITY_COLOR)
        assert matrix.pillow_steps == ()
    none = AugmentConfig(color_jitter_prob=1.0, grayscale_prob=0.0, hue=0.0, contrast=0.0, color_arithmetic="pillow")
    views = [draw_view(RandomStream(8, number), VIDEOS[0], none) for number in range(20)]
    drawn = {name for view in views for name, _ in view.pillow_steps}
    assert drawn == {"brightness", "saturation"}


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 1.0])
def test_flips_jitter_and_grey_come_with_their_probability(p: float) -> None:
    samples = 1500
    config = AugmentConfig(flip_prob=p, color_jitter_prob=p, grayscale_prob=0.0)
    views = [draw_view(RandomStream(5, n), VIDEOS[0], config) for n in range(samples)]
    spread = 4 * math.sqrt(p * (1 - p) / samples)
    assert abs(np.mean([view.flip for view in views]) - p) <= spread
    plain = [np.allclose(view.color, IDENTITY_COLOR, atol=1e-6) for view in views]
    assert abs(1 - np.mean(plain) - p) <= spread
    greys = [draw_view(RandomStream(5, n), VIDEOS[0], AugmentConfig(grayscale_prob=p)) for n in range(samples)]
    is_grey = [np.allclose(view.color[0], view.color[1:], atol=1e-5) for view in greys]
    assert abs(np.mean(is_grey) - p) <= spread


# --- Colours

RGB = np.random.default_rng(0).uniform(0.2, 0.8, (500, 3))
STEPS = [
    (1.0, 1.0, 1.0, 0.0),
    (0.6, 1.0, 1.0, 0.0),
    (1.0, 1.4, 1.0, 0.0),
    (1.0, 1.0, 1.4, 0.0),
    (1.0, 1.0, 1.0, 0.1),
    (1.0, 1.0, 1.0, -0.5),
    (1.3, 0.7, 1.2, -0.07),
    (0.7, 1.35, 0.0, 0.1),
]


def luma(rgb: np.ndarray) -> np.ndarray:
    return 0.299 * rgb[..., 0] + 0.587 * rgb[..., 1] + 0.114 * rgb[..., 2]


def step_by_step(rgb: np.ndarray, brightness: float, contrast: float, saturation: float, hue: float) -> np.ndarray:
    rgb = rgb * brightness
    rgb = (rgb - 0.5) * contrast + 0.5
    grey = luma(rgb)[:, None]
    rgb = grey + saturation * (rgb - grey)
    i = 0.5959 * rgb[:, 0] - 0.2746 * rgb[:, 1] - 0.3213 * rgb[:, 2]
    q = 0.2115 * rgb[:, 0] - 0.5227 * rgb[:, 1] + 0.3112 * rgb[:, 2]
    turned = (i + 1j * q) * np.exp(2j * np.pi * hue)
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    return np.linalg.solve(to_yiq, np.stack([luma(rgb), turned.real, turned.imag])).T


def colored(rgb: np.ndarray, **change: float) -> np.ndarray:
    matrix = color_matrix(**change).astype(np.float64)
    return rgb @ matrix[:, :3].T + matrix[:, 3]


@pytest.mark.parametrize(("brightness", "contrast", "saturation", "hue"), STEPS)
def test_the_matrix_is_the_four_steps(brightness: float, contrast: float, saturation: float, hue: float) -> None:
    ours = colored(RGB, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue)
    theirs = step_by_step(RGB, brightness, contrast, saturation, hue)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)  # four float32 terms below 4, each rounded to 2**-24


@pytest.mark.parametrize("hue", [-0.5, -0.1, 0.03, 0.1, 0.25])
def test_hue_and_grey_keep_luma(hue: float) -> None:
    np.testing.assert_allclose(luma(colored(RGB, hue=hue)), luma(RGB), atol=1e-6)
    grey = colored(RGB, saturation=0.0, hue=hue)
    np.testing.assert_allclose(grey, np.tile(luma(RGB)[:, None], 3), atol=1e-6)
    np.testing.assert_allclose(colored(colored(RGB, hue=hue), hue=-hue), RGB, atol=1e-6)


@pytest.mark.parametrize("saturation", [0.0, 0.6, 1.2])
def test_saturation_is_that_of_torchvision(saturation: float) -> None:
    """torchvision weighs red by 0.2989, so that grey differs by up to 0.0001."""
    image = torch.from_numpy(RGB.T.reshape(3, 25, 20).copy())
    theirs = transforms.adjust_saturation(image, saturation).reshape(3, -1).T.numpy()
    inside = ((theirs > 0) & (theirs < 1)).all(1)
    assert inside.mean() > 0.8
    ours = colored(RGB, saturation=saturation)
    np.testing.assert_allclose(ours[inside], theirs[inside], rtol=0, atol=1e-4 * abs(1 - saturation) + 1e-6)


def test_brightness_and_contrast_follow_their_formulas() -> None:
    np.testing.assert_allclose(colored(RGB, brightness=0.7), 0.7 * RGB, atol=1e-6)
    np.testing.assert_allclose(colored(RGB, contrast=1.3), 0.5 + 1.3 * (RGB - 0.5), atol=1e-6)


# --- What must never change


@pytest.mark.parametrize("n", [0, 1, 2, 3, 16, 257, 5000])
def test_a_permutation_is_drawn_as_if_one_by_one(n: int) -> None:
    at_once, one_by_one = RandomStream(5, n), RandomStream(5, n)
    order = list(range(n))
    for last in range(n - 1, 0, -1):
        other = one_by_one.integer(0, last + 1)
        order[last], order[other] = order[other], order[last]
    assert at_once.permutation(n) == order
    assert sorted(order) == list(range(n))
    assert at_once.integer(0, 2**50) == one_by_one.integer(0, 2**50), "what is drawn next is the same too"


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
