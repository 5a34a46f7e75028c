"""The host backend against the reference, against the pictures that were encoded, and against float64; and its threads.

LEVEL is one step of 8 bits. What a lossless file may cost: rounding Y, U and V moves blue of BT.2020 by up to
255/219/2 + 1.8814 * 255/224/2 = 1.65 levels, half precision by 0.06 more, and averaging chroma over 2 x 2 pixels of
the slow gradients here by some 0.1. The reference rounds once more, to 8-bit RGB, and interpolates chroma otherwise.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from av.video.stream import VideoStream
from torch import Tensor

from cacl.clips import ClipBatch, ClipPlan, VideoRecord, ViewPlan
from cacl.config import AugmentConfig, ClipConfig, Config, LoaderConfig
from cacl.errors import ConfigError
from cacl.loaders.backends import cpu, reference
from cacl.loaders.backends.dali import DaliBackend, unavailable_reason
from cacl.loaders.backends.dali_views import DaliViews, KernelViews
from cacl.loaders.backends.select import MIN_REMOTE_THREADS, build_backend, choose_backend
from cacl.loaders.backends.thread_pool import LoadClip, ThreadPoolBackend
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.decode.probe import probe
from cacl.loaders.sampling.augmentation import IDENTITY_COLOR, color_matrix
from cacl.loaders.sampling.sampler import ClipSampler, evaluation_plans
from tests.launch import ROOT

MakeVideo = Callable[..., Path]
LEVEL = 1 / 255
CPU = torch.device("cpu")
FRAMES, LENGTH, STRIDE = 12, 4, 2
WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}
"""(red, blue) by H.273 matrix coefficients."""
COLOR = color_matrix(brightness=0.8, contrast=1.3, saturation=1.2, hue=0.06)


def gradients(size: tuple[int, int]) -> np.ndarray:
    """float64 [T, 3, H, W]: soft, moving, of low saturation, and between 0.2 and 0.9."""
    width, height = size
    t, y, x = np.meshgrid(np.arange(FRAMES), np.arange(height), np.arange(width), indexing="ij")
    grey = 0.5 + 0.25 * np.sin(x / 40 + y / 55 + t / 6)
    tint = np.sin(y / 35 + t / 9), np.cos(x / 45 - t / 7), np.sin((x - y) / 50 + 1)
    return np.stack([grey + 0.1 * wave for wave in tint], 1)


def save(path: Path, rgb: np.ndarray, pixels: str = "yuv420p", matrix: int = 5, full: bool = False) -> VideoRecord:
    """Without loss, as H.264, or as VP9 where an edge is odd. YUV by the formulas of H.273, chroma averaged."""
    _, _, height, width = rgb.shape
    codec = "libx264rgb" if pixels == "rgb24" else "libvpx-vp9" if (width | height) % 2 else "libx264"
    options = {"lossless": "1", "cpu-used": "8"} if codec == "libvpx-vp9" else {"qp": "0", "preset": "ultrafast"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        if pixels != "rgb24":
            stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        for image in rgb:
            frame = av.VideoFrame(width, height, pixels)
            parts = [image.transpose(1, 2, 0) * 255] if pixels == "rgb24" else to_yuv(image, pixels, matrix, full)
            for plane, part in zip(frame.planes, parts, strict=True):
                samples = np.rint(part).astype(np.uint16 if "10" in pixels else np.uint8)
                rows = samples.reshape(len(samples), -1).view(np.uint8)
                padded = np.zeros((plane.height, plane.line_size), np.uint8)
                padded[:, : rows.shape[1]] = rows
                plane.update(padded.tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return probe(path)


def to_yuv(rgb: np.ndarray, pixels: str, matrix: int, full: bool) -> list[np.ndarray]:
    wr, wb = WEIGHTS[matrix]
    r, g, b = rgb
    y = wr * r + (1 - wr - wb) * g + wb * b
    chroma = (b - y) / (2 * (1 - wb)), (r - y) / (2 * (1 - wr))
    if "420" in pixels:
        chroma = [np.pad(c, [(0, n % 2) for n in c.shape], mode="edge") for c in chroma]
        chroma = [c.reshape(c.shape[0] // 2, 2, c.shape[1] // 2, 2).mean((1, 3)) for c in chroma]
    scale = 4 if "10" in pixels else 1
    return [scale * (255 * y if full else 219 * y + 16), *(scale * ((255 if full else 224) * c + 128) for c in chroma)]


def view(top: int, left: int, side: int, flip: bool = False, color: np.ndarray = IDENTITY_COLOR) -> ViewPlan:
    return ViewPlan(top=top, left=left, side=side, flip=flip, color=color)


def plan(*views: ViewPlan, start: int = 1) -> ClipPlan:
    order = tuple(range(LENGTH))
    return ClipPlan(index=0, video=0, start=start, stride=STRIDE, length=LENGTH, order=order, views=views)


def load(load_clip: LoadClip, video: VideoRecord, clip: ClipPlan, size: int) -> Tensor:
    """float64 [V, 3, T, size, size]"""
    out = torch.full((len(clip.views), 3, clip.length, size, size), torch.nan, dtype=torch.float16)
    load_clip(Path(video.path), video, clip, size, tuple(out))
    return out.double()


def truth(rgb: np.ndarray, clip: ClipPlan, size: int) -> Tensor:
    """Of upright pictures [T, 3, H, W] in float64; as `load`."""
    return torch.stack([true_view(rgb[list(clip.frame_numbers)], v, size) for v in clip.views])


def true_view(rgb: np.ndarray, v: ViewPlan, size: int) -> Tensor:
    part = torch.from_numpy(rgb[..., v.top : v.top + v.side, v.left : v.left + v.side].copy())
    part = F.interpolate(part, (size, size), mode="bilinear", antialias=True)
    part = part.flip(-1) if v.flip else part
    color = torch.from_numpy(v.color.astype(np.float64))
    return (torch.einsum("rc,tchw->trhw", color[:, :3], part) + color[:, 3, None, None]).transpose(0, 1)


# --- Pictures whose truth is known

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
def test_host_and_reference_show_the_encoded_pictures(
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
    """The conversion to 8-bit 4:2:0 rounds once more than a file that holds it, in no direction."""
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
    """Of which any crop is a few pixels; twice as many rows or columns as there are would be something else."""
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


def check(ours: Tensor, theirs: Tensor, *, mean: float, largest: float, bias: float = 1.0) -> None:
    difference = (ours - theirs) / LEVEL
    seen = difference.abs().mean().item(), difference.abs().max().item(), difference.mean().item()
    assert seen[0] < mean, seen
    assert seen[1] < largest, seen
    assert abs(seen[2]) < bias, seen


# --- The arithmetic of the host, exactly


@pytest.mark.parametrize(("matrix", "full"), [(5, False), (1, False), (9, False), (5, True)])
@pytest.mark.parametrize("size", [48, 24, 30, 80])
def test_host_is_the_formula(tmp_path: Path, matrix: int, full: bool, size: int) -> None:
    """Planes cropped, resized, converted and coloured in float64. Half precision rounds by 2**-11 of a value, and the
    terms of float32, of at most 600, by 2**-22 each."""
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
    """The reference makes 8-bit RGB and so clamps colours that YUV holds and RGB does not; the host never makes RGB.
    Pixels that clamping reached are left out, and so are test patterns, whose chroma has edges of one pixel: how those
    are interpolated is not what either promises."""
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


# --- Threads


@pytest.fixture(scope="module")
def videos(make_video: MakeVideo, tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = tmp_path_factory.mktemp("videos")
    sizes = [(96, 72), (64, 120), (160, 96)]
    names = [make_video(folder / f"{w}x{h}.mp4", frames=60, size=(w, h), bframes=2) for w, h in sizes]
    return catalog(*(probe(name) for name in names))


def catalog(*records: VideoRecord) -> Catalog:
    return Catalog(root=Path("/"), layout="folder", videos=records, rejected=(), missing=())


def stream(videos: Catalog, steps: int = 6) -> list[list[ClipPlan]]:
    """The last batch is shorter."""
    sampler = ClipSampler(videos.videos, ClipConfig(frames=6, size=32), AugmentConfig(), seed=3)
    batches = list(sampler.batches(0, steps, 4))
    return [*batches[:-1], batches[-1][:1]]


def batches_of(
    videos: Catalog, plans: Sequence[Sequence[ClipPlan]] | Iterator[list[ClipPlan]], threads: int = 2, prefetch: int = 2
) -> Iterator[ClipBatch]:
    return ThreadPoolBackend(cpu.load_clip, videos, size=32, threads=threads, prefetch=prefetch).batches(plans)


def decoding_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("decode")]


@pytest.mark.parametrize(("threads", "prefetch"), [(1, 1), (1, 5), (4, 1), (4, 3), (3, 50)])
def test_batches_are_complete_in_order_and_the_same(videos: Catalog, threads: int, prefetch: int) -> None:
    plans = stream(videos)
    made = list(batches_of(videos, plans, threads, prefetch))
    assert len(made) == len(plans)
    for batch, wanted in zip(made, plans, strict=True):
        assert batch.index.tolist() == [p.index for p in wanted]
        assert batch.video.tolist() == [p.video for p in wanted]
        assert batch.order.tolist() == [list(p.order) for p in wanted]
        assert [tuple(view.shape) for view in batch.views] == [(len(wanted), 3, 6, 32, 32)] * 2
        for slot, p in enumerate(wanted):
            alone = load(cpu.load_clip, videos.videos[p.video], p, 32)
            assert torch.equal(
                torch.stack(batch.views)[:, slot].double(), alone
            )  # bit for bit, and so nothing is missing
    assert decoding_threads() == []


def test_one_thread_takes_no_more_plans_than_it_looks_ahead(videos: Catalog) -> None:
    taken = []
    plans = (taken.append(0) or batch for batch in stream(videos))
    batches = batches_of(videos, plans, prefetch=2)
    for done in range(3):
        next(batches)
        assert len(taken) == done + 3
    assert isinstance(batches, Generator)
    batches.close()
    assert decoding_threads() == []
    assert next(plans, None) is not None, "it has not been read to its end"


def test_clips_that_fail_have_no_row_and_name_their_file(
    videos: Catalog, make_video: MakeVideo, tmp_path: Path
) -> None:
    path = make_video(tmp_path / "gone.mp4", frames=60)
    some = catalog(*videos.videos, probe(path))
    path.unlink()
    good, bad = stream(videos)[0], [replace(p, video=3) for p in stream(videos)[0]]
    whole, part, none, last = batches_of(some, [good, [good[0], *bad[1:3], good[3]], bad, good])
    assert whole.index.tolist() == last.index.tolist() == [0, 1, 2, 3]
    assert part.index.tolist() == [0, 3]
    assert [(failure.index, failure.video) for failure in part.failures] == [(1, 3), (2, 3)]
    assert all(failure.reason.startswith(f"{path}: ") for failure in part.failures)
    assert torch.equal(torch.stack(part.views), torch.stack(whole.views)[:, [0, 3]])
    assert (len(none), len(none.failures)) == (0, 4)
    assert [tuple(view.shape) for view in none.views] == [(0, 3, 6, 32, 32)] * 2
    assert decoding_threads() == []


def test_an_error_that_is_no_fault_of_the_data_stops(videos: Catalog) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(ThreadPoolBackend(broken, videos, size=32, threads=2, prefetch=2).batches(stream(videos)))
    assert decoding_threads() == []


def test_shuffled_copies_are_a_gather(videos: Catalog) -> None:
    """As if the frames had been decoded in that order."""
    (wanted,) = stream(videos, steps=1)
    wanted = [replace(wanted[0], order=(3, 0, 1, 5, 2, 4))]
    (batch,) = batches_of(videos, [wanted])
    gathered = torch.stack(batch.views)[:, 0].index_select(2, batch.order[0].long())
    frames = [
        load(cpu.load_clip, videos.videos[p.video], replace(p, start=p.frame_numbers[n], length=1), 32)
        for p in wanted
        for n in p.order
    ]
    assert torch.equal(gathered.double(), torch.cat(frames, 2))


def test_each_thread_computes_alone(videos: Catalog) -> None:
    """Though torch has several threads elsewhere: the parallelism is over clips."""
    seen: list[tuple[str, int]] = []
    together = threading.Barrier(2)

    def look(*_: object) -> None:
        together.wait(10)  # so that no thread does the work of both
        seen.append((threading.current_thread().name, torch.get_num_threads()))

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        list(ThreadPoolBackend(look, videos, size=32, threads=2, prefetch=2).batches(stream(videos)[:-1]))
    finally:
        torch.set_num_threads(before)
    assert len({name for name, _ in seen}) == 2
    assert {threads for _, threads in seen} == {1}


def test_threads_of_the_caller_are_left_alone(videos: Catalog) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        list(batches_of(videos, stream(videos)))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_threads_of_a_fresh_process_are_left_alone(videos: Catalog) -> None:
    """torch settles the number of a thread at its first parallel operation, which may come after the loader's."""
    code = (
        "import sys, torch; from pathlib import Path; from tests.loaders.backends import test_backends as t\n"
        "videos = t.catalog(*(t.probe(Path(name)) for name in sys.argv[1:]))\n"
        "list(t.batches_of(videos, t.stream(videos))); print(torch.get_num_threads())"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", code, *(v.path for v in videos.videos)]
    location = ROOT
    run = subprocess.run(command, env=environment, cwd=location, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "2"


# --- The choice


def test_auto_chooses_the_host_and_says_why(videos: Catalog) -> None:
    choice = choose_backend(LoaderConfig(), CPU)
    assert choice.name == "cpu"
    assert "on the CPU" in choice.reason
    for name in ("cpu", "reference"):
        named = LoaderConfig(backend=name, threads=2)  # pyright: ignore[reportArgumentType]
        assert choose_backend(named, CPU) == (name, "as configured")
        backend = build_backend(name, videos, Config(clip=ClipConfig(size=32), loader=named), CPU)
        plans = stream(videos)[:1]
        (batch,) = backend.batches(plans)
        load_clip = {"cpu": cpu.load_clip, "reference": reference.load_clip}[name]
        alone = load(load_clip, videos.videos[plans[0][0].video], plans[0][0], 32)
        assert torch.equal(torch.stack(batch.views)[:, 0].double(), alone)


def test_the_configuration_says_how_much_is_done_at_once(videos: Catalog) -> None:
    """Without a number of threads, a process takes its share of the cores; more where they wait for a server."""
    asked = Config(clip=ClipConfig(size=32), loader=LoaderConfig(threads=3, prefetch=5, dali_pipelines=4))
    cores = os.cpu_count() or 1
    for name in ("cpu", "reference", "dali"):
        if name == "dali" and unavailable_reason(CPU):
            continue

        def built(config: Config, processes: int = 1, root: Path | str = videos.root, name: str = name) -> Any:
            return build_backend(name, replace(videos, root=root), config, CPU, processes)

        backend = built(asked)
        assert (backend.threads, backend.prefetch, backend.size) == (3, 5, 32)
        assert name != "dali" or backend.pipelines == 4
        assert [built(Config(), processes).threads for processes in (1, 2, 4 * cores)] == [cores, max(1, cores // 2), 1]
        assert built(Config(), root="https://server/set").threads == max(cores, MIN_REMOTE_THREADS)
        assert built(asked, root="https://server/set").threads == 3


@pytest.mark.parametrize(("maker", "kind"), [("dali", DaliViews), ("triton", KernelViews)])
def test_the_configuration_says_what_makes_the_views_of_dali(videos: Catalog, maker: str, kind: type) -> None:
    pytest.importorskip("nvidia.dali")
    loader = LoaderConfig(backend="dali", dali_views=maker)  # pyright: ignore[reportArgumentType]
    backend = build_backend("dali", videos, Config(loader=loader), CPU)
    assert isinstance(backend, DaliBackend)
    assert isinstance(backend.view_maker, kind)


def test_evaluation_with_views_of_the_kernel(videos: Catalog) -> None:
    pytest.importorskip("nvidia.dali")
    clip = ClipConfig(frames=6, size=32)
    config = Config(clip=clip, loader=LoaderConfig(backend="dali", dali_views="triton", threads=2))
    plans = [list(evaluation_plans(videos.videos, range(3), 2, clip, AugmentConfig()))]
    (mine,) = build_backend("dali", videos, config, CPU).batches(plans)
    (theirs,) = build_backend("reference", videos, config, CPU).batches(plans)
    assert mine.index.tolist() == theirs.index.tolist() == list(range(6))
    assert [view.shape for view in mine.views] == [(6, 3, 6, 32, 32)]
    assert torch.equal(mine.views[0], theirs.views[0])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_dali_without_a_gpu_is_an_error_and_auto_is_not() -> None:
    device = torch.device("cuda")
    with pytest.raises(ConfigError, match=r'^loader\.backend = "dali" cannot run here: .*; "cpu" needs nothing but'):
        choose_backend(LoaderConfig(backend="dali"), device)
    choice = choose_backend(LoaderConfig(), device)
    assert choice.name == "cpu"
    assert "no CUDA device" in choice.reason or "not installed" in choice.reason
