"""Views that a GPU decodes and makes, against those of the reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import av
import pytest
import torch

from cacl.clips import ClipBatch
from cacl.loaders.decode.probe import probe
from tests.conftest import picture
from tests.gpu import cuda_device
from tests.loaders.backends.clips import LEVEL, MakeVideo, catalog, view
from tests.loaders.backends.dali.clips import (
    FRAMES,
    STRONG,
    VIEW_MAKERS,
    ViewMakerName,
    dali_backend,
    plan,
    reference_backend,
    views_of,
)

pytest.importorskip("nvidia.dali")


def gpu_and_reference(paths: Sequence[Path], view_maker: ViewMakerName) -> Iterator[tuple[ClipBatch, ClipBatch]]:
    """Yields batches of two videos from the GPU and from the reference. The second video is shown rotated."""
    upright_one, turned = (probe(path) for path in paths)
    turned = replace(turned, rotation=90, width=turned.height, height=turned.width)
    videos = catalog(upright_one, turned)
    crops = view(10, 20, 60, color=STRONG), view(20, 8, 100, flip=True)
    batches = [[plan(10 * start + video, video, *crops, start=start) for video in (0, 1)] for start in range(0, 48, 7)]
    ours = dali_backend(videos, cuda_device(), views=view_maker).batches(batches)
    return zip(ours, reference_backend(videos).batches(batches), strict=True)


GPU_SIZES = [(160, 128), (256, 144)]


def assert_shown_right(mine: ClipBatch, theirs: ClipBatch) -> None:
    """Compares frame by frame: the bars that spell the frame number would be far off in any other frame."""
    assert mine.index.tolist() == theirs.index.tolist()
    assert all(view.is_cuda for view in mine.views)
    difference = (views_of(mine).cpu() - views_of(theirs)).abs()
    # Chroma is interpolated in another way, and colours are multiplied by up to 6 afterwards.
    assert difference.mean((2, 4, 5))[1].max() < 3 * LEVEL
    assert difference.mean((2, 4, 5))[0].max() < 12 * LEVEL


@pytest.mark.gpu
@pytest.mark.parametrize("view_maker", VIEW_MAKERS)
@pytest.mark.parametrize(
    ("codec", "suffix", "bframes"), [("libx264", "mp4", 0), ("libx264", "mp4", 3), ("libvpx-vp9", "webm", 0)]
)
def test_gpu_views_are_those_of_the_reference(
    make_video: MakeVideo, tmp_path: Path, codec: str, suffix: str, bframes: int, view_maker: ViewMakerName
) -> None:
    sizes = dict(zip(("upright", "turned"), GPU_SIZES, strict=True))
    paths = [
        make_video(tmp_path / f"{name}.{suffix}", frames=60, size=size, codec=codec, bframes=bframes)
        for name, size in sizes.items()
    ]
    for mine, theirs in gpu_and_reference(paths, view_maker):
        assert_shown_right(mine, theirs)


@pytest.mark.gpu
@pytest.mark.parametrize("view_maker", VIEW_MAKERS)
@pytest.mark.parametrize("kind", ["MPEG-4 part 2 in MP4", "MPEG-4 part 2 in AVI", "H.264 with open groups"])
def test_gpu_shows_right_what_it_shows(
    make_video: MakeVideo, tmp_path: Path, kind: str, view_maker: ViewMakerName
) -> None:
    """Not every GPU decodes the first, and DALI may not begin at key frames that are no IDR frames."""
    if kind == "H.264 with open groups":
        paths = [open_groups(tmp_path / f"{width}.mp4", (width, height)) for width, height in GPU_SIZES]
    else:
        suffix, bframes = ("mp4", 0) if kind.endswith("MP4") else ("avi", 2)
        paths = [
            make_video(tmp_path / f"{size[0]}.{suffix}", frames=60, size=size, codec="mpeg4", bframes=bframes)
            for size in GPU_SIZES
        ]
    for mine, theirs in gpu_and_reference(paths, view_maker):
        if mine.failures:
            assert sorted([*mine.index.tolist(), *(f.index for f in mine.failures)]) == theirs.index.tolist()
            assert all("DALI fails on it" in failure.reason for failure in mine.failures)
        else:
            assert_shown_right(mine, theirs)


@pytest.mark.gpu
@pytest.mark.parametrize("view_maker", VIEW_MAKERS)
def test_gpu_batches_outlive_the_ones_after_them(
    make_video: MakeVideo, tmp_path: Path, view_maker: ViewMakerName
) -> None:
    """The consumer is some batches behind on the device, and lets go of each at once: DALI must not write into memory
    that is still read."""
    device = cuda_device()
    videos = catalog(probe(make_video(tmp_path / "video.mp4", frames=60, size=(160, 128))))
    batches = [[plan(index, 0, view(0, 0, 60), start=index)] * 4 for index in range(40)]
    backend = dali_backend(videos, device, views=view_maker)
    at_leisure = [torch.stack(batch.views).double().sum().item() for batch in backend.batches(batches)]
    busy = torch.randn(8192, 8192, device=device)
    behind = []
    for batch in backend.batches(batches):
        for _ in range(10):  # a tenth of a second or more
            busy = (busy @ busy).clamp(-1, 1)
        behind.append(torch.stack(batch.views).double().sum())
    assert at_leisure == torch.stack(behind).tolist()


@pytest.mark.gpu
def test_gpu_file_that_dali_fails_on_is_named(make_video: MakeVideo, tmp_path: Path) -> None:
    device = cuda_device()
    good = probe(make_video(tmp_path / "good.mp4", frames=FRAMES, size=(160, 128)))
    tiny = probe(make_video(tmp_path / "tiny.mp4", frames=FRAMES, size=(32, 32)))  # smaller than NVDEC takes
    batches = [[plan(index, index, view(0, 0, 20)) for index in (0, 1)]]
    (batch,) = dali_backend(catalog(good, tiny), device).batches(batches)
    assert batch.index.tolist() == [0]
    assert "tiny.mp4: DALI fails on it" in batch.failures[0].reason


def open_groups(path: Path, size: tuple[int, int]) -> Path:
    """Encodes H.264 whose key frames after the first are no IDR frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"x264-params": "open-gop=1:keyint=12:bframes=3"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(60):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number, size), format="rgb24")))
        container.mux(stream.encode(None))
    return path
