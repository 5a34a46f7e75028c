"""Views of frames that DALI decodes against those of the reference, on a CPU, and on a GPU where there is one.

They are made by DALI's operators, or ("triton") by our kernel, which on a CPU is the reference itself.

Half precision rounds by at most 2**-11 of a value. Inside a view nothing else happens: DALI computes in float32 what
torch computes in float32. Along the edges of a view that shrinks, both let their filter reach over the edge of the
crop, by an eighth of its weight: there DALI repeats the edge and torch leaves the eighth out.
"""

from __future__ import annotations

import itertools
import re
import sys
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import Colorspace
from torch import Tensor

from cacl.clips import ClipBatch, ClipPlan, VideoRecord, ViewPlan
from cacl.errors import CaclError, ConfigError
from cacl.loaders.backends import dali
from cacl.loaders.backends.dali_graph import BorrowedOutputs
from cacl.loaders.backends.dali_sources import ClipInputs, DecodedFrames, EncodedSegments, view_before_rotation
from cacl.loaders.backends.dali_views import Node
from cacl.loaders.backends.reference import load_clip
from cacl.loaders.backends.thread_pool import ThreadPoolBackend
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.decode.probe import probe
from cacl.loaders.decode.raw import apply_orientation
from cacl.loaders.decode.storage import Location
from cacl.loaders.sampling.augmentation import IDENTITY_COLOR, color_matrix
from tests.conftest import picture
from tests.gpu import cuda_device

pytest.importorskip("nvidia.dali")

MakeVideo = Callable[..., Path]
Makers = Literal["dali", "triton"]
MAKERS: tuple[Makers, ...] = ("dali", "triton")
CPU = torch.device("cpu")
SIZE, LENGTH, STRIDE, FRAMES = 32, 6, 2, 40
LEVEL = 1 / 255
EDGE = 1 - (7 / 8) ** 2
"""The weight of the filter that lies outside of the crop at a corner of a view."""
STRONG = color_matrix(brightness=1.8, contrast=1.7, saturation=2.0, hue=0.3)
GREY = color_matrix(brightness=0.4, saturation=0.0)


def view(top: int, left: int, side: int, flip: bool = False, color: np.ndarray = IDENTITY_COLOR) -> ViewPlan:
    return ViewPlan(top=top, left=left, side=side, flip=flip, color=color)


def plan(index: int, video: int, *views: ViewPlan, start: int = 5) -> ClipPlan:
    order = tuple((index + position) % LENGTH for position in range(LENGTH))
    return ClipPlan(index=index, video=video, start=start, stride=STRIDE, length=LENGTH, order=order, views=views)


def catalog(*videos: VideoRecord) -> Catalog:
    return Catalog(root=Path("/"), layout="folder", videos=videos, rejected=(), missing=())


def dali_backend(
    videos: Catalog, device: torch.device = CPU, pipelines: int = 2, views: Makers = "dali"
) -> dali.DaliBackend:
    return dali.DaliBackend(videos, size=SIZE, threads=2, prefetch=3, pipelines=pipelines, device=device, views=views)


def reference_backend(videos: Catalog) -> ThreadPoolBackend:
    return ThreadPoolBackend(load_clip, videos, size=SIZE, threads=2, prefetch=3)


