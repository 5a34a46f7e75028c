"""Clips of prepared videos, against decoding the whole files with PyAV: bit for bit, in any order, from any thread, and
an error wherever a byte of theirs is not what it was.

Most sources have B-frames or are too large, and are encoded; those of `OPTIONS` fit, and are copied as they are.
"""

from __future__ import annotations

import random
import shutil
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from cacl.clips import ClipPlan, VideoRecord
from cacl.config import AugmentConfig, ClipConfig, DataConfig
from cacl.errors import DataError
from cacl.loaders.backends import cpu, reference
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.prepared_files import INDEX_NAME
from cacl.loaders.catalog.scan import scan
from cacl.loaders.decode import fragments
from cacl.loaders.decode.probe import probe
from cacl.loaders.decode.raw import decode_frames
from cacl.loaders.decode.yuv import frame_checksum, planes
from cacl.loaders.prepared.prepare import prepare
from cacl.loaders.prepared.transcode import TranscodeSettings
from cacl.loaders.sampling.sampler import ClipSampler
from tests.loaders.decode.moving_videos import OPTIONS, SIZES, moving

MakeVideo = Callable[..., Path]


@pytest.fixture(scope="module", params=OPTIONS)
def codec(request: pytest.FixtureRequest) -> str:
    """The codec of a prepared set."""
    return request.param


@pytest.fixture(scope="module")
def location(codec: str, tmp_path_factory: pytest.TempPathFactory, make_video: MakeVideo) -> Path:
    """A source and its prepared set. Tests only read them."""
    location = tmp_path_factory.mktemp("prepared")
    make_video(location / "source/a.mp4", frames=41, size=(80, 64), bframes=2, gop=250)
    make_video(location / "source/one.mp4", frames=1, size=(80, 64), bframes=2)
    make_video(location / "source/odd.webm", frames=18, size=(67, 53), codec="libvpx-vp9")
    for width, height in SIZES:
        make_video(location / f"source/{width}x{height}.avi", frames=20, size=(width, height), codec="mpeg4")
    for name, options in OPTIONS[codec].items():
        moving(location / f"source/{name}.mp4", codec, options)
    config, settings = DataConfig(root=str(location / "source")), TranscodeSettings(short_side=256, gop=6, codec=codec)
    summary = prepare(config, location / "set", settings, workers=1, progress=lambda *_: None)
    assert summary.copied >= len(OPTIONS[codec]) - 1
    return location


@pytest.fixture(scope="module")
def catalog(codec: str, location: Path) -> Catalog:
    found = scan(DataConfig(root=str(location / "set")))
    assert [video.codec for video in found.videos] == [codec] * (3 + len(SIZES) + len(OPTIONS[codec]))
    assert not found.rejected
    return found


@pytest.fixture(scope="module")
def truth(catalog: Catalog) -> dict[str, list[int]]:
    """The checksums of all frames by path, as PyAV decodes the files from their beginning."""
    return {video.path: [frame_checksum(frame) for frame in whole(path_of(catalog, video))] for video in catalog.videos}


def path_of(catalog: Catalog, video: VideoRecord) -> Path:
    path = catalog.location(video)
    assert isinstance(path, Path)
    return path


def whole(file: Path) -> Iterator[VideoFrame]:
    with av.open(str(file)) as container:
        yield from container.decode(video=0)


def named(catalog: Catalog, name: str) -> VideoRecord:
    (video,) = [video for video in catalog.videos if video.path == f"videos/{name}.mp4"]
    return video


def checksums(file: Path, video: VideoRecord, numbers: Sequence[int]) -> list[int]:
    return [frame_checksum(frame) for frame in decode_frames(file, video, numbers)]


# --- The same frames


def test_every_video(catalog: Catalog, truth: dict[str, list[int]]) -> None:
    for video in catalog.videos:
        file = path_of(catalog, video)
        assert len(truth[video.path]) == video.frames
        assert checksums(file, video, range(video.frames)) == truth[video.path], video.path
        fragments = video.fragments
        assert fragments is not None
        assert fragments.offsets[-1] == file.stat().st_size
        for first, last in zip(fragments.first_frames, [*fragments.first_frames[1:], video.frames], strict=True):
            assert checksums(file, video, range(first, last)) == truth[video.path][first:last]


def test_every_start_and_stride(codec: str, catalog: Catalog, truth: dict[str, list[int]]) -> None:
    for video in (named(catalog, f"{name}.mp4") for name in ("a", *OPTIONS[codec])):
        file, true = path_of(catalog, video), truth[video.path]
        assert len(set(true)) == video.frames, "a frame more or less would not be seen"
        spans = [(start, stride) for stride in (1, 2, 5, 11) for start in range(video.frames)]
        clips = [range(start, min(video.frames, start + 4 * stride), stride) for start, stride in spans]
        for numbers in (*clips, [0, video.frames - 1], [3], [2, 3, 19, 20, 25]):
            assert checksums(file, video, numbers) == [true[n] for n in numbers], video.path


