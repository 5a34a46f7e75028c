"""A converted video has every frame of its source exactly once, in small GOPs that decode alone."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.video.frame import PictureType, VideoFrame

from cacl.errors import DataError, UsageError
from cacl.loaders.decode import mp4
from cacl.loaders.decode.probe import probe
from cacl.loaders.decode.raw import decode_frames
from cacl.loaders.decode.yuv import apply_orientation, frame_checksum, planes
from cacl.loaders.prepared.transcode import TranscodeSettings, _mux_encoded, scale_frames, scaled_size, transcode
from tests.loaders.prepared.transcoded import (
    SMALL,
    decoded,
    encode,
    made,
    number_on,
    patches,
    psnr,
    to_rgb,
    with_each_codec,
)

MakeVideo = Callable[..., Path]


# --- Encoding


KINDS = [
    ("mpeg4", "avi", 2),
    ("mpeg4", "avi", 0),
    ("libvpx-vp9", "webm", 0),
    ("libx264", "mp4", 2),
    ("libx264", "mkv", 2),
    ("libx264", "ts", 2),
]


@with_each_codec
@pytest.mark.parametrize(("encoder", "suffix", "bframes"), KINDS)
def test_every_frame_once(
    make_video: MakeVideo, tmp_path: Path, encoder: str, suffix: str, bframes: int, codec: str
) -> None:
    path = tmp_path / f"video.{suffix}"
    make_video(path, frames=45, size=(160, 96), codec=encoder, bframes=bframes, rate=Fraction(30000, 1001))
    source = probe(path)
    converted, file = made(path, replace(SMALL, codec=codec))
    frames = decoded(file)
    assert [number_on(frame) for frame in frames] == list(range(45))
    originals = scale_frames(decode_frames(path, source, range(45)), source, 48)
    assert min(psnr(planes(a)[0], planes(b)[0]) for a, b in zip(frames, originals, strict=True)) > 30
    assert [frame.time for frame in frames] == pytest.approx([number * 1001 / 30000 for number in range(45)])

    video = converted.video
    assert not converted.copied
    assert (video.frames, video.declared_frames, video.width, video.height) == (45, 45, 80, 48)
    assert (video.codec, video.rate, video.rotation) == (codec, pytest.approx(30000 / 1001), 0)
    assert (probe(file).codec, probe(file).frames) == (codec, 45)
    assert (frames[0].width, frames[0].height, frames[0].format.name) == (80, 48, "yuv420p")
    assert [number for number, frame in enumerate(frames) if frame.key_frame] == list(range(0, 45, 8))
    assert PictureType.B not in {frame.pict_type for frame in frames}


@with_each_codec
def test_what_is_told_of_the_fragments(make_video: MakeVideo, tmp_path: Path, codec: str) -> None:
    path = make_video(tmp_path / "video.avi", frames=20, codec="mpeg4")
    converted, file = made(path, replace(SMALL, codec=codec))
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


@pytest.mark.parametrize(("codec", "types"), [("h264", {5}), ("hevc", {19, 20})])
def test_groups_are_closed(make_video: MakeVideo, tmp_path: Path, codec: str, types: set[int]) -> None:
    """Each begins with an IDR picture (ITU-T H.264, table 7-1, and H.265, table 7-1), and has no other one."""
    path = make_video(tmp_path / "video.avi", frames=20, codec="mpeg4")
    _, file = made(path, replace(SMALL, codec=codec))
    layout, found = mp4.CODECS[codec], []
    for number, sample in enumerate(mp4.samples(file.read_bytes())):
        units = (unit[0] >> layout.unit_type_shift & layout.unit_type_mask for unit in mp4._nal_units(sample, 4))
        found += [number] if types.intersection(units) else []
    assert found == [0, 8, 16]


@pytest.mark.parametrize(("codec", "own_threads"), [("h264", 0), ("hevc", 1)])
def test_an_encoder_has_one_thread(make_video: MakeVideo, tmp_path: Path, codec: str, own_threads: int) -> None:
    """Whatever the number of cores: the bytes would depend on it. x264 takes the caller's, x265 starts its own."""
    path = make_video(tmp_path / "video.avi", frames=20, codec="mpeg4")
    threads = Path("/proc/self/task")
    before, during = len(list(threads.iterdir())), set[int]()

    def frames() -> Iterator[VideoFrame]:
        for frame in scale_frames(decode_frames(path, probe(path), range(20)), probe(path), 48):
            yield frame
            during.add(len(list(threads.iterdir())))

    _mux_encoded(frames(), Fraction(25), replace(SMALL, codec=codec))
    assert during == {before + own_threads}


