"""A converted video has every frame of its source exactly once, in small groups of pictures that decode alone."""

import math
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from cacl.errors import DataError, UsageError
from cacl.loaders.decode import mp4
from cacl.loaders.decode.orientation import apply_orientation
from cacl.loaders.decode.probe import probe
from cacl.loaders.decode.raw import decode_frames
from cacl.loaders.decode.yuv import frame_checksum, frame_yuv_to_rgb_matrix, planes
from cacl.loaders.prepared.transcode import TranscodeResult, TranscodeSettings, scale_frames, scaled_size, transcode

MakeVideo = Callable[..., Path]
Trimmed = Callable[[Path, Path], Path]
SMALL = TranscodeSettings(short_side=48, gop=8)


def made(source: Path, settings: TranscodeSettings = SMALL) -> tuple[TranscodeResult, Path]:
    file = source.parent / "converted"
    return transcode(source, probe(source), file, settings), file


def decoded(file: Path) -> list[VideoFrame]:
    with av.open(str(file)) as container:
        return list(container.decode(video=0))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """In dB; over values of 0 to 255."""
    return 10 * math.log10(255**2 / max(1e-5, float(np.mean((a.astype(float) - b) ** 2))))


def to_rgb(frame: VideoFrame) -> np.ndarray:
    """float64 [H, W, 3] in 0..255, by the colours the frame states, with each chroma sample repeated."""
    luma, *chroma = (plane.astype(float) for plane in planes(frame))
    wide = [part.repeat(2, 0).repeat(2, 1)[: luma.shape[0], : luma.shape[1]] for part in chroma]
    matrix = frame_yuv_to_rgb_matrix(frame)
    return 255 * (np.stack([luma, *wide], -1) @ matrix[:, :3].T + matrix[:, 3])