def test_clips_of_all_videos_in_any_order(catalog: Catalog, truth: dict[str, list[int]]) -> None:
    check_random_clips(catalog, truth, seed=0)


def check_random_clips(catalog: Catalog, truth: dict[str, list[int]], seed: int, clips: int = 80) -> None:
    draw = random.Random(seed)
    for _ in range(clips):
        video = catalog.videos[draw.randrange(len(catalog.videos))]
        start, stride = draw.randrange(video.frames), draw.randint(1, 4)
        numbers = range(start, min(video.frames, start + 8 * stride), stride)
        assert checksums(path_of(catalog, video), video, numbers) == [truth[video.path][n] for n in numbers]


def test_from_several_threads_at_once(catalog: Catalog, truth: dict[str, list[int]]) -> None:
    begin = threading.Barrier(4)

    def work(seed: int) -> None:
        begin.wait()
        check_random_clips(catalog, truth, seed)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_iterations_that_are_abandoned(catalog: Catalog, truth: dict[str, list[int]]) -> None:
    """Some are closed early, others are left open while clips of the same kind are decoded."""
    video = named(catalog, "a.mp4")
    file, true = path_of(catalog, video), truth[video.path]
    lying = []
    for taken in range(6):
        frames = decode_frames(file, video, range(3, 20))
        for number in range(3, 3 + taken):
            assert frame_checksum(next(frames)) == true[number]
        lying.append(frames)
        assert checksums(file, video, range(10, 30)) == true[10:30]
        closed = fragments.decode_prepared(file, video, range(30, 40))
        assert frame_checksum(next(closed)) == true[30]
        closed.close()  # pyright: ignore[reportAttributeAccessIssue]
        assert checksums(file, video, range(1, 9)) == true[1:9]
    for taken, frames in enumerate(lying):
        assert [frame_checksum(frame) for frame in frames] == true[3 + taken : 20]


def test_two_at_once_in_one_thread(catalog: Catalog, truth: dict[str, list[int]]) -> None:
    video = named(catalog, "a.mp4")
    file, true = path_of(catalog, video), truth[video.path]
    pairs = zip(decode_frames(file, video, range(20)), decode_frames(file, video, range(20, 40)), strict=True)
    assert [(frame_checksum(a), frame_checksum(b)) for a, b in pairs] == list(zip(true[:20], true[20:40], strict=True))


def test_frames_outlive_the_decoder(catalog: Catalog) -> None:
    """Frames may be held while other clips are decoded."""
    video = named(catalog, "a.mp4")
    file = path_of(catalog, video)
    held = list(decode_frames(file, video, range(0, 41, 4)))
    before = [frame_checksum(frame) for frame in held]
    for _ in range(5):
        list(decode_frames(file, video, range(41)))
    assert [frame_checksum(frame) for frame in held] == before


# --- What backends make of them


LEVEL = 1 / 255


def load(load_clip: Callable[..., None], file: Path, video: VideoRecord, clip: ClipPlan, size: int) -> torch.Tensor:
    """Returns the views, float64 [V, 3, T, size, size]."""
    out = torch.full((len(clip.views), 3, clip.length, size, size), torch.nan, dtype=torch.float16)
    load_clip(file, video, clip, size, tuple(out))
    return out.double()


def plans(video: VideoRecord, count: int = 5) -> list[ClipPlan]:
    sampler = ClipSampler([video], ClipConfig(frames=4, size=32), AugmentConfig(crop=(0.5, 1.0)), seed=1)
    return [sampler.plan(number) for number in range(count)]


@pytest.mark.parametrize("load_clip", [cpu.load_clip, reference.load_clip])
def test_views_are_those_of_the_file_read_as_any_other(catalog: Catalog, load_clip: Callable[..., None]) -> None:
    for video in (named(catalog, name) for name in ("a.mp4", "plain.mp4", "odd.webm", "64x48.avi")):
        file = path_of(catalog, video)
        for clip in plans(video):
            views = load(load_clip, file, video, clip, 32)
            assert torch.equal(views, load(load_clip, file, probe(file), clip, 32))
            assert views.isfinite().all()


