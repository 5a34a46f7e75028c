"""Frame numbers mean the same frame, bit for bit, whether a file is decoded from its start or from a seek point."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from av.codec import Codec, CodecContext
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from cacl.clips import VideoRecord
from cacl.errors import DataError
from cacl.loaders.decode.probe import probe
from cacl.loaders.decode.raw import decode_frames
from tests.conftest import picture

MakeVideo = Callable[..., Path]

Trimmed = Callable[[Path, Path], Path]

FRAMES, GOP = 50, 12


def encodes(codec: str) -> bool:
    try:
        return Codec(codec, "w").is_encoder
    except ValueError:
        return False


KINDS = [
    ("libx264", "mp4", 0),
    ("libx264", "mp4", 2),
    ("libx264", "mkv", 0),
    ("libx264", "mkv", 2),
    ("libx264", "avi", 0),
    ("libx264", "ts", 0),
    ("libx264", "ts", 2),
    ("mpeg4", "avi", 0),
    ("mpeg4", "avi", 2),
    ("mpeg4", "mp4", 2),
    ("libvpx-vp9", "webm", 0),
    ("libvpx-vp9", "mkv", 0),
    pytest.param("libx265", "mp4", 2, marks=pytest.mark.skipif(not encodes("libx265"), reason="no HEVC encoder")),
    pytest.param("libx265", "mkv", 0, marks=pytest.mark.skipif(not encodes("libx265"), reason="no HEVC encoder")),
]


@pytest.mark.parametrize(("codec", "suffix", "bframes"), KINDS)
def test_every_clip_is_that_of_a_full_decode(
    make_video: MakeVideo, tmp_path: Path, codec: str, suffix: str, bframes: int
) -> None:
    path = make_video(tmp_path / f"video.{suffix}", frames=FRAMES, gop=GOP, codec=codec, bframes=bframes)
    video, whole = probe(path), full_decode(path)
    assert video.frames == len(whole) == FRAMES
    assert len(set(whole)) == FRAMES, "frames must differ for this test to see a mistake"
    assert all(0 < point.frame < FRAMES for point in video.seek_points)
    for stride in (1, 2, 3, 7, 13):
        for start in (*range(GOP + 2), 22, 23, 24, 25, 35, 36, 37, 46, 47, 48, 49):
            numbers = range(start, FRAMES, stride)[:5]
            assert clip(path, numbers, video) == [whole[n] for n in numbers], (start, stride)
    assert clip(path, range(FRAMES), video) == whole


@pytest.mark.parametrize(("codec", "suffix", "bframes"), KINDS)
def test_key_frames_become_seek_points(
    make_video: MakeVideo, tmp_path: Path, codec: str, suffix: str, bframes: int
) -> None:
    path = make_video(tmp_path / f"video.{suffix}", frames=FRAMES, gop=GOP, codec=codec, bframes=bframes)
    assert [point.frame for point in probe(path).seek_points] == [12, 24, 36, 48]


@pytest.mark.parametrize(("codec", "suffix", "bframes"), [("libx264", "mp4", 2), ("mpeg4", "mp4", 0)])
def test_nothing_before_the_seek_point_is_decoded(
    make_video: MakeVideo, tmp_path: Path, codec: str, suffix: str, bframes: int
) -> None:
    """All pictures before frame 36 are overwritten with zeros: the frames from there on are still the true ones."""
    path = make_video(tmp_path / f"video.{suffix}", frames=FRAMES, gop=GOP, codec=codec, bframes=bframes)
    video, whole = probe(path), full_decode(path)
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    begin = 0
    for packet in packets[:36]:
        begin = content.index(packet, begin)
        content[begin : begin + len(packet)] = bytes(len(packet))
    path.write_bytes(content)
    for numbers in (range(36, 50), range(37, 50, 4), range(47, 50), range(49, 50)):
        assert clip(path, numbers, video) == [whole[n] for n in numbers]
    try:
        lost = clip(path, range(10), video)
    except DataError:
        return
    assert lost != whole[:10]


def test_frames_hidden_by_an_edit_list_have_no_number(make_video: MakeVideo, trimmed: Trimmed, tmp_path: Path) -> None:
    """A trimmed file keeps the pictures before its first one, since that needs them."""
    whole = make_video(tmp_path / "whole.mp4", frames=FRAMES, gop=GOP, bframes=2)
    path = trimmed(whole, tmp_path / "trimmed.mp4")
    video, shown = probe(path), full_decode(whole)[4:]
    assert (video.frames, video.declared_frames) == (FRAMES - 4, FRAMES - 4)
    for start in range(FRAMES - 4):
        numbers = range(start, FRAMES - 4, 3)[:4]
        assert clip(path, numbers, video) == [shown[n] for n in numbers], start


# --- Real footage


def test_real_clips_are_those_of_a_full_decode(footage: Path) -> None:
    rng = np.random.default_rng(0)
    files = sorted((footage / "formats").iterdir()) + sorted((footage / "ut_interaction").rglob("*.avi"))[::12]
    usable = 0
    for path in files:
        try:
            video = probe(path)
        except DataError:
            continue
        whole = full_decode(path)
        assert video.frames == len(whole), path.name
        usable += 1
        last = video.frames - 1
        spans = [(0, video.frames, 1), (last, 1, 1), (max(0, last - 1), 2, 1)]
        for length in (1, 2, 3, 8, 16):
            stride = int(rng.integers(1, 1 + max(1, last // length)))
            start = int(rng.integers(0, max(1, last - (length - 1) * stride + 1)))
            spans.append((start, length, stride))
        for start, length, stride in spans:
            numbers = range(start, video.frames, stride)[:length]
            assert clip(path, numbers, video) == [whole[n] for n in numbers], (path.name, start, length, stride)
    assert usable == 11 + 10


UNUSABLE = {
    "corrupted.mp4": r"^decoding fails after 28 of 50 frames \(Invalid data found when processing input\)$",
    "result.webm": r"^is empty \(0 bytes\)$",
}

USABLE = {
    "RATRACE_wave_f_nm_np1_fr_goo_37.avi": ("mpeg4", 72, 73, 560, 240, 0),
    "av1_video.mkv": ("av1", 125, 0, 640, 360, 0),
    "fire2.mp4": ("h264", 25, 25, 1280, 720, 180),
    "hmdb51_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi": ("mpeg4", 83, 84, 320, 240, 0),
    "nasa_13013.mp4": ("h264", 390, 390, 480, 270, 0),  # Its larger stream is used.
    "no_duration.webm": ("vp9", 74, 0, 1280, 720, 0),
    "test_non_zero_start.mp4": ("h264", 12, 12, 200, 112, 0),
    "testsrc2_odd_height_and_width_vp9.mp4": ("vp9", 25, 25, 321, 241, 0),
    "unordered.mov": ("h264", 4, 4, 50, 50, 0),
    "v_SoccerJuggling_g23_c01.avi": ("mpeg4", 240, 240, 320, 240, 0),
    "video_90.mov": ("h264", 3, 3, 320, 568, 270),
}


def test_each_real_file_is_usable_or_has_a_reason(footage: Path) -> None:
    assert {path.name for path in (footage / "formats").iterdir()} == {*USABLE, *UNUSABLE}
    for name, reason in UNUSABLE.items():
        with pytest.raises(DataError, match=reason):
            probe(footage / "formats" / name)
    for name, expected in USABLE.items():
        v = probe(footage / "formats" / name)
        assert (v.codec, v.frames, v.declared_frames, v.width, v.height, v.rotation) == expected, name


# --- Files that changed after the scan


def test_a_file_that_changed_is_named(make_video: MakeVideo, tmp_path: Path) -> None:
    path = make_video(tmp_path / "video.mp4", frames=FRAMES, gop=GOP)
    video = probe(path)
    make_video(path, frames=20, gop=GOP)
    for numbers in (range(0, 40, 2), range(18, 24), range(40, 50), range(49, 50)):
        with pytest.raises(DataError, match=rf"^{path}: .*; scan the folder again$"):
            clip(path, numbers, video)
    whole = path.read_bytes()
    for content in (b"", b"no video" * 100, whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"^{path}: decoding fails \(.*\); scan the folder again$"):
            clip(path, range(10), video)
    path.unlink()
    with pytest.raises(DataError, match=rf"^{path}: decoding fails \(No such file or directory\)"):
        clip(path, range(10), video)


def test_a_file_that_shrank_before_the_wanted_frame(make_video: MakeVideo, tmp_path: Path) -> None:
    path = make_video(tmp_path / "video.mp4", frames=20, gop=GOP)
    video = probe(path)
    with pytest.raises(DataError, match=r"video\.mp4: ends before frame 20, which was there when it was scanned"):
        clip(path, range(16, 24), video)


@pytest.mark.parametrize("damaged", [0, 3, 13])
def test_damage_that_the_decoder_conceals(make_video: MakeVideo, tmp_path: Path, damaged: int) -> None:
    """The decoder makes frames of the half of a coded frame that is left, and of all frames that refer to it."""
    path = make_video(tmp_path / "video.mp4", frames=FRAMES, size=(128, 96), gop=GOP)
    video = probe(path)
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    content, half = bytearray(path.read_bytes()), len(packets[damaged]) // 2
    end = content.index(packets[damaged]) + len(packets[damaged])
    content[end - half : end] = b"\xff" * half
    path.write_bytes(content)
    key = damaged // GOP * GOP
    for numbers in (range(key, damaged + 1), range(damaged, damaged + 1), range(damaged + 1, key + GOP)):
        with pytest.raises(DataError, match=rf"^{path}: decoding fails \(.*\); scan the folder again$"):
            clip(path, numbers, video)
    clip(path, range(key + GOP, FRAMES), video)


def test_another_video_in_the_place_of_a_file(make_video: MakeVideo, tmp_path: Path) -> None:
    """Crops of the other video would lie elsewhere, or reach over its edge."""
    path = make_video(tmp_path / "video.mp4", frames=FRAMES, size=(64, 48))
    video = probe(path)
    make_video(path, frames=FRAMES, size=(48, 64))
    with pytest.raises(DataError, match=rf"^{path}: decoding fails \(frame 0 is not what it was\)"):
        clip(path, range(4), video)
    clip(path, range(4), replace(video, rotation=90))


def test_a_format_without_a_decoder(make_video: MakeVideo, tmp_path: Path) -> None:
    path = make_video(tmp_path / "video.mp4", frames=FRAMES)
    video = probe(path)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(DataError, match=r"^is in a format that there is no decoder for$"):
        probe(path)
    with pytest.raises(DataError, match=rf"^{path}: decoding fails \(is in a format that there is no decoder for\)"):
        clip(path, range(4), video)


# --- Key frames that are none, and timestamps that say little


RECOVERY_POINT = bytes([6, 6, 1, 0xC4, 0x80])
"""An SEI message of H.264 (D.1.8): decoding may start here, and is exact at once."""


def recoded(source: Path, path: Path, change: Callable[[int, Packet], bytes | None]) -> Path:
    """Writes the coded frames of `source` into another file.

    `change` gets the number of each and its packet, of which it may set times and flags, and returns other bytes for
    it, or None.
    """
    with av.open(str(source)) as opened, av.open(str(path), "w") as container:
        stream = opened.streams.video[0]
        copy = container.add_stream_from_template(stream)
        for number, packet in enumerate(packet for packet in opened.demux(stream) if packet.size):
            content = change(number, packet)
            changed = Packet(content) if content else packet
            for name in ("pts", "dts", "duration", "time_base", "is_keyframe"):
                setattr(changed, name, getattr(packet, name))
            changed.stream = copy
            container.mux(changed)
    return path


def encode(path: Path, images: Sequence[np.ndarray], options: dict[str, str]) -> Path:
    """Encodes images, uint8 [H, W, 3], as H.264."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 25, options)
        stream.height, stream.width = images[0].shape[:2]
        stream.codec_context.thread_count = 1
        for image in images:
            container.mux(stream.encode(VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_key_frame_that_its_successors_look_behind(tmp_path: Path, suffix: str) -> None:
    """The scene changes at frame 12, which is coded by itself; in the right half it changes back with frame 13, which
    refers to frame 11 there. Marked as a place to start at, frame 12 decodes from there, and no frame after it."""
    draw = np.random.default_rng(0)
    before, after = draw.integers(0, 256, (2, 48, 64, 3), np.uint8)
    images = []
    for number in range(30):
        image = (before if number < 12 else after).copy()
        image[:, 32:] = (after if number == 12 else before)[:, 32:]
        image[:4] = 5 * number
        images.append(image)
    options = {"bf": "0", "refs": "4", "sc_threshold": "100", "keyint_min": "100", "rc-lookahead": "0", "qp": "20"}
    whole = encode(tmp_path / "whole.mp4", images, options)

    def promise(number: int, packet: Packet) -> bytes | None:
        packet.is_keyframe = number in (0, 12)
        return struct.pack(">I", len(RECOVERY_POINT)) + RECOVERY_POINT + bytes(packet) if number == 12 else None

    path = recoded(whole, tmp_path / f"video.{suffix}", promise)
    shown = full_decode(whole)
    assert full_decode(path) == shown
    with av.open(str(path)) as container:
        times = [frame.pts for frame in container.decode(video=0)]
        container.seek(times[12] or 0, stream=container.streams.video[0])
        sought = checksums(islice(container.decode(video=0), 2))
        assert (sought[0] == shown[12], sought[1] == shown[13]) == (True, False), "else there is nothing to be seen"
    video = probe(path)
    assert [clip(path, range(start, start + 3), video) for start in range(27)] == [
        shown[start : start + 3] for start in range(27)
    ]


def test_frames_of_the_same_time(tmp_path: Path) -> None:
    """Frames 11 to 37 look alike and have one timestamp, so a seek to the key frame 12 ends at the key frame 24. That
    shows only in clips that begin between these two and last until something moves."""
    numbers = [*range(12), *[11] * 26, *range(12, 24)]
    options = {"bf": "0", "g": "12", "sc_threshold": "0", "qp": "0"}
    whole = encode(tmp_path / "whole.mkv", [picture(number, (64, 48)) for number in numbers], options)

    def at_once(number: int, packet: Packet) -> None:
        packet.is_keyframe = number in (0, 24, 48)
        assert packet.dts is not None
        packet.pts = packet.dts = 40 * (11 if 11 <= number <= 37 else number)  # milliseconds

    path = recoded(whole, tmp_path / "video.mkv", at_once)
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert [number for number, frame in enumerate(frames) if frame.key_frame] == [0, 12, 24, 36, 48]
    assert len({frame.pts for frame in frames[11:38]}) == 1
    video, shown = probe(path), full_decode(whole)
    assert len({*shown[11:38]}) == 1
    for start in range(len(numbers)):
        assert clip(path, range(start, len(numbers)), video) == shown[start:], start


def test_cover_art_is_not_the_video(make_video: MakeVideo, tmp_path: Path) -> None:
    """The cover is as iTunes writes it, but before the video: FFmpeg takes it for the first stream."""
    path = make_video(tmp_path / "video.mp4", frames=20)
    whole = full_decode(path)
    cover = VideoFrame.from_ndarray(np.full((90, 120, 3), 200, np.uint8), "rgb24").reformat(format="yuvj420p")
    encoder = CodecContext.create("mjpeg", "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 120, 90, "yuvj420p", Fraction(1, 25)
    (jpeg,) = [*encoder.encode(cover), *encoder.encode()]
    handler = box(b"hdlr", bytes(8), b"mdirappl", bytes(9))
    art = box(b"covr", box(b"data", struct.pack(">II", 13, 0), bytes(jpeg)))
    tags = box(b"udta", box(b"meta", bytes(4), handler, box(b"ilst", art)))
    content = path.read_bytes()
    moov, track = content.rindex(b"moov") - 4, content.rindex(b"trak") - 4  # It lies behind all frames, so none moves.
    size = int.from_bytes(content[moov : moov + 4], "big") + len(tags)
    path.write_bytes(content[:moov] + size.to_bytes(4, "big") + content[moov + 4 : track] + tags + content[track:])
    with av.open(str(path)) as container:
        assert [stream.codec_context.name for stream in container.streams.video] == ["mjpeg", "h264"]
    video = probe(path)
    assert (video.codec, video.frames, video.width, video.height) == ("h264", 20, 64, 48)
    assert clip(path, range(20), video) == whole


def box(kind: bytes, *content: bytes) -> bytes:
    """Builds a box of ISO/IEC 14496-12."""
    return struct.pack(">I4s", 8 + sum(map(len, content)), kind) + b"".join(content)


# --- A second way to decode


def clip(path: Path, numbers: range, video: VideoRecord) -> list[int]:
    return checksums(decode_frames(path, video, numbers))


def full_decode(path: Path) -> list[int]:
    with av.open(str(path), metadata_errors="ignore") as container:
        return checksums(container.decode(max(container.streams.video, key=lambda stream: stream.width)))


def checksums(frames: Iterable[VideoFrame]) -> list[int]:
    """Returns a checksum of the visible pixels of each frame, over all planes."""
    return [zlib.crc32(b"".join(rows(frame))) for frame in frames]


def rows(frame: VideoFrame) -> Iterable[bytes]:
    for part in frame.planes:
        pixels = np.frombuffer(bytes(part), np.uint8).reshape(part.height, part.line_size)
        yield pixels[:, : part.width].tobytes()
