"""Boxes of fragmented MP4 files, against the demuxer of FFmpeg; and nothing but ValueError where there are none."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
import pytest

from cacl.loaders.decode import mp4

MakeVideo = Callable[..., Path]
T = TypeVar("T")
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof+skip_trailer"}
REASONS = ["ends within a box", "does not fit", "holds no box", "lie outside of it", "names no"]
"""Others, such as those of numpy, would be our mistake."""


@pytest.fixture(
    scope="module",
    params=[
        *((30, 12, 0, "h264"), (24, 12, 0, "h264"), (7, 1, 0, "h264"), (1, 12, 0, "h264"), (40, 250, 0, "h264")),
        *((9, 4, 1, "h264"), (5, 1, 1, "h264"), (9, 20, 1, "h264"), (30, 12, 0, "hevc"), (1, 12, 0, "hevc")),
    ],
    ids=lambda param: "{3}, {0} frames, GOP {1}{2}".format(*param[:2], ", equal samples" * param[2], param[3]),
)
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, make_video: MakeVideo) -> bytes:
    frames, gop, equal, codec = request.param
    path = tmp_path_factory.mktemp("mp4") / "a.mp4"
    if equal:
        return equal_samples(make_video(path).read_bytes(), frames, gop)
    encoder = {"h264": "libx264", "hevc": "libx265"}[codec]
    return make_video(path, frames=frames, gop=gop, codec=encoder, muxer=FRAGMENTED).read_bytes()


def equal_samples(of: bytes, frames: int, gop: int) -> bytes:
    """Repeats the first frame: FFmpeg writes the size of samples only once then."""
    target = io.BytesIO()
    with av.open(io.BytesIO(of), "r") as source, av.open(target, "w", format="mp4", options=FRAGMENTED) as container:
        (stream,) = source.streams.video
        assert stream.time_base
        picture = bytes(next(source.demux(stream)))
        copy = container.add_stream_from_template(stream, opaque=True)
        for number in range(frames):
            packet = av.Packet(picture)
            packet.pts = packet.dts = number
            packet.duration, packet.time_base, packet.stream = 1, stream.time_base, copy
            packet.is_keyframe = number % gop == 0
            container.mux(packet)
    return target.getvalue()


def test_all_is_read_as_by_ffmpeg(file: bytes) -> None:
    with av.open(io.BytesIO(file), "r") as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        extradata = container.streams.video[0].codec_context.extradata
    coded = [bytes(packet) for packet in packets]
    offsets, frames = mp4.find_fragments(file)
    assert offsets == sorted(set(offsets))
    assert offsets[-1] == len(file)
    assert len(offsets) == len(frames) + 1
    assert configuration(file[: offsets[0]]) == [extradata]
    first = [0, *accumulate(frames)]
    assert first[-1] == len(packets)
    if len(set(coded)) > 1:  # Else all are key frames.
        assert [n for n, packet in enumerate(packets) if packet.is_keyframe] == first[:-1]
    assert list(mp4.samples(file)) == list(mp4.samples(file[offsets[0] :])) == coded
    for (start, end), (a, b) in zip(pairwise(offsets), pairwise(first), strict=True):
        assert [box.kind for box in mp4.boxes(file, start, end)] == [b"moof", b"mdat"]
        assert all(packet.pos is not None and start < packet.pos < end for packet in packets[a:b])
        assert list(mp4.samples(file[start:end])) == coded[a:b]
    for start, end in [(0, 1), (len(frames) // 2, len(frames)), (len(frames) - 1, len(frames))]:
        part = file[offsets[start] : offsets[end]]
        assert list(mp4.samples(part)) == coded[first[start] : first[end]]
        with av.open(io.BytesIO(file[: offsets[0]] + part), "r") as container:  # It is a file itself.
            assert [bytes(p) for p in container.demux(video=0) if p.size] == coded[first[start] : first[end]]


def test_equal_samples_have_one_size(make_video: MakeVideo, tmp_path: Path) -> None:
    """Without such a file, the branch for default sizes would not be tested at all."""
    data = equal_samples(make_video(tmp_path / "a.mp4").read_bytes(), 6, 3)
    for moof in (box for box in mp4.boxes(data) if box.kind == b"moof"):
        trun = mp4._find_box(data, moof, b"traf", b"trun")
        assert not int.from_bytes(data[trun.start + mp4.HEADER_BYTES :][:4], "big") & mp4.SAMPLE_SIZE


def test_boxes_lie_side_by_side(file: bytes) -> None:
    found = list(mp4.boxes(file))
    assert [box.start for box in found] == [0, *(box.end for box in found[:-1])]
    assert found[-1].end == len(file)
    assert [box.kind for box in found[:3]] == [b"ftyp", b"moov", b"moof"]
    assert all(file[box.start + 4 : box.start + 8] == box.kind for box in found)
    assert list(mp4.boxes(file, found[1].start, found[2].end)) == found[1:3]
    assert list(mp4.boxes(b"")) == []


# --- What is not such a file


def heads(data: bytes) -> list[int]:
    """Lists every offset that is not within coded frames."""
    coded = {
        at for box in mp4.boxes(data) if box.kind == b"mdat" for at in range(box.start + mp4.HEADER_BYTES, box.end)
    }
    return sorted(set(range(len(data))) - coded)


def attempt(read: Callable[[bytes], Iterable[T]], data: bytes) -> list[T] | None:
    """Returns None where the data is refused."""
    try:
        return list(read(data))
    except ValueError as error:
        if any(reason in str(error) for reason in REASONS):
            return None
        raise


def configuration(data: bytes) -> list[bytes]:
    return [mp4.decoder_configuration(data, "hevc" if b"hvc1" in data else "h264")]


def test_cut_short_anywhere(file: bytes) -> None:
    """Whole fragments make a shorter file; all else is refused."""
    coded, ends = list(mp4.samples(file)), {0, *(box.end for box in mp4.boxes(file))}
    offsets, frames = mp4.find_fragments(file)
    end_of_moov = next(box.end for box in mp4.boxes(file) if box.kind == b"moov")
    for length in {*heads(file), *range(0, len(file), 50)}:
        data, whole = file[:length], sum(offset <= length for offset in offsets[1:])
        if length in ends and (length < offsets[0] or length == offsets[whole]):
            assert list(mp4.samples(data)) == coded[: sum(frames[:whole])]
            assert mp4.find_fragments(data)[1] == frames[:whole]
        else:
            assert attempt(mp4.samples, data) is None
            assert attempt(mp4.find_fragments, data) is None
        assert (attempt(configuration, data) is not None) == (length >= end_of_moov)


@pytest.mark.parametrize("damage", [0x01, 0x80])
def test_any_byte_of_a_head_damaged(file: bytes, damage: int) -> None:
    """What is read then may be wrong (checksums tell), but comes from the file and ends."""
    offsets, _ = mp4.find_fragments(file)
    for location in heads(file):
        changed = bytearray(file)
        changed[location] ^= damage
        data = bytes(changed)
        assert all(sample in data for sample in attempt(mp4.samples, data) or [])
        attempt(mp4.find_fragments, data)
        attempt(configuration, data[: offsets[0]])


def test_fields_that_are_missing() -> None:
    """The sizes of two frames of three bytes are given by default or in the table, and some of that is missing."""
    by_default = numbers(0x10, 1, 3), numbers(0x1, 2, 0)
    by_table = numbers(0, 1), numbers(0x201, 2, 0, 3, 3)
    for tfhd, trun in (by_default, by_table):
        assert list(mp4.samples(fragment(tfhd, trun))) == [b"abc", b"def"]
        for length in range(len(trun)):
            assert attempt(mp4.samples, fragment(tfhd, trun[:length])) is None
        for length in range(len(tfhd)):
            assert (attempt(mp4.samples, fragment(tfhd[:length], trun)) is None) == (tfhd is by_default[0])
    assert attempt(mp4.samples, fragment(numbers(0, 1), numbers(0x1, 2, 0))) is None
    assert attempt(mp4.samples, fragment(numbers(0x10, 1, 3), numbers(0, 2))) is None
    for count in (3, 10**6, 2**32 - 1):
        for size in (0, 1, 3, 2**32 - 1):
            frames = attempt(mp4.samples, fragment(numbers(0x10, 1, size), numbers(0x1, count, 0)))
            assert frames is None or sum(map(len, frames)) <= 6


def numbers(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "big") for value in values)


def fragment(tfhd: bytes, trun: bytes) -> bytes:
    """Builds a fragment whose data is `abcdef`, if trun has a field for the offset of the data."""
    size = 4 * mp4.HEADER_BYTES + len(tfhd) + len(trun)
    if len(trun) >= 12:
        trun = trun[:8] + numbers(size + mp4.HEADER_BYTES) + trun[12:]
    return box(b"moof", box(b"traf", box(b"tfhd", tfhd) + box(b"trun", trun))) + box(b"mdat", b"abcdef")


def box(kind: bytes, contents: bytes) -> bytes:
    return numbers(mp4.HEADER_BYTES + len(contents)) + kind + contents


def test_garbage() -> None:
    draw = np.random.default_rng(0)
    for length in range(400):
        noise = draw.bytes(length)
        size = (length + mp4.HEADER_BYTES).to_bytes(4, "big")
        for data in (noise, size + b"moof" + noise, size + b"moov" + noise):
            attempt(mp4.samples, data)
            attempt(mp4.find_fragments, data)
            assert attempt(configuration, data) is None
    for text in (b"not a video at all\n" * 20, b"\0" * 100, b"\xff" * 100):
        assert attempt(mp4.samples, text) is None
        assert attempt(mp4.find_fragments, text) is None