@pytest.fixture(scope="module")
def videos(make_video: MakeVideo, tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """H.264 with B-frames, in four sizes."""
    folder = tmp_path_factory.mktemp("videos")
    sizes = [(96, 72), (48, 120), (160, 160), (200, 66)]
    names = [make_video(folder / f"{w}x{h}.mp4", frames=FRAMES, size=(w, h), bframes=2) for w, h in sizes]
    return catalog(*(probe(name) for name in names))


@pytest.fixture(scope="module")
def vp9(make_video: MakeVideo, tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = tmp_path_factory.mktemp("vp9")
    sizes = [(96, 72), (48, 120), (200, 66)]
    names = [
        make_video(folder / f"{w}x{h}.webm", frames=FRAMES, size=(w, h), codec="libvpx-vp9", gop=10) for w, h in sizes
    ]
    return catalog(*(probe(name) for name in names))


def views_of(batch: ClipBatch) -> Tensor:
    return torch.stack(batch.views).float()


def only(batches: Sequence[ClipBatch]) -> Tensor:
    (batch,) = batches
    return views_of(batch)


def inside(views: Tensor) -> Tensor:
    return views[..., 1:-1, 1:-1]


def assert_rounding_only(ours: Tensor, theirs: Tensor, levels: float = 0.01) -> None:
    """Both were rounded to half precision, so they may be two roundings apart; and what they rounded, `levels`."""
    torch.testing.assert_close(ours, theirs, rtol=2**-10, atol=levels * LEVEL)


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
    """On a CPU both make them with the same function, from the same frames: of a rotated video, and one of each too."""
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


@pytest.mark.parametrize("maker", MAKERS)
def test_batches_keep_their_order_and_length(videos: Catalog, maker: Makers) -> None:
    """With three batches ahead, batches of changing lengths, and one view after two."""
    rng = np.random.default_rng(0)
    batches = []
    for length, views in [*[(3, 2)] * 5, (1, 2), *[(2, 2)] * 4, (4, 1), (4, 1), (1, 1)]:
        numbers = [(len(batches) * 10 + slot, int(rng.integers(4))) for slot in range(length)]
        crop = [view(2 * v, 4, SIZE, flip=bool(v)) for v in range(views)]
        batches.append([plan(index, video, *crop, start=index % 20) for index, video in numbers])
    taken = []

    def observed() -> Iterator[list[ClipPlan]]:
        for batch in batches:
            taken.append(batch[0].index)
            yield batch

    ours = dali_backend(videos, views=maker).batches(observed())
    first = next(ours)
    assert len(taken) > 3, "batches are prepared ahead"
    for mine, theirs, plans in zip([first, *ours], reference_backend(videos).batches(batches), batches, strict=True):
        assert mine.index.tolist() == [p.index for p in plans]
        assert mine.video.tolist() == [p.video for p in plans]
        assert mine.order.tolist() == [list(p.order) for p in plans]
        for field in ("index", "video", "order"):
            assert getattr(mine, field).dtype == getattr(theirs, field).dtype
        assert [view.dtype for view in mine.views] == [view.dtype for view in theirs.views]
        assert_rounding_only(views_of(mine), views_of(theirs))


@pytest.mark.parametrize("maker", MAKERS)
def test_a_batch_outlives_the_ones_after_it(videos: Catalog, maker: Makers) -> None:
    """DALI reuses its memory, a batch must not lie in it."""
    batches = [[plan(index, index % 4, view(0, 0, 40), start=index)] for index in range(8)]
    made, early = [], []
    for batch in dali_backend(videos, views=maker).batches(batches):
        made.append(batch.views)
        early.append([view.clone() for view in batch.views])
    assert all(torch.equal(a, b) for a, b in zip(itertools.chain(*made), itertools.chain(*early), strict=True))


@pytest.mark.parametrize("maker", MAKERS)
def test_views_lie_in_memory_of_torch(videos: Catalog, maker: Makers, monkeypatch: pytest.MonkeyPatch) -> None:
    """DALI's own may go to its next batch before a GPU has read it."""
    places = []
    tensors = type(dali_backend(videos, views=maker).view_maker).to_tensors

    def observed(views: Any, outputs: Sequence[Any], plans: Any) -> Sequence[Tensor]:
        places.extend(torch.from_dlpack(clip).data_ptr() for output in outputs for clip in output)
        return tensors(views, outputs, plans)

    backend = dali_backend(videos, views=maker)
    monkeypatch.setattr(type(backend.view_maker), "to_tensors", observed)
    (batch,) = backend.batches([[plan(0, 0, view(0, 0, 40)), plan(1, 1, view(0, 0, 40))]])
    assert places
    assert not {clip.data_ptr() for view in batch.views for clip in view} & set(places)


class Memory:
    """Stands in for outputs of DALI."""


class Backlog:
    """An event of a GPU that is busy until `done`, or until somebody waits for it."""

    def __init__(self) -> None:
        self.done = False

    def query(self) -> bool:
        return self.done

    def synchronize(self) -> None:
        self.done = True


def test_what_dali_lent_is_held_until_it_was_read() -> None:
    borrowed, events = BorrowedOutputs(3), [Backlog() for _ in range(7)]
    memory: list[weakref.ref[Memory]] = []

    def hold(event: Backlog) -> list[bool]:
        outputs = Memory()
        memory.append(weakref.ref(outputs))
        borrowed.hold(outputs, event)
        del outputs
        return [reference() is not None for reference in memory]

    assert [hold(event) for event in events[:3]][-1] == [True] * 3
    events[1].done = True  # one after another, as they were recorded
    assert hold(events[3]) == [False, False, True, True]
    assert events[0].done, "one more than may be held, and it was not waited for"
    assert not events[2].done, "waited for more than was needed"
    events[2].done = events[3].done = True
    assert hold(events[4]) == [False] * 4 + [True]
    hold(events[5])
    borrowed.close()
    assert events[5].done
    assert not any(reference() for reference in memory)


def test_a_device_without_a_number_is_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """DALI runs on number None as if there were no GPU."""
    monkeypatch.setattr(dali, "unavailable_reason", lambda device: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert dali_backend(catalog(), torch.device("cuda")).device == torch.device("cuda", 3)
    assert dali_backend(catalog(), torch.device("cuda", 1)).device == torch.device("cuda", 1)


@pytest.mark.parametrize("pipelines", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_pipelines_take_turns(videos: Catalog, pipelines: int, count: int) -> None:
    """The same batches in the same order, however many pipelines make them."""
    batches = [[plan(2 * n + i, (n + i) % 4, view(2 * n, 0, 40), start=n) for i in range(2)] for n in range(count)]
    made = list(dali_backend(videos, pipelines=pipelines).batches(batches))
    assert [batch.index.tolist() for batch in made] == [[2 * n, 2 * n + 1] for n in range(count)]
    for batch, theirs in zip(made, dali_backend(videos, pipelines=2).batches(batches), strict=True):
        assert torch.equal(views_of(batch), views_of(theirs))


def test_iteration_may_stop_early(videos: Catalog) -> None:
    endless = ([plan(0, 0, view(0, 0, 40))] for _ in iter(int, 1))
    batches = dali_backend(videos).batches(endless)
    next(batches)
    assert isinstance(batches, Generator)
    batches.close()
    assert list(dali_backend(videos).batches([])) == []


@pytest.mark.parametrize("maker", MAKERS)
def test_frames_that_dali_decodes(vp9: Catalog, maker: Makers) -> None:
    """The graph as on a GPU, with VP9, which DALI decodes on a CPU too; frames that are shown rotated among them."""
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
    backend = dali_backend(mixed, views=maker)
    backend.source = EncodedSegments("cpu")
    ours = only(list(backend.batches([plans])))
    theirs = only(list(reference_backend(mixed).batches([plans])))
    # The same conversion to RGB by the same library: a few pixels are rounded the other way.
    assert (ours - theirs).abs().mean() < 0.05 * LEVEL
    assert_rounding_only(ours, theirs, levels=2)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(("colorspace", "mean"), [(Colorspace.ITU601, 0.05), (Colorspace.ITU709, 0.3)])
def test_colors_of_other_standards_are_true(tmp_path: Path, colorspace: Colorspace, mean: float, maker: Makers) -> None:
    """DALI takes every YUV for BT.601; the correction starts from RGB that was rounded to 8 bits.

    Uncorrected, the BT.709 video here would be 6 levels off in the mean.
    """
    path = tmp_path / "colors.webm"
    save_colors(path, colorspace)
    videos = catalog(probe(path))
    plans = [plan(0, 0, view(0, 0, 64), view(0, 0, 64, color=color_matrix(saturation=0.5, hue=0.2)), start=0)]
    backend = dali_backend(videos, views=maker)
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


@pytest.mark.parametrize("maker", MAKERS)
def test_a_file_that_cannot_be_decoded_is_named(
    videos: Catalog, make_video: MakeVideo, tmp_path: Path, maker: Makers
) -> None:
    path = make_video(tmp_path / "shrunk.mp4", frames=FRAMES)
    some = catalog(*videos.videos, probe(path))
    make_video(path, frames=10)
    batches = [
        [plan(index, index, view(0, 0, 40)) for index in range(2)],
        [plan(index, index, view(0, 0, 40)) for index in (3, 4)],
    ]
    whole, part = dali_backend(some, views=maker).batches(batches)
    assert whole.index.tolist() == [0, 1]
    assert part.index.tolist() == [3]
    (failure,) = part.failures
    assert (failure.index, failure.video) == (4, 4)
    assert failure.reason.startswith(f"{path}: ")


class Torn(EncodedSegments):
    """Of one video DALI gets no more than the first bytes."""

    def __init__(self, path: str) -> None:
        super().__init__("cpu")
        self.path = path

    def read(self, location: Location, video: VideoRecord, plan: ClipPlan) -> ClipInputs:
        clip = super().read(location, video, plan)
        data, numbers = clip.inputs
        return clip._replace(inputs=(data[:200], numbers)) if video.path == self.path else clip


@pytest.mark.parametrize("maker", MAKERS)
def test_a_file_that_dali_fails_on_is_named(vp9: Catalog, maker: Makers) -> None:
    """Its decoder says nothing about which."""
    torn = vp9.videos[2].path
    backend = dali_backend(vp9, views=maker)
    backend.source = Torn(torn)
    batches = [[plan(index, index, view(0, 0, 40)) for index in numbers] for numbers in ((0, 1, 1), (0, 2, 1))]
    whole, part = backend.batches(batches)
    assert whole.index.tolist() == [0, 1, 1]
    assert part.index.tolist() == [0, 1]
    (failure,) = part.failures
    assert (failure.index, failure.video) == (2, 2)
    assert re.fullmatch(re.escape(torn) + r": DALI fails on it \(.*\); \"cpu\" may read it", failure.reason)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("size", [(96, 40), (40, 72)])
def test_a_file_whose_frames_have_shrunk_is_named(
    vp9: Catalog, make_video: MakeVideo, tmp_path: Path, size: tuple[int, int], maker: Makers
) -> None:
    """Another video in its place, too low or too narrow for one of the views."""
    path = make_video(tmp_path / "shrunk.webm", frames=FRAMES, size=(96, 72), codec="libvpx-vp9")
    some = catalog(vp9.videos[0], probe(path))
    make_video(path, frames=FRAMES, size=size, codec="libvpx-vp9")
    backend = dali_backend(some, views=maker)
    backend.source = EncodedSegments("cpu")
    (batch,) = backend.batches([[plan(index, index, view(0, 0, 20), view(20, 20, 21)) for index in (0, 1)]])
    assert batch.index.tolist() == [0]
    assert batch.failures[0].reason.startswith(f"{path}: DALI fails on it (")


def test_a_graph_that_dies_on_no_clip_alone_is_an_error(videos: Catalog) -> None:
    """It is then no fault of a file: here, the graph for more than one clip is wrong."""

    class Wrong(DecodedFrames):
        def frames(self, *inputs: Node) -> Node:
            from nvidia.dali import fn
            from nvidia.dali.pipeline import Pipeline

            (frames,) = inputs
            graph = Pipeline.current()
            assert graph is not None
            return frames if graph.max_batch_size == 1 else fn.slice(frames, start=(1000,), shape=(1,), axes=(0,))

    backend = dali_backend(videos)
    backend.source = Wrong()
    with pytest.raises(CaclError, match="DALI fails on a batch, though on none of its clips alone"):
        list(backend.batches([[plan(index, index, view(0, 0, 40)) for index in range(2)]]))


def test_what_keeps_it_from_running_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dali.unavailable_reason(CPU) is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert dali.unavailable_reason(torch.device("cuda")) == "there is no CUDA device (asked for: cuda)"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(dali.ctypes, "CDLL", raises(OSError))
    assert "libnvcuvid.so.1" in (dali.unavailable_reason(torch.device("cuda")) or "")
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    monkeypatch.setattr(dali, "find_spec", lambda name: name)
    with pytest.raises(ConfigError, match=r"nvidia\.dali is damaged"):
        dali_backend(catalog())
    monkeypatch.setattr(dali, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"nvidia\.dali is not installed"):
        dali_backend(catalog())


def gpu_and_reference(paths: Sequence[Path], maker: Makers) -> Iterator[tuple[ClipBatch, ClipBatch]]:
    """Batches of two videos, the second of which is shown rotated, from the GPU and from the reference."""
    upright_one, turned = (probe(path) for path in paths)
    turned = replace(turned, rotation=90, width=turned.height, height=turned.width)
    videos = catalog(upright_one, turned)
    crops = view(10, 20, 60, color=STRONG), view(20, 8, 100, flip=True)
    batches = [[plan(10 * start + video, video, *crops, start=start) for video in (0, 1)] for start in range(0, 48, 7)]
    ours = dali_backend(videos, cuda_device(), views=maker).batches(batches)
    return zip(ours, reference_backend(videos).batches(batches), strict=True)


GPU_SIZES = [(160, 128), (256, 144)]


def assert_shown_right(mine: ClipBatch, theirs: ClipBatch) -> None:
    """Frame by frame: the bars that spell the frame number would be far off in any other frame."""
    assert mine.index.tolist() == theirs.index.tolist()
    assert all(view.is_cuda for view in mine.views)
    difference = (views_of(mine).cpu() - views_of(theirs)).abs()
    # Chroma is interpolated in another way, and colours are multiplied by up to 6 afterwards.
    assert difference.mean((2, 4, 5))[1].max() < 3 * LEVEL
    assert difference.mean((2, 4, 5))[0].max() < 12 * LEVEL


@pytest.mark.gpu
@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(
    ("codec", "suffix", "bframes"), [("libx264", "mp4", 0), ("libx264", "mp4", 3), ("libvpx-vp9", "webm", 0)]
)
def test_gpu_views_are_those_of_the_reference(
    make_video: MakeVideo, tmp_path: Path, codec: str, suffix: str, bframes: int, maker: Makers
) -> None:
    sizes = dict(zip(("upright", "turned"), GPU_SIZES, strict=True))
    paths = [
        make_video(tmp_path / f"{name}.{suffix}", frames=60, size=size, codec=codec, bframes=bframes)
        for name, size in sizes.items()
    ]
    for mine, theirs in gpu_and_reference(paths, maker):
        assert_shown_right(mine, theirs)


@pytest.mark.gpu
@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("kind", ["MPEG-4 part 2 in MP4", "MPEG-4 part 2 in AVI", "H.264 with open groups"])
def test_gpu_shows_right_what_it_shows(make_video: MakeVideo, tmp_path: Path, kind: str, maker: Makers) -> None:
    """Not every GPU decodes the first, and DALI may not begin at key frames that are no IDR frames."""
    if kind == "H.264 with open groups":
        paths = [open_groups(tmp_path / f"{width}.mp4", (width, height)) for width, height in GPU_SIZES]
    else:
        suffix, bframes = ("mp4", 0) if kind.endswith("MP4") else ("avi", 2)
        paths = [
            make_video(tmp_path / f"{size[0]}.{suffix}", frames=60, size=size, codec="mpeg4", bframes=bframes)
            for size in GPU_SIZES
        ]
    for mine, theirs in gpu_and_reference(paths, maker):
        if mine.failures:
            assert sorted([*mine.index.tolist(), *(f.index for f in mine.failures)]) == theirs.index.tolist()
            assert all("DALI fails on it" in failure.reason for failure in mine.failures)
        else:
            assert_shown_right(mine, theirs)


@pytest.mark.gpu
@pytest.mark.parametrize("maker", MAKERS)
def test_gpu_batches_outlive_the_ones_after_them(make_video: MakeVideo, tmp_path: Path, maker: Makers) -> None:
    """The consumer is some batches behind on the device, and lets go of each at once: DALI must not write into memory
    that is still read."""
    device = cuda_device()
    videos = catalog(probe(make_video(tmp_path / "video.mp4", frames=60, size=(160, 128))))
    batches = [[plan(index, 0, view(0, 0, 60), start=index)] * 4 for index in range(40)]
    backend = dali_backend(videos, device, views=maker)
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


def crop(frame: np.ndarray, view: ViewPlan) -> np.ndarray:
    part = frame[view.top : view.top + view.side, view.left : view.left + view.side]
    return part[:, ::-1] if view.flip else part


def raises(error: type[Exception]) -> Callable[..., None]:
    def function(*_: object) -> None:
        raise error

    return function


def save_colors(path: Path, colorspace: Colorspace) -> None:
    """Soft, strong colours in VP9 that is marked with this standard."""
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


def open_groups(path: Path, size: tuple[int, int]) -> Path:
    """H.264 whose key frames after the first are no IDR frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"x264-params": "open-gop=1:keyint=12:bframes=3"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(60):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number, size), format="rgb24")))
        container.mux(stream.encode(None))
    return path
