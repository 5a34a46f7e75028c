"""Views of frames that DALI decodes or is given, against those of the reference, on a CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import Colorspace

from cacl.clips import VideoRecord, ViewPlan
from cacl.loaders.backends.dali_sources import EncodedSegments, view_before_rotation
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.decode.probe import probe
from cacl.loaders.decode.yuv import apply_orientation
from cacl.loaders.sampling.augmentation import color_matrix
from tests.loaders.backends.clips import LEVEL, catalog, view
from tests.loaders.backends.dali.clips import (
    EDGE,
    FRAMES,
    GREY,
    LENGTH,
    SIZE,
    STRONG,
    VIEW_MAKERS,
    ViewMakerName,
    assert_rounding_only,
    dali_backend,
    inside,
    only,
    plan,
    reference_backend,
)

pytest.importorskip("nvidia.dali")


@pytest.mark.parametrize("side", [48, 40, SIZE, 20, 8])
def test_views_are_those_of_the_reference(videos: Catalog, side: int) -> None:
    plans = [
        plan(0, 0, view(0, 0, side), view(24, 48, side, flip=True)),
        plan(1, 1, view(60, 0, side, flip=True, color=STRONG), view(2, 0, side, color=GREY), start=0),
        plan(2, 2, view(100, 30, side, color=STRONG), view(6, 112, side, flip=True, color=STRONG)),
        plan(3, 3, view(18, 150, side, color=GREY), view(0, 0, side), start=FRAMES - 11),
    ]
    ours = only(list(dali_backend(videos).batches([plans])))
    theirs = only(list(reference_backend(videos).batches([plans])))
    assert ours.shape == (2, 4, 3, LENGTH, SIZE, SIZE)
    assert_rounding_only(inside(ours), inside(theirs))
    if side <= SIZE:
        assert_rounding_only(ours, theirs)
    edges = (ours - theirs).abs()
    assert edges.mean() < 0.1 * LEVEL
    contrast = theirs.amax((2, 3, 4, 5)) - theirs.amin((2, 3, 4, 5))
    assert (edges.amax((2, 3, 4, 5)) < EDGE * contrast + 2**-8).all()


@pytest.mark.parametrize("side", [48, 40, SIZE, 20, 8])
def test_views_of_the_kernel_are_those_of_the_reference_to_the_bit(videos: Catalog, side: int) -> None:
    """On a CPU both make the views with the same function, from the same frames. One video is rotated, and some clips
    have one view only.
    """
    first = videos.videos[0]
    some = catalog(replace(first, rotation=270, width=first.height, height=first.width), *videos.videos[1:])
    one = [plan(index, index, view(2, 0, side, flip=bool(index % 2), color=STRONG)) for index in range(4)]
    two = [
        plan(0, 0, view(0, 0, side), view(48, 24, side, flip=True)),
        plan(1, 1, view(60, 0, side, flip=True, color=STRONG), view(2, 0, side, color=GREY), start=0),
        plan(2, 2, view(100, 30, side, color=STRONG), view(6, 112, side, flip=True, color=STRONG)),
    ]
    batches = [two, one, two[:1]]
    ours = dali_backend(some, views="triton").batches(batches)
    for mine, theirs in zip(ours, reference_backend(some).batches(batches), strict=True):
        assert not mine.failures
        assert all(torch.equal(a, b) for a, b in zip(mine.views, theirs.views, strict=True))


@pytest.mark.parametrize("view_maker", VIEW_MAKERS)
def test_frames_that_dali_decodes(vp9: Catalog, view_maker: ViewMakerName) -> None:
    """The graph is as on a GPU, with VP9, which DALI decodes on a CPU too. Some frames are shown rotated."""
    turned = [
        replace(v, rotation=r, width=v.height, height=v.width) for v, r in zip(vp9.videos, (90, 270), strict=False)
    ]
    mixed = catalog(*turned, replace(vp9.videos[2], rotation=180), vp9.videos[0])
    plans = [
        plan(0, 0, view(30, 10, 40), view(4, 20, 44, flip=True), start=27),
        plan(1, 1, view(2, 60, 32, flip=True), view(10, 6, 32), start=0),
        plan(2, 2, view(4, 30, 60), view(10, 120, 50, flip=True), start=20),
        plan(3, 3, view(10, 30, 60), view(10, 12, 50, flip=True), start=11),
    ]
    backend = dali_backend(mixed, views=view_maker)
    backend.source = EncodedSegments("cpu")
    ours = only(list(backend.batches([plans])))
    theirs = only(list(reference_backend(mixed).batches([plans])))
    # The same conversion to RGB by the same library: a few pixels are rounded the other way.
    assert (ours - theirs).abs().mean() < 0.05 * LEVEL
    assert_rounding_only(ours, theirs, levels=2)


@pytest.mark.parametrize("view_maker", VIEW_MAKERS)
@pytest.mark.parametrize(("colorspace", "mean"), [(Colorspace.ITU601, 0.05), (Colorspace.ITU709, 0.3)])
def test_colors_of_other_standards_are_true(
    tmp_path: Path, colorspace: Colorspace, mean: float, view_maker: ViewMakerName
) -> None:
    """DALI takes every YUV for BT.601; the correction starts from RGB that was rounded to 8 bits.

    Uncorrected, the BT.709 video here would be 6 levels off in the mean.
    """
    path = tmp_path / "colors.webm"
    save_colors(path, colorspace)
    videos = catalog(probe(path))
    plans = [plan(0, 0, view(0, 0, 64), view(0, 0, 64, color=color_matrix(saturation=0.5, hue=0.2)), start=0)]
    backend = dali_backend(videos, views=view_maker)
    backend.source = EncodedSegments("cpu")
    difference = only(list(backend.batches([plans]))) - only(list(reference_backend(videos).batches([plans])))
    assert difference.abs().mean() < mean * LEVEL


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_view_of_a_frame_that_lies_sideways(rotation: int, mirrored: bool, flip: bool) -> None:
    decoded = np.arange(70 * 110).reshape(70, 110)
    width, height = (70, 110) if rotation % 180 else (110, 70)
    video = VideoRecord(
        path="",
        frames=1,
        declared_frames=1,
        rate=1,
        codec="",
        mirrored=mirrored,
        rotation=rotation,
        width=width,
        height=height,
    )
    shown = apply_orientation(decoded, video)
    wanted = view(12, 20, 46, flip)
    there, turns = view_before_rotation(wanted, video)
    assert (there.side, there.flip) == (wanted.side, wanted.flip != mirrored)
    np.testing.assert_array_equal(np.rot90(crop(decoded, there), turns), crop(shown, wanted))


def crop(frame: np.ndarray, view: ViewPlan) -> np.ndarray:
    part = frame[view.top : view.top + view.side, view.left : view.left + view.side]
    return part[:, ::-1] if view.flip else part


def save_colors(path: Path, colorspace: Colorspace) -> None:
    """Encodes soft, strong colours in VP9 that is marked with this standard."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=25, options={"crf": "10", "b": "0", "cpu-used": "8"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.colorspace = colorspace
        y, x = np.mgrid[:64, :96]
        for number in range(12):
            waves = [np.sin(x / 30 + number / 5), np.sin(y / 25 + 2), np.cos((x + y) / 40)]
            image = np.stack([127 + 100 * wave for wave in waves], -1).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace=colorspace)))
        container.mux(stream.encode(None))