def number_on(frame: VideoFrame) -> int:
    """The number that the bars of `picture` spell."""
    luma = planes(frame)[0]
    height, width = luma.shape
    return sum(1 << bit for bit in range(8) if luma[height // 4, (2 * bit + 1) * width // 16] > 128)


# --- Encoding

KINDS = [
    ("mpeg4", "avi", 2),
    ("mpeg4", "avi", 0),
    ("libvpx-vp9", "webm", 0),
    ("libx264", "mp4", 2),
    ("libx264", "mkv", 2),
    ("libx264", "ts", 2),
]


@pytest.mark.parametrize(("codec", "suffix", "bframes"), KINDS)
def test_every_frame_once(make_video: MakeVideo, tmp_path: Path, codec: str, suffix: str, bframes: int) -> None:
    path = tmp_path / f"video.{suffix}"
    make_video(path, frames=45, size=(160, 96), codec=codec, bframes=bframes, rate=Fraction(30000, 1001))
    source = probe(path)
    converted, file = made(path)
    frames = decoded(file)
    assert [number_on(frame) for frame in frames] == list(range(45))
    originals = scale_frames(decode_frames(path, source, range(45)), source, 48)
    assert min(psnr(planes(a)[0], planes(b)[0]) for a, b in zip(frames, originals, strict=True)) > 30
    assert [frame.time for frame in frames] == pytest.approx([number * 1001 / 30000 for number in range(45)])

    video = converted.video
    assert not converted.copied
    assert (video.frames, video.declared_frames, video.width, video.height) == (45, 45, 80, 48)
    assert (video.codec, video.rate, video.rotation) == ("h264", pytest.approx(30000 / 1001), 0)
    assert (frames[0].width, frames[0].height, frames[0].format.name) == (80, 48, "yuv420p")
    assert [number for number, frame in enumerate(frames) if frame.key_frame] == list(range(0, 45, 8))
    assert PictureType.B not in {frame.pict_type for frame in frames}


def test_what_is_told_of_the_fragments(make_video: MakeVideo, tmp_path: Path) -> None:
    path = make_video(tmp_path / "video.avi", frames=20, codec="mpeg4")
    converted, file = made(path)
    data, fragments = file.read_bytes(), converted.video.fragments
    assert fragments is not None
    assert fragments.first_frames.tolist() == [0, 8, 16]
    assert data.startswith(fragments.init_segment)
    assert (fragments.offsets[0], fragments.offsets[-1]) == (len(fragments.init_segment), len(data))
    whole = [frame_checksum(frame) for frame in decoded(file)]
    ends = [*fragments.first_frames.tolist()[1:], 20]
    for group, (start, end) in enumerate(pairwise(fragments.offsets.tolist())):
        assert zlib.crc32(data[start:end]) == fragments.checksums[group]
        (tmp_path / "part.mp4").write_bytes(fragments.init_segment + data[start:end])
        assert [frame_checksum(f) for f in decoded(tmp_path / "part.mp4")] == whole[
            fragments.first_frames[group] : ends[group]
        ]
    assert converted.video.content_hash == probe(file).content_hash


def test_each_setting_counts(make_video: MakeVideo, tmp_path: Path) -> None:
    """Of one source: shorter groups, a smaller picture, and a rate factor 12 higher, which is about a quarter of the
    bytes (6 halve them)."""
    path = make_video(tmp_path / "video.avi", frames=20, size=(160, 96), codec="mpeg4")

    def shown(**settings: int) -> tuple[list[int], tuple[int, int], int]:
        converted, file = made(path, TranscodeSettings(**{"short_side": 64, "gop": 8, "crf": 20} | settings))
        assert converted.video.fragments is not None
        picture = converted.video.width, converted.video.height
        return converted.video.fragments.first_frames.tolist(), picture, file.stat().st_size

    first, picture, size = shown()
    assert (first, picture) == ([0, 8, 16], (106, 64))
    assert shown(gop=5)[:2] == ([0, 5, 10, 15], picture)
    assert shown(short_side=48)[:2] == (first, (80, 48))
    *same, smaller = shown(crf=32)
    assert same == [first, picture]
    assert smaller < 0.6 * size


def test_pictures_shrink_smoothly(tmp_path: Path) -> None:
    """Stripes finer than the pixels that are left become grey, and do not turn into others."""
    stripes = np.zeros((96, 144, 3), np.uint8)
    stripes[:48, ::2] = stripes[48::2] = 255
    path = encode(tmp_path / "video.mkv", "ffv1", "yuv420p", [stripes] * 2)
    _, file = made(path, TranscodeSettings(short_side=32, crf=1))
    luma = planes(decoded(file)[0])[0].astype(float)
    assert luma.shape == (32, 48)
    inner = np.concatenate([luma[2:14, 2:-2].ravel(), luma[18:-2, 2:-2].ravel()])
    assert np.abs(inner - (16 + 219 / 2)).max() < 40  # half the contrast would be 55


def test_the_same_bytes_each_time(make_video: MakeVideo, tmp_path: Path) -> None:
    path = make_video(tmp_path / "video.avi", frames=40, size=(320, 240), codec="mpeg4", bframes=2)
    first, second = (made(path, TranscodeSettings())[1].read_bytes() for _ in range(2))
    assert first == second
    assert b"Lavf" not in first


def test_sound_stays_behind(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    with av.open(str(path), "w") as container:
        video, audio = container.add_stream("mpeg4", 25), container.add_stream("aac", 8000, layout="mono")
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for number in range(10):
            frame = VideoFrame.from_ndarray(patches(64, 48), "rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
            sound = AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            sound.sample_rate = 8000
            container.mux(audio.encode(sound))
        container.mux([*video.encode(), *audio.encode()])
    _, file = made(path)
    with av.open(str(file)) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_uneven_times_become_even(tmp_path: Path) -> None:
    times = [0, 1, 2, 10, 11, 30, 31, 32, 33, 60]  # in units of 40 ms
    path = tmp_path / "video.mkv"
    encode(
        path,
        "libx264",
        "yuv420p",
        [np.full((48, 64, 3), 20 * n, np.uint8) for n in range(10)],
        times=times,
        options={"bf": "0"},
    )
    converted, file = made(path, TranscodeSettings(short_side=32))
    frames = decoded(file)
    assert [round(float(planes(frame)[0].mean())) for frame in frames] == pytest.approx(
        [16 + 20 * n * 219 / 255 for n in range(10)], abs=2
    )
    assert [frame.time for frame in frames] == pytest.approx([n / converted.video.rate for n in range(10)])


@pytest.mark.parametrize("rate", [0.0, 3e9, 1 / 5000])
def test_a_rate_that_cannot_be(make_video: MakeVideo, tmp_path: Path, rate: float) -> None:
    path = make_video(tmp_path / "video.avi", frames=5, codec="mpeg4")
    converted = transcode(path, replace(probe(path), rate=rate), tmp_path / "converted", SMALL)
    assert (converted.video.rate, converted.video.frames) == (25.0, 5)


# --- Sizes and turns


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((320, 240), (170, 128)),
        ((240, 320), (128, 170)),
        ((1280, 720), (228, 128)),
        ((128, 128), (128, 128)),
        ((129, 131), (128, 130)),
        ((131, 129), (130, 128)),
        ((64, 48), (64, 48)),
        ((65, 49), (64, 48)),
        ((2000, 129), (1984, 128)),
        ((1, 1), (2, 2)),
    ],
)
def test_working_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert scaled_size(*size, 128) == expected


@pytest.mark.parametrize("size", [(64, 48), (101, 71)])
def test_small_videos_are_not_scaled_up(make_video: MakeVideo, tmp_path: Path, size: tuple[int, int]) -> None:
    path = make_video(tmp_path / "video.webm", frames=10, size=size, codec="libvpx-vp9")
    converted, file = made(path, TranscodeSettings())
    assert (converted.video.width, converted.video.height) == (size[0] // 2 * 2, size[1] // 2 * 2)
    assert [number_on(frame) for frame in decoded(file)] == list(range(10))


MATRICES = {90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), 270: (0, 1, -1, 0)}
"""(a, b, c, d) of the track header by counter-clockwise turns, see test_decode."""


@pytest.mark.parametrize("degrees", MATRICES)
def test_turned_videos_become_upright(make_video: MakeVideo, tmp_path: Path, degrees: int) -> None:
    path = make_video(tmp_path / "video.mp4", frames=10, size=(160, 96))
    content = bytearray(path.read_bytes())
    matrix_at = content.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in MATRICES[degrees])
    content[matrix_at : matrix_at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    source = probe(path)
    assert source.rotation == degrees
    converted, file = made(path)
    assert not converted.copied
    assert (converted.video.width, converted.video.height) == ((80, 48) if degrees == 180 else (48, 80))
    with av.open(str(path)) as container:
        for frame, original in zip(decoded(file), container.decode(video=0), strict=True):
            assert frame.rotation == 0
            small = original.reformat(width=80, height=48, interpolation="AREA")
            for plane, expected in zip(planes(frame), planes(small), strict=True):
                assert psnr(plane, apply_orientation(expected, source)) > 25


# --- Pixel formats and colours


def encode(
    path: Path,
    codec: str,
    pixels: str,
    images: Sequence[np.ndarray],
    *,
    colorspace: int = 6,
    color_range: int = 1,
    times: Sequence[int] = (),
    options: dict[str, str] | None = None,
) -> Path:
    """Encodes uint8 [H, W, 3] images with the colours that are stated."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, 25, options)
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.thread_count = 1
        context.height, context.width, context.pix_fmt = *images[0].shape[:2], pixels
        context.colorspace, context.color_range = colorspace, color_range
        for number, image in enumerate(images):
            frame = VideoFrame.from_ndarray(image, "rgb24")
            standard = {1: "ITU709", 9: "BT2020"}.get(colorspace, "ITU601")
            frame = frame.reformat(format=pixels, dst_colorspace=standard, dst_color_range=color_range)
            frame.pts, frame.time_base = times[number] if times else number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def patches(width: int = 128, height: int = 96) -> np.ndarray:
    """uint8 [H, W, 3]: six flat colours, for which subsampled and scaled chroma are no matter."""
    colours = np.array([[[200, 40, 60], [30, 180, 70], [50, 60, 190]], [[230, 230, 230], [20, 20, 20], [180, 170, 30]]])
    return colours.repeat(-(-height // 2), 0).repeat(-(-width // 3), 1)[:height, :width].astype(np.uint8)


@pytest.mark.parametrize(
    ("codec", "suffix", "pixels", "colorspace", "color_range", "expected"),
    [
        ("libx264", "mp4", "yuv420p", 1, 1, 1),
        ("libx264", "mp4", "yuv420p", 9, 1, 9),
        ("libx264", "mp4", "yuv420p", 6, 1, 6),
        ("libx264", "mp4", "yuv420p", 2, 1, 6),  # not stated: read as BT.601
        ("libx264", "mp4", "yuv420p", 1, 2, 1),  # full range
        ("mjpeg", "avi", "yuvj420p", 6, 2, 6),  # the same in another way
        ("libvpx-vp9", "webm", "yuv420p", 1, 2, 1),  # and in a third: stated, and not by the pixel format
        ("libx264", "mp4", "yuv420p10le", 1, 1, 6),  # converted to BT.601
        ("libx264", "mp4", "yuv444p", 6, 1, 6),
        ("ffv1", "mkv", "yuv422p10le", 6, 1, 6),
        ("ffv1", "mkv", "bgr0", 0, 2, 6),
    ],
)
def test_colours_stay(
    tmp_path: Path, codec: str, suffix: str, pixels: str, colorspace: int, color_range: int, expected: int
) -> None:
    image = patches()
    path = tmp_path / f"video.{suffix}"
    encode(path, codec, pixels, [image] * 4, colorspace=colorspace, color_range=color_range)
    _, file = made(path, TranscodeSettings(short_side=64, crf=8))
    frame = decoded(file)[-1]
    assert (frame.format.name, frame.colorspace, frame.color_range) == ("yuv420p", expected, 1)
    found = to_rgb(frame)
    for top in (0.25, 0.75):
        for left in (1 / 6, 1 / 2, 5 / 6):
            there = found[int(top * frame.height), int(left * frame.width)]
            assert there == pytest.approx(image[int(top * 96), int(left * 128)].astype(float), abs=7)


# --- What is compared


def test_a_mark_is_of_all_that_is_seen() -> None:
    """One sample of any plane, or the way the planes turn into RGB; not what lies between the rows."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (72, 50), np.uint8)  # the rows of 50 x 48 pixels are padded

    def made(pixels: np.ndarray, colorspace: int = 6, color_range: int = 1) -> VideoFrame:
        frame = VideoFrame.from_ndarray(pixels, "yuv420p")
        frame.colorspace, frame.color_range = colorspace, color_range
        return frame

    changes = [made(pixels, colorspace=1), made(pixels, color_range=2)]
    for location in ((0, 0), (47, 49), (48, 0), (59, 49), (60, 0), (71, 49)):  # first and last of Y, U and V
        other = pixels.copy()
        other[location] ^= 1
        changes.append(made(other))
    padded = made(pixels)
    for plane in padded.planes:
        rows = np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, -1).copy()
        assert rows.shape[1] > plane.width
        rows[:, plane.width :] ^= 255
        plane.update(rows.tobytes())
    assert frame_checksum(padded) == frame_checksum(made(pixels))
    assert len({frame_checksum(frame) for frame in [made(pixels), *changes]}) == 9


# --- Copying


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_a_file_that_fits_is_copied(make_video: MakeVideo, tmp_path: Path, suffix: str) -> None:
    path = make_video(tmp_path / f"video.{suffix}", frames=45, size=(80, 48), gop=12)
    converted, file = made(path)
    assert converted.copied
    assert converted.video.fragments is not None
    assert converted.video.fragments.first_frames.tolist() == [0, 12, 24, 36]
    frames = decoded(file)
    assert [frame_checksum(frame) for frame in frames] == [frame_checksum(frame) for frame in decoded(path)]
    assert [frame.time for frame in frames] == pytest.approx([number / 25 for number in range(45)])
    if suffix in ("mp4", "mkv"):  # the others delimit coded frames otherwise
        with av.open(str(path)) as container:
            packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
        data = file.read_bytes()
        assert list(mp4.samples(data)) == packets
    assert file.read_bytes() == made(path)[1].read_bytes()


def test_what_does_not_fit_is_not_copied(make_video: MakeVideo, tmp_path: Path) -> None:
    size = (80, 48)
    unfit = {
        "B-frames": make_video(tmp_path / "a.mp4", size=size, bframes=2),
        "large": make_video(tmp_path / "b.mp4", size=(100, 60)),
        "long groups": make_video(tmp_path / "c.mp4", size=size, frames=40, gop=40),
        "full range": encode(
            tmp_path / "d.mp4", "libx264", "yuv420p", [patches(*size)] * 4, color_range=2, options={"bf": "0"}
        ),
        "no key frames": encode(
            tmp_path / "e.ts",
            "libx264",
            "yuv420p",
            [patches(*size)] * 40,
            options={"bf": "0", "intra-refresh": "1", "g": "12"},
        ),
        "fields": encode(
            tmp_path / "f.mp4", "libx264", "yuv420p", [patches(*size)] * 4, options={"bf": "0", "x264-params": "tff=1"}
        ),
    }
    for reason, path in unfit.items():
        converted, file = made(path)
        assert not converted.copied, reason
        assert len(decoded(file)) == len(decoded(path)), reason


def test_hidden_frames_are_not_copied(make_video: MakeVideo, trimmed: Trimmed, tmp_path: Path) -> None:
    """A trimmed file keeps the pictures before its first one, since that needs them."""
    whole = make_video(tmp_path / "whole.mp4", size=(80, 48))
    path = trimmed(whole, tmp_path / "trimmed.mp4")
    converted, file = made(path)
    assert not converted.copied
    assert [number_on(frame) for frame in decoded(file)] == list(range(4, 24))


def test_colours_that_only_the_container_states_are_not_lost(make_video: MakeVideo, tmp_path: Path) -> None:
    """The loader hands packets to a decoder, without the container: there the frames would be read as BT.601."""
    path = make_video(tmp_path / "video.mp4", size=(80, 48))
    content = bytearray(path.read_bytes())
    box = struct.pack(">I4s4s3HB", 19, b"colr", b"nclx", 1, 1, 1, 0)
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):  # all at the end of the file
        at = content.rindex(kind) - 4
        (size,) = struct.unpack_from(">I", content, at)
        struct.pack_into(">I", content, at, size + len(box))
    content[at + size : at + size] = box
    path.write_bytes(content)
    assert decoded(path)[0].colorspace == 1
    converted, file = made(path)
    assert (converted.copied, decoded(file)[0].colorspace) == (False, 1)


