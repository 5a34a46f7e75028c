"""Frame-exact decoding with PyAV.

A frame number is a position in the sequence that decoding the whole file yields. Containers promise less: headers
miscount, timestamps repeat, seeks land elsewhere. So a file is decoded once in full (`probe`), which counts its frames
and proves each key frame at which decoding may start; `decode_frames` then starts only there and counts.
"""

from __future__ import annotations

import hashlib
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from cacl.clips import SeekPoint, VideoRecord
from cacl.errors import DataError, reason_of
from cacl.loaders.prepared import decode_prepared
from cacl.loaders.storage import Place
from cacl.loaders.yuv import plane

MAX_SHORTFALL = 0.1
"""Headers are often off by a frame or two; a file that holds this share less than it declares is taken as truncated."""


def probe(path: Path) -> VideoRecord:
    """Decodes the whole file once and returns what it really holds; label and split are left empty.

    Raises DataError with the reason (without the path) if the file cannot be used.
    """
    if path.stat().st_size == 0:
        raise DataError("is empty (0 bytes)")
    try:
        with open_video(path) as container:
            return _probe_stream(path, container, video_stream(container))
    except (av.FFmpegError, ValueError) as error:
        raise DataError(f"cannot be opened as a video ({reason_of(error)})") from None


def decode_frames(place: Place, video: VideoRecord, numbers: Sequence[int]) -> Iterator[VideoFrame]:
    """Yields the frames with these rising numbers, decoding no more than the stretch from the nearest seek point.

    Raises DataError naming the file if it no longer holds them.
    """
    return decode_prepared(place, video, numbers) if video.fragments else _decode_file(place, video, numbers)


def _decode_file(place: Place, video: VideoRecord, numbers: Sequence[int]) -> Iterator[VideoFrame]:
    try:
        with open_video(place) as container:
            stream = video_stream(container)
            nearest = bisect_right(video.seek_points, numbers[0], key=lambda point: point.frame) - 1
            start = video.seek_points[nearest] if nearest >= 0 else SeekPoint(0, 0)
            frames = _frames_from(container, stream, start) if start.frame else container.decode(stream)
            wanted = iter(numbers)
            number = next(wanted)
            size = (video.height, video.width) if video.rotation % 180 else (video.width, video.height)
            for position, frame in enumerate(frames, start.frame):
                if frame.is_corrupt or (frame.width, frame.height) != size:  # frames after it may refer to it
                    raise DataError(f"frame {position} is not what it was")
                if position == number:
                    yield frame
                    number = next(wanted, -1)
                    if number < 0:
                        return
    except (av.FFmpegError, ValueError, OSError, DataError) as error:
        raise DataError(f"{place}: decoding fails ({reason_of(error)}); scan the folder again") from None
    raise DataError(f"{place}: ends before frame {number}, which was there when it was scanned; scan the folder again")


def upright(image: np.ndarray, rotation: int) -> np.ndarray:
    """Turns [..., H, W] counter-clockwise by a multiple of 90 degrees (a view, nothing is copied)."""
    return np.rot90(image, rotation // 90, axes=(-2, -1)) if rotation else image


def open_video(place: Place) -> InputContainer:
    return av.open(str(place), metadata_errors="ignore")  # titles in other encodings must not stop a video


def video_stream(container: InputContainer) -> VideoStream:
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:  # cover art
            if stream.codec_context is None:
                raise DataError("is in a format that there is no decoder for")
            stream.codec_context.thread_type = "NONE"  # clips are decoded in parallel, not frames of a clip
            stream.codec_context.thread_count = 1
            return stream
    raise DataError("holds no video stream")


def _frames_from(container: InputContainer, stream: VideoStream, point: SeekPoint) -> Iterator[VideoFrame]:
    container.seek(point.pts, stream=stream)
    for frame in container.decode(stream):
        if frame.pts is not None and frame.pts >= point.pts:  # frames before it only lead up to it
            yield frame


def _probe_stream(path: Path, container: InputContainer, stream: VideoStream) -> VideoRecord:
    declared = stream.frames
    marks: list[tuple[int | None, int]] = []  # timestamp and checksum of every frame
    keys: list[int] = []
    first: VideoFrame | None = None
    hidden = 0  # declared, but taken out by an edit list
    try:
        for packet in container.demux(stream):
            hidden += packet.is_discard
            for frame in packet.decode():
                first = first or frame
                if (frame.width, frame.height) != (first.width, first.height):
                    raise DataError(
                        f"changes its size at frame {len(marks)} from {first.width} x {first.height} "
                        f"to {frame.width} x {frame.height}"
                    )
                if frame.is_corrupt:
                    raise DataError(f"is damaged at frame {len(marks)}")
                if frame.key_frame:
                    keys.append(len(marks))
                marks.append(_mark(frame))
    except (av.FFmpegError, ValueError) as error:
        raise DataError(f"decoding fails after {_of(len(marks), declared)} ({reason_of(error)})") from None
    if first is None:
        raise DataError("holds no frame that decodes")
    if len(marks) < (declared - hidden) * (1 - MAX_SHORTFALL):
        raise DataError(f"is cut short: only {_of(len(marks), declared)} decode")
    if first.rotation % 90:
        raise DataError(f"is rotated by {first.rotation} degrees; only quarter turns are handled")
    sideways = first.rotation % 180 != 0
    return VideoRecord(
        path=str(path),
        frames=len(marks),
        declared_frames=declared,
        rate=float(stream.average_rate or stream.guessed_rate or Fraction(0)),
        width=first.height if sideways else first.width,
        height=first.width if sideways else first.height,
        codec=stream.codec_context.codec.canonical_name,
        content=_content(path),
        rotation=first.rotation % 360,
        seek_points=_proven_seek_points(container, stream, keys, marks),
    )


def _proven_seek_points(
    container: InputContainer, stream: VideoStream, keys: Sequence[int], marks: Sequence[tuple[int | None, int]]
) -> tuple[SeekPoint, ...]:
    """The key frames from which decoding reproduces the key frame and its successor, bit for bit."""
    times = [pts for pts, _ in marks if pts is not None]
    if len(times) < len(marks) or any(b <= a for a, b in pairwise(times)):
        return ()  # timestamps that repeat or go back cannot name a frame
    proven = []
    for key in keys:
        if key == 0:
            continue
        point = SeekPoint(key, times[key])
        try:
            sought = islice(_frames_from(container, stream, point), 2)
            if [_mark(frame) for frame in sought] == marks[key : key + 2]:
                proven.append(point)
        except av.FFmpegError:
            continue  # this key frame cannot be sought: clips start at an earlier one
    return tuple(proven)


def _mark(frame: VideoFrame) -> tuple[int | None, int]:
    """Timestamp, and a checksum over (for other than 8-bit planar formats, a part of) the first plane."""
    return frame.pts, zlib.crc32(np.ascontiguousarray(plane(frame, 0)).data)


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _of(frames: int, declared: int) -> str:
    return f"{frames} of {declared} frames" if declared else f"{frames} frames"
