"""From YUV planes to a view, against float64.

The compiled code checks no bounds. So planes lie between other bytes here, and views between NaN, and each result shows
whether anything was read or written that should not have been.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cacl.clips import ViewPlan
from cacl.loaders.backends.cpu import compose_color
from cacl.loaders.backends.yuv_to_rgb_resize import planes_to_view
from cacl.loaders.decode.yuv import yuv_to_rgb_matrix
from cacl.loaders.sampling.augmentation import IDENTITY_COLOR, color_matrix

STRONG, GREY = color_matrix(brightness=1.4, contrast=0.6, saturation=1.4, hue=-0.1), color_matrix(saturation=0.0)
MATRICES = [
    compose_color(color, yuv_to_rgb_matrix(standard, full))
    for color, standard, full in ((IDENTITY_COLOR, 5, False), (STRONG, 1, True), (GREY, 9, False))
]


def noise(draw: np.random.Generator, *shape: int) -> np.ndarray:
    """Returns contiguous uint8 of all values, with other such bytes before and behind it."""
    numbers = int(np.prod(shape))
    return draw.integers(0, 256, numbers + 4000, np.uint8)[2000:-2000].reshape(shape)


def addresses(luma: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """Returns where uint8 [T, H, W] and [2, T, H/2, W/2] lie, int64 [T, 3, 2]."""
    frames = zip(luma, *chroma, strict=True)
    return np.array([[(plane.ctypes.data, plane.strides[0]) for plane in frame] for frame in frames])


def check(
    *,
    side: int,
    size: int,
    frames: int = 2,
    top: int = 0,
    left: int = 0,
    below: int = 0,
    right: int = 0,
    flip: bool,
    which: int,
) -> None:
    """Compares a crop with so many pixels around it.

    Half precision rounds by 2**-11 of a value; sums in float32 of the terms that resizing takes, and of a few more, by
    2**-24 of the largest for each.
    """
    draw = np.random.default_rng(1000 * side + size + frames)
    height, width, matrix = top + side + below, left + side + right, MATRICES[which % len(MATRICES)]
    luma = noise(draw, frames, height, width + 13)[..., :width]  # Decoders pad their rows.
    chroma = noise(draw, 2, frames, -(-height // 2), -(-width // 2) + 6)[..., : -(-width // 2)]
    given = luma.copy(), chroma.copy()
    around = torch.full((frames + 2, 3, frames, size, size), torch.nan, dtype=torch.float16)
    out = around[1]
    view = ViewPlan(top=top, left=left, side=side, flip=flip, color=IDENTITY_COLOR)
    planes_to_view(addresses(luma, chroma), matrix, view, out.numpy())
    y = resized(luma[None, :, top : top + side, left : left + side], size)
    up, across = top // 2, left // 2
    uv = resized(chroma[:, :, up : up + side // 2, across : across + side // 2], size)
    true = torch.einsum("rc,cthw->rthw", torch.from_numpy(matrix[:, :3]), torch.cat([y, uv]))
    true += torch.from_numpy(matrix[:, 3])[:, None, None, None]
    true = true.flip(-1) if flip else true
    terms = 4 * (2 * max(1, side / size) + 2) + 8
    largest = 255 * np.abs(matrix[:, :3]).sum(1).max() + np.abs(matrix[:, 3]).max()
    torch.testing.assert_close(out.double(), true, rtol=2**-11, atol=float(largest) * terms * 2**-24)
    assert int(around.isnan().sum()) == around.numel() - out.numel()
    assert np.array_equal(luma, given[0])
    assert np.array_equal(chroma, given[1])


def resized(planes: np.ndarray, size: int) -> Tensor:
    source = torch.from_numpy(planes.astype(np.float64))
    return F.interpolate(source, (size, size), mode="bilinear", antialias=planes.shape[-1] > size)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("frames", range(1, 10))
def test_every_number_of_frames(frames: int, flip: bool) -> None:
    for which, side in enumerate((16, 18, 26)):
        check(side=side, size=16, frames=frames, top=2, left=4, flip=flip, which=which)


@pytest.mark.parametrize("size", [2, 4, 6, *range(16, 113, 2)])
def test_crops_of_the_size_of_the_view(size: int) -> None:
    """Some of them have a half that is odd."""
    for which in range(3):
        check(side=size, size=size, top=6, left=10, below=4, right=2, flip=which == 1, which=which)
        check(side=size, size=size, flip=which != 1, which=which)


@pytest.mark.parametrize("size", [16, 17, 31, 32, 57, 112])
@pytest.mark.parametrize("side", [2, 6, 16, 18, 30, 34, 62, 98, 110, 114, 128, 300])
def test_crops_of_other_sizes(side: int, size: int) -> None:
    check(side=side, size=size, top=2, left=8, below=6, right=4, flip=False, which=side)
    check(side=side, size=size, flip=True, which=size)


@pytest.mark.parametrize("size", [18, 24])
def test_planes_with_odd_edges(size: int) -> None:
    for below, right in ((1, 0), (0, 1), (1, 1), (3, 5)):
        check(side=18, size=size, top=4, left=2, below=below, right=right, flip=False, which=right)


def test_crops_at_the_corners() -> None:
    for top, left in ((0, 0), (0, 14), (14, 0), (14, 14)):
        for size in (18, 30, 12):
            check(side=18, size=size, top=top, left=left, below=14 - top, right=14 - left, flip=bool(top), which=1)


def test_extremes_do_not_wrap() -> None:
    """Nothing is clamped, so that all that half precision holds is there."""
    out = np.full((3, 1, 16, 16), np.nan, np.float16)
    view = ViewPlan(top=0, left=0, side=16, flip=False, color=IDENTITY_COLOR)
    matrix = np.array([[200.0, 0, 0, 0], [0, -200, 0, 0], [0, 0, 2**-20, 0]])
    for y, u, v in ((255, 255, 255), (0, 0, 0), (255, 0, 1)):
        luma, chroma = np.full((1, 16, 16), y, np.uint8), np.full((2, 1, 8, 8), u, np.uint8)
        chroma[1] = v
        planes_to_view(addresses(luma, chroma), matrix, view, out)
        assert (out == np.array([200 * y, -200 * u, v * 2**-20], np.float16)[:, None, None, None]).all()


def test_several_threads() -> None:
    """The threads meet sizes of crops that none of them has met before."""
    sides = list(range(20, 60, 2)) * 2

    def work(side: int) -> None:
        check(side=side, size=24, top=2, flip=bool(side % 4), which=side)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, sides))