# --- What cannot be done


def test_a_source_that_is_no_longer_what_it_was(make_video: MakeVideo, tmp_path: Path) -> None:
    path = make_video(tmp_path / "video.avi", frames=10, codec="mpeg4")
    video = probe(path)
    with pytest.raises(DataError, match=r"^decodes to 12 frames at first, and to 10 the next time$"):
        transcode(path, replace(video, frames=12), tmp_path / "converted", SMALL)
    path.write_bytes(b"no video" * 100)
    with pytest.raises(DataError, match=r"^cannot be encoded \(Invalid data"):
        transcode(path, video, tmp_path / "converted", SMALL)
    path.unlink()
    with pytest.raises(DataError, match=r"^cannot be encoded \(No such file"):
        transcode(path, video, tmp_path / "converted", SMALL)


def test_a_file_that_cannot_be_written(make_video: MakeVideo, tmp_path: Path) -> None:
    for size in ((64, 48), (48, 32)):  # encoded, copied
        path = make_video(tmp_path / "video.mp4", frames=10, size=size)
        with pytest.raises(NotADirectoryError):
            transcode(path, probe(path), path / "converted", TranscodeSettings(short_side=32))


def test_settings() -> None:
    for wrong in ({"short_side": 127}, {"short_side": 8}, {"gop": 0}, {"gop": 251}, {"crf": 0}, {"crf": 52}):
        with pytest.raises(UsageError, match=str(*wrong.values())):
            TranscodeSettings(**wrong)
    with pytest.raises(UsageError, match=r"short side 1: .*; GOP 0: .*; CRF 99"):
        TranscodeSettings(short_side=1, gop=0, crf=99)