def test_cpu_and_reference_agree(tmp_path: Path) -> None:
    """They agree on soft colours, which no 8-bit RGB clamps, by the measure of tests/loaders/backends/test_cpu.py."""
    rgb = soft(120, 96)
    (tmp_path / "source").mkdir()
    with av.open(str(tmp_path / "source/soft.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 120, 96, "yuv444p"
        for image in rgb:
            pixels = np.ascontiguousarray(np.rint(255 * image.transpose(1, 2, 0)).astype(np.uint8))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    settings = TranscodeSettings(short_side=96, crf=1)
    prepare(DataConfig(root=str(tmp_path / "source")), tmp_path / "set", settings, workers=1, progress=lambda *_: None)
    found = scan(DataConfig(root=str(tmp_path / "set")))
    (video,) = found.videos
    for clip in plans(video, 12):
        ours, theirs = (load(each.load_clip, path_of(found, video), video, clip, 32) for each in (cpu, reference))
        for a, b, view in zip(ours, theirs, clip.views, strict=True):
            stretch = float(np.abs(view.color[:, :3]).sum(1).max())
            assert (a - b).abs().mean() < 0.5 * stretch * LEVEL
            assert (a - b).abs().max() < 2.5 * stretch * LEVEL


def soft(width: int, height: int, frames: int = 12) -> np.ndarray:
    """Returns frames, float64 [T, 3, H, W]."""
    t, y, x = np.meshgrid(np.arange(frames), np.arange(height), np.arange(width), indexing="ij")
    grey = 0.5 + 0.25 * np.sin(x / 40 + y / 55 + t / 6)
    tint = np.sin(y / 35 + t / 9), np.cos(x / 45 - t / 7), np.sin((x - y) / 50 + 1)
    return np.stack([grey + 0.1 * wave for wave in tint], 1)


# --- Damage


@pytest.fixture
def video(catalog: Catalog) -> VideoRecord:
    return named(catalog, "a.mp4")


@pytest.fixture
def copy(catalog: Catalog, video: VideoRecord, tmp_path: Path) -> Path:
    return Path(shutil.copy(path_of(catalog, video), tmp_path / "copy.mp4"))


CLIP = range(13, 22, 2)


def bounds(video: VideoRecord, numbers: Sequence[int]) -> tuple[int, int]:
    """Returns the range of bytes that these frames need."""
    assert video.fragments is not None
    first, offset = video.fragments.first_frames.tolist(), video.fragments.offsets.tolist()
    start = max(offset[g] for g in range(len(first)) if first[g] <= numbers[0])
    return start, min([*(offset[g] for g in range(len(first)) if first[g] > numbers[-1]), offset[-1]])


def test_any_damaged_byte_that_a_clip_needs(copy: Path, video: VideoRecord, truth: dict[str, list[int]]) -> None:
    content, true = copy.read_bytes(), [truth[video.path][n] for n in CLIP]
    start, end = bounds(video, CLIP)
    assert 0 < start < end < len(content)
    draw, seen = random.Random(0), set[str]()
    with copy.open("r+b", buffering=0) as file:
        for location in range(start, end):
            file.seek(location)
            file.write(bytes([content[location] ^ draw.randint(1, 255)]))
            with pytest.raises(DataError) as raised:
                checksums(copy, video, CLIP)
            seen.add(str(raised.value))
            file.seek(location)
            file.write(content[location : location + 1])
            if location % 97 == 0:
                assert checksums(copy, video, CLIP) == true
    assert video.fragments is not None
    inside = [offset for offset in video.fragments.offsets.tolist() if start <= offset < end]
    told = "is damaged at byte {}: not what `cacl data prepare` wrote; remove it and prepare the set again"
    assert seen == {f"{copy}: {told.format(offset)}" for offset in inside}


def test_damage_elsewhere_is_not_noticed(copy: Path, video: VideoRecord, truth: dict[str, list[int]]) -> None:
    content, (start, end) = bytearray(copy.read_bytes()), bounds(video, CLIP)
    for location in {*range(len(content))} - {*range(start, end)}:
        content[location] ^= 0xFF
    copy.write_bytes(content)
    assert checksums(copy, video, CLIP) == [truth[video.path][n] for n in CLIP]
    for numbers in (range(0, 3), range(0, 41), range(20, 41)):
        with pytest.raises(DataError, match="is damaged at byte"):
            checksums(copy, video, numbers)


def test_cut_short(copy: Path, video: VideoRecord, truth: dict[str, list[int]]) -> None:
    content, (start, end) = copy.read_bytes(), bounds(video, CLIP)
    for length in (0, 1, start - 1, start, start + 1, end - 1):
        copy.write_bytes(content[:length])
        held = max(0, length - start)
        with pytest.raises(DataError, match=rf"^{copy}: holds {held} bytes from {start} on, where {end - start} were"):
            checksums(copy, video, CLIP)
    copy.write_bytes(content[:end])
    assert checksums(copy, video, CLIP) == [truth[video.path][n] for n in CLIP]


def test_gone_and_replaced(copy: Path, catalog: Catalog, video: VideoRecord, truth: dict[str, list[int]]) -> None:
    content = copy.read_bytes()
    copy.unlink()
    with pytest.raises(DataError, match=rf"^{copy}: cannot be read \(No such file or directory\)$"):
        checksums(copy, video, CLIP)
    refused = 0
    for other in catalog.videos:
        if other.path != video.path:
            shutil.copy(path_of(catalog, other), copy)
            with pytest.raises(DataError, match=rf"^{copy}: (holds|is damaged)"):
                checksums(copy, video, CLIP)
            refused += 1
    assert refused == len(catalog.videos) - 1
    copy.write_bytes(content)
    assert checksums(copy, video, CLIP) == [truth[video.path][n] for n in CLIP]


def test_frames_that_are_not_there(copy: Path, video: VideoRecord, truth: dict[str, list[int]]) -> None:
    """An index that counts wrongly would ask for them. That is an error; no frame is given for another."""
    for numbers in ([41], [39, 41], range(38, 60)):
        with pytest.raises(DataError, match=rf"^{copy}: frame 41 does not decode, though its bytes are in order; "):
            checksums(copy, video, numbers)
        assert checksums(copy, video, [40]) == truth[video.path][40:]


def test_frames_of_another_size_than_the_index_says(copy: Path, video: VideoRecord) -> None:
    """Crops are planned by the index, and nothing checks their bounds behind it."""
    larger = replace(video, width=video.width + 2)
    with pytest.raises(
        DataError, match=rf"^{copy}: frame 3 does not decode, .* \(it is {video.width}x{video.height}\)"
    ):
        list(decode_frames(copy, larger, [3, 5]))


def test_a_stream_that_does_not_decode(copy: Path, video: VideoRecord, truth: dict[str, list[int]]) -> None:
    """Its bytes are as they were written, but no video. `prepare` would have to have written them unseen."""
    content = bytearray(copy.read_bytes())
    fragments = video.fragments
    assert fragments is not None
    start, end = fragments.offsets[1:3].tolist()
    mdat = content.index(b"mdat", start) + 4
    content[mdat:end] = random.Random(0).randbytes(end - mdat)
    copy.write_bytes(content)
    checksum = fragments.checksums.copy()
    checksum[1] = zlib.crc32(content[start:end])
    broken = replace(video, fragments=fragments._replace(checksums=checksum))
    first = int(fragments.first_frames[1])
    with pytest.raises(
        DataError, match=rf"^{copy}: frame {first} does not decode, though its bytes are in order \(Inv"
    ):
        checksums(copy, broken, range(first, first + 4))
    assert checksums(copy, video, range(first)) == truth[video.path][:first], "the decoder that failed is used again"


def test_a_failure_leaves_the_next_clip_right(copy: Path, catalog: Catalog, truth: dict[str, list[int]]) -> None:
    """The next clip is decoded in the same thread."""
    video = named(catalog, "a.mp4")
    content, (start, _) = copy.read_bytes(), bounds(video, CLIP)
    for _ in range(3):
        copy.write_bytes(content[: start + 100])
        with pytest.raises(DataError):
            checksums(copy, video, CLIP)
        with pytest.raises(DataError):
            checksums(copy, video, [39, 41])
        assert checksums(copy, video, [2, 5]) == [truth[video.path][n] for n in (2, 5)]
        check_random_clips(catalog, truth, seed=1, clips=5)


def test_planes_are_those_of_the_decoder(catalog: Catalog, video: VideoRecord) -> None:
    """The checksums above say so already; this test does without them."""
    file = path_of(catalog, video)
    for ours, theirs in zip(decode_frames(file, video, range(41)), whole(file), strict=True):
        assert (ours.width, ours.height, ours.key_frame) == (theirs.width, theirs.height, theirs.key_frame)
        assert all(np.array_equal(a, b) for a, b in zip(planes(ours), planes(theirs), strict=True))


def test_the_index_is_all_that_is_opened(location: Path, catalog: Catalog, tmp_path: Path) -> None:
    """A folder of an index alone is a set, whose clips fail one by one."""
    (tmp_path / "set").mkdir()
    shutil.copy(location / "set" / INDEX_NAME, tmp_path / "set")
    found = scan(DataConfig(root=str(tmp_path / "set")))
    assert len(found.videos) == len(catalog.videos)
    with pytest.raises(DataError, match=r"cannot be read \(No such file"):
        checksums(path_of(found, found.videos[0]), found.videos[0], [0])
