"""What a view looks like: crops, mirrors and colours, with their distributions and formulas."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as transforms

from cacl.config import AugmentConfig
from cacl.loaders.sampling.augmentation import (
    IDENTITY_COLOR,
    center_crop_view,
    color_matrix,
    draw_view,
    three_crop_views,
)
from cacl.loaders.sampling.rng import RandomStream
from tests.loaders.sampling.records import VIDEOS, record


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


@pytest.mark.parametrize("resize", [(0, 0), (128, 171)])
@pytest.mark.parametrize(("width", "height"), [(320, 240), (240, 320), (97, 131), (50, 50)])
def test_three_crops_lie_along_the_longer_side(width: int, height: int, resize: tuple[int, int]) -> None:
    config, video = AugmentConfig(resize=resize), record(90, width, height)
    first, centre, last = three_crop_views(video, config)
    expected = center_crop_view(video, config)
    assert (centre.top, centre.left, centre.side) == (expected.top, expected.left, expected.side)
    if any(resize):
        height, width = resize
    places = [(view.left, view.top) if width >= height else (view.top, view.left) for view in (first, centre, last)]
    assert {across for _, across in places} == {places[1][1]}
    along = [place for place, _ in places]
    assert along[0] == 0
    assert along[0] < along[1] < along[2]
    assert 0 <= max(width, height) - along[2] - centre.side < 2
    assert all(view.side == centre.side for view in (first, last))
    if not any(resize):
        assert all(view.top % 2 == view.left % 2 == 0 for view in (first, centre, last))


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