@with_each_codec
def test_each_setting_counts(make_video: MakeVideo, tmp_path: Path, codec: str) -> None:
    """One source is made with shorter GOPs, a smaller frame, and a rate factor 12 higher, which leaves about a
    quarter of the bytes (6 halve them)."""
    path = make_video(tmp_path / "video.avi", frames=20, size=(160, 96), codec="mpeg4")

    def shown(**settings: int) -> tuple[list[int], tuple[int, int], int]:
        numbers = {"short_side": 64, "gop": 8, "crf": 20} | settings
        converted, file = made(path, TranscodeSettings(**numbers, codec=codec))
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
    assert np.abs(inner - (16 + 219 / 2)).max() < 40  # Half the contrast would be 55.


@with_each_codec
def test_the_same_bytes_each_time(
    make_video: MakeVideo, tmp_path: Path, codec: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = make_video(tmp_path / "video.avi", frames=40, size=(320, 240), codec="mpeg4", bframes=2)
    first, second = (made(path, TranscodeSettings(codec=codec))[1].read_bytes() for _ in range(2))
    assert first == second
    assert b"Lavf" not in first
    assert capfd.readouterr() == ("", "")


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
def test_scaled_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
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


@with_each_codec
@pytest.mark.parametrize(
    ("encoder", "suffix", "pixels", "colorspace", "color_range", "expected"),
    [
        ("libx264", "mp4", "yuv420p", 1, 1, 1),
        ("libx264", "mp4", "yuv420p", 9, 1, 9),
        ("libx264", "mp4", "yuv420p", 6, 1, 6),
        ("libx264", "mp4", "yuv420p", 2, 1, 6),  # Nothing is stated: it is read as BT.601.
        ("libx264", "mp4", "yuv420p", 1, 2, 1),  # full range
        ("mjpeg", "avi", "yuvj420p", 6, 2, 6),  # full range, stated in another way
        ("libvpx-vp9", "webm", "yuv420p", 1, 2, 1),  # full range, stated in a third way, which is not the pixel format
        ("libx264", "mp4", "yuv420p10le", 1, 1, 6),  # converted to BT.601
        ("libx264", "mp4", "yuv444p", 6, 1, 6),
        ("ffv1", "mkv", "yuv422p10le", 6, 1, 6),
        ("ffv1", "mkv", "bgr0", 0, 2, 6),
    ],
)
def test_colours_stay(
    tmp_path: Path, encoder: str, suffix: str, pixels: str, colorspace: int, color_range: int, expected: int, codec: str
) -> None:
    image = patches()
    path = tmp_path / f"video.{suffix}"
    encode(path, encoder, pixels, [image] * 4, colorspace=colorspace, color_range=color_range)
    _, file = made(path, TranscodeSettings(short_side=64, crf=8, codec=codec))
    frame = decoded(file)[-1]
    assert (frame.format.name, frame.colorspace, frame.color_range) == ("yuv420p", expected, 1)
    found = to_rgb(frame)
    for top in (0.25, 0.75):
        for left in (1 / 6, 1 / 2, 5 / 6):
            there = found[int(top * frame.height), int(left * frame.width)]
            assert there == pytest.approx(image[int(top * 96), int(left * 128)].astype(float), abs=7)


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


def test_a_video_that_is_too_small_for_hevc(make_video: MakeVideo, tmp_path: Path) -> None:
    for size, is_large_enough in (((40, 14), False), ((15, 40), False), ((17, 16), True)):
        path = make_video(tmp_path / "video.mkv", frames=3, size=size, codec="ffv1")
        if is_large_enough:
            assert made(path, TranscodeSettings(codec="hevc"))[0].video.frames == 3
            continue
        with pytest.raises(DataError, match=r"^would be \d\dx\d\d, and HEVC begins at 16x16; `--codec h264` takes it$"):
            made(path, TranscodeSettings(codec="hevc"))
        assert made(path, TranscodeSettings())[0].video.frames == 3


def test_a_file_that_cannot_be_written(make_video: MakeVideo, tmp_path: Path) -> None:
    for size in ((64, 48), (48, 32)):  # The first is encoded, the second copied.
        path = make_video(tmp_path / "video.mp4", frames=10, size=size)
        with pytest.raises(NotADirectoryError):
            transcode(path, probe(path), path / "converted", TranscodeSettings(short_side=32))


def test_settings() -> None:
    for wrong in ({"short_side": 127}, {"short_side": 8}, {"gop": 0}, {"gop": 251}, {"crf": 0}, {"crf": 52}):
        with pytest.raises(UsageError, match=str(*wrong.values())):
            replace(TranscodeSettings(), **wrong)
    with pytest.raises(UsageError, match=r"short side 1: .*; GOP 0: .*; CRF 99: .*; codec av1: give h264 or hevc$"):
        TranscodeSettings(short_side=1, gop=0, crf=99, codec="av1")
