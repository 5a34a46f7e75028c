"""The `cpu` backend against the reference, against the pictures that were encoded, and against float64.

A lossless file may cost this many levels: rounding Y, U and V moves blue of BT.2020 by up to
255/219/2 + 1.8814 * 255/224/2 = 1.65 levels, half precision by 0.06 more, and averaging chroma over 2 x 2 pixels of
the slow gradients here by some 0.1. The reference rounds once more, to 8-bit RGB, and interpolates chroma otherwise.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cacl.clips import ClipPlan, ViewPlan
from cacl.config import AugmentConfig, ClipConfig, Config, LoaderConfig
from cacl.loaders.backends import cpu, reference
from cacl.loaders.backends.select import build_backend
from cacl.loaders.decode.probe import probe
from cacl.loaders.sampling.augmentation import IDENTITY_COLOR, color_matrix
from cacl.loaders.sampling.sampler import ClipSampler, evaluation_plans
from tests.loaders.backends.clips import (
    COLOR,
    CPU,
    LEVEL,
    WEIGHTS,
    catalog,
    check,
    gradients,
    load,
    plan,
    save,
    truth,
    view,
)

PLAIN = plan(view(4, 10, 48), view(0, 2, 48, flip=True))
COLORED = plan(view(4, 10, 48, flip=True, color=COLOR), view(8, 0, 40, color=color_matrix(saturation=0.0)), start=0)


@pytest.mark.parametrize("size", [48, 32, 64])
@pytest.mark.parametrize(
    ("frame", "pixels", "matrix", "full"),
    [
        ((96, 64), "yuv420p", 5, False),
        ((96, 64), "yuv420p", 1, False),
        ((96, 64), "yuv420p", 9, False),
        ((96, 64), "yuvj420p", 5, True),
        ((96, 64), "yuvj420p", 1, True),
        ((97, 65), "yuv420p", 5, False),
        ((97, 65), "yuv420p", 1, False),
        ((97, 65), "yuv420p", 5, True),  # VP9: full range, though its pixel format does not say so
        ((97, 65), "yuv420p", 1, True),
    ],
)
def test_cpu_and_reference_show_the_encoded_pictures(
    tmp_path: Path, frame: tuple[int, int], pixels: str, matrix: int, full: bool, size: int
) -> None:
    rgb = gradients(frame)
    video = save(tmp_path / "video.mkv", rgb, pixels, matrix, full)
    true = truth(rgb, PLAIN, size)
    ours, theirs = load(cpu.load_clip, video, PLAIN, size), load(reference.load_clip, video, PLAIN, size)
    check(ours, true, mean=0.5, largest=2.0)
    check(theirs, true, mean=0.6, largest=2.5)
    check(ours, theirs, mean=0.5, largest=2.5)
    # Colours stretch every error by the largest absolute sum of a row of the matrix.
    stretch = max(float(np.abs(v.color[:, :3]).sum(1).max()) for v in COLORED.views)
    ours, theirs = load(cpu.load_clip, video, COLORED, size), load(reference.load_clip, video, COLORED, size)
    check(ours, truth(rgb, COLORED, size), mean=0.5 * stretch, largest=2.0 * stretch)
    check(ours, theirs, mean=0.5 * stretch, largest=2.5 * stretch)


@pytest.mark.parametrize(
    ("pixels", "matrix", "full"),
    [
        ("yuv420p10le", 5, False),
        ("yuv420p10le", 5, True),
        ("yuv420p10le", 1, False),
        ("yuv420p10le", 9, False),
        ("yuv444p", 5, False),
        ("yuv444p", 1, False),
        ("yuvj444p", 5, True),
        ("yuvj444p", 1, True),
        ("rgb24", 0, True),
    ],
)
def test_other_pixels_are_converted_truly(tmp_path: Path, pixels: str, matrix: int, full: bool) -> None:
    """The conversion to 8-bit 4:2:0 rounds once more than a file that holds it, but has no bias."""
    rgb = gradients((96, 64))
    video = save(tmp_path / "video.mkv", rgb, pixels, matrix, full)
    true = truth(rgb, PLAIN, 48)
    check(load(reference.load_clip, video, PLAIN, 48), true, mean=0.6, largest=2.5, bias=0.3)
    check(load(cpu.load_clip, video, PLAIN, 48), true, mean=1.0, largest=4.0, bias=0.5)


@pytest.mark.parametrize("frame", [(96, 72), (97, 71)])
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotated_pictures(tmp_path: Path, frame: tuple[int, int], rotation: int) -> None:
    """With an odd edge, turning shifts chroma by half of its pixel against luma; in soft colours that is little."""
    rgb = gradients(frame)
    shown = np.rot90(rgb, rotation // 90, axes=(2, 3))
    video = save(tmp_path / "video.mkv", rgb)
    video = replace(video, rotation=rotation, width=shown.shape[3], height=shown.shape[2])
    true = truth(shown, PLAIN, 32)
    check(load(reference.load_clip, video, PLAIN, 32), true, mean=0.6, largest=2.5)
    check(load(cpu.load_clip, video, PLAIN, 32), true, mean=0.6, largest=2.5)


@pytest.mark.parametrize(
    ("name", "views"), [("reference", "dali"), ("cpu", "dali"), ("dali", "dali"), ("dali", "triton")]
)
@pytest.mark.parametrize("frame", [(2, 2), (3, 2), (2, 3), (3, 3), (5, 7), (64, 2)])
def test_the_smallest_videos(tmp_path: Path, frame: tuple[int, int], name: str, views: str) -> None:
    """Any crop of them is a few pixels, so that twice as many rows or columns would be something else."""
    if name == "dali":
        pytest.importorskip("nvidia.dali")
    rgb = gradients(frame)
    videos = catalog(save(tmp_path / "video.mkv", rgb, "yuv444p"))
    clip = ClipConfig(frames=4, size=16)
    config = Config(clip=clip, loader=LoaderConfig(backend=name, dali_views=views, threads=1))  # pyright: ignore[reportArgumentType]
    plans = list(evaluation_plans(videos.videos, [0], 2, clip, AugmentConfig(crop=(0.01, 1.0))))
    (batch,) = build_backend(name, videos, config, CPU).batches([plans])
    assert not batch.failures
    for ours, wanted in zip(batch.query.double(), plans, strict=True):
        check(ours, truth(rgb, wanted, 16)[0], mean=1.5, largest=4.0)


# --- The arithmetic of the `cpu` backend, exactly


@pytest.mark.parametrize(("matrix", "full"), [(5, False), (1, False), (9, False), (5, True)])
@pytest.mark.parametrize("size", [48, 24, 30, 80])
def test_cpu_is_the_formula(tmp_path: Path, matrix: int, full: bool, size: int) -> None:
    """The truth is planes that are cropped, resized, converted and coloured in float64.

    Half precision rounds by 2**-11 of a value, and the terms of float32, of at most 600, by 2**-22 each.
    """
    video = save(tmp_path / "video.mkv", gradients((96, 64)), "yuvj420p" if full else "yuv420p", matrix, full)
    clip = plan(view(4, 10, 48, flip=True, color=COLOR), view(16, 48, 48))
    ours = load(cpu.load_clip, video, clip, size)
    with av.open(video.path) as container:
        decoded = [frame.to_ndarray() for frame in container.decode(video=0)]
    stacked = np.stack([decoded[n] for n in clip.frame_numbers]).astype(np.float64)
    y, u, v = stacked[:, :64], *(stacked[:, a : a + 16].reshape(-1, 32, 48) for a in (64, 80))
    wr, wb = WEIGHTS[matrix]
    for want, seen in zip(clip.views, ours, strict=True):
        whole = resized(y, want, size, 1), resized(u, want, size, 2), resized(v, want, size, 2)
        luma = whole[0] / 255 if full else (whole[0] - 16) / 219
        cb, cr = ((c - 128) / (255 if full else 224) for c in whole[1:])
        red, blue = luma + 2 * (1 - wr) * cr, luma + 2 * (1 - wb) * cb
        rgb = torch.stack([red, (luma - wr * red - wb * blue) / (1 - wr - wb), blue])
        color = torch.from_numpy(want.color.astype(np.float64))
        true = torch.einsum("rc,cthw->rthw", color[:, :3], rgb) + color[:, 3, None, None, None]
        true = true.flip(-1) if want.flip else true
        torch.testing.assert_close(seen, true, rtol=2**-11, atol=1e-5)


def resized(part: np.ndarray, want: ViewPlan, size: int, down: int) -> Tensor:
    top, left, side = want.top // down, want.left // down, want.side // down
    cut = torch.from_numpy(part[None, :, top : top + side, left : left + side].copy())
    return F.interpolate(cut, (size, size), mode="bilinear", antialias=True)[0]


# --- Real footage


NATURAL = [
    "formats/v_SoccerJuggling_g23_c01.avi",
    "formats/RATRACE_wave_f_nm_np1_fr_goo_37.avi",
    "formats/nasa_13013.mp4",
    "formats/fire2.mp4",
    "formats/no_duration.webm",
]


def test_real_footage_where_the_reference_does_not_clamp(footage: Path) -> None:
    """The reference makes 8-bit RGB and so clamps colours that YUV holds and RGB does not; `cpu` never makes RGB.

    Pixels that clamping reached are left out, and so are test patterns, whose chroma has edges of one pixel: how those
    are interpolated is not what either promises.
    """
    size = 64
    for file in [footage / name for name in NATURAL] + sorted((footage / "ut_interaction").rglob("*.avi"))[::30]:
        video = probe(file)
        sampler = ClipSampler([video], ClipConfig(frames=4, size=size), AugmentConfig(crop=(0.5, 1.0)), seed=1)
        clip = sampler.plan(3)
        frames = reference.decode_rgb(file, video, clip)
        clamped = ((frames == 0) | (frames == 255)).any(1, keepdims=True).repeat(3, 1)
        reached = truth(clamped.astype(np.float64), replace(clip, start=0, stride=1, views=plain(clip)), size)
        free = reached.abs() < 1e-9
        ours, theirs = load(cpu.load_clip, video, clip, size), load(reference.load_clip, video, clip, size)
        for which, v in enumerate(clip.views):
            some = free[which]
            assert some.float().mean() > 0.25, file.name
            error = (ours[which] - theirs[which])[some].abs() / LEVEL / np.abs(v.color[:, :3]).sum(1).max()
            assert error.mean() < 0.75, (file.name, which, error.mean())


def plain(clip: ClipPlan) -> tuple[ViewPlan, ...]:
    return tuple(replace(v, color=IDENTITY_COLOR) for v in clip.views)
