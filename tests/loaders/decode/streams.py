"""Files as they come from tools that cut, join and trim coded videos without encoding them anew."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
from av.video.stream import VideoStream

RATE = 25


class Coded(NamedTuple):
    data: bytes
    is_key: bool


@contextmanager
def coded(path: Path) -> Iterator[tuple[VideoStream, list[Coded]]]:
    """Returns the video stream of a file and its coded frames, in the order of decoding."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        yield stream, [Coded(bytes(p), p.is_keyframe) for p in file.demux(stream) if p.size]


def mux(path: Path, template: VideoStream, frames: Sequence[Coded], times: Sequence[int] | None = None) -> Path:
    """Writes a file of these coded frames, one after the other or at these times. They must not be B-frames."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream_from_template(template, opaque=True)
        for number, frame in zip(times or range(len(frames)), frames, strict=True):
            packet = av.Packet(frame.data)
            packet.pts = packet.dts = number
            packet.duration, packet.time_base, packet.stream = 1, Fraction(1, RATE), stream
            packet.is_keyframe = frame.is_key
            file.mux(packet)
    return path


def starting_at(source: Path, path: Path, frame: int) -> Path:
    """Writes the file without its first coded frames."""
    with coded(source) as (stream, frames):
        return mux(path, stream, frames[frame:])


def appended(first: Path, second: Path, path: Path) -> Path:
    """Two files of H.264 behind each other. The parameter sets of the second stand before its first frame and nowhere
    else: those in the head of the file are of the first."""
    with coded(first) as (stream, frames), coded(second) as (other, more):
        sets = parameter_sets(bytes(other.codec_context.extradata or b""))
        return mux(path, stream, [*frames, more[0]._replace(data=sets + more[0].data), *more[1:]])


def parameter_sets(configuration: bytes) -> bytes:
    """Returns the parameter sets in an avcC box (ISO/IEC 14496-15, 5.3.3.1), each behind its length in four bytes."""
    sets, position = b"", 5
    for mask in (31, 255):
        count, position = configuration[position] & mask, position + 1
        for _ in range(count):
            (length,) = struct.unpack_from(">H", configuration, position)
            sets += struct.pack(">I", length) + configuration[position + 2 : position + 2 + length]
            position += 2 + length
    return sets


def hide(path: Path, first: int, last: int, frames: int) -> Path:
    """Lets the edit list of an MP4 file of so many frames hide its first and its last ones."""
    data = bytearray(path.read_bytes())
    (scale,) = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)
    (movie_scale,) = struct.unpack_from(">I", data, data.index(b"mvhd") + 16)
    entry = data.index(b"elst") + 12
    _, media_time, rate = struct.unpack_from(">IiI", data, entry)
    shown = (frames - first - last) * movie_scale // RATE
    struct.pack_into(">IiI", data, entry, shown, media_time + first * scale // RATE, rate)
    path.write_bytes(data)
    return path
