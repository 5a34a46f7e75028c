"""What a video file really holds, found by decoding it: its frames, its damage, and where decoding may start.

The file is decoded in full, and then once more in stretches: from each key frame to the next seek point behind it, each
stretch by a file opened anew, just as `decode_frames` will decode the clips in it. A key frame whose stretch comes out
as in the full decode, bit for bit, becomes a seek point.
"""

from __future__ import annotations

import hashlib
import math
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import islice, zip_longest
from pathlib import Path
from typing import NamedTuple, TypeAlias

import av
import av.logging
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from cacl.clips import SeekPoint, VideoRecord
from cacl.errors import DataError, reason_of
from cacl.loaders.decode.raw import (
    CONCEALING_CODECS,
    decode_from,
    demux,
    list_video_streams,
    open_video,
    select_video_stream,
)
from cacl.loaders.decode.yuv import as_planar_420, frame_checksum, frame_yuv_to_rgb_matrix

MIN_SIDE = 2
"""Pixels: the smallest crop is one sample of 4:2:0 chroma."""
MAX_SHORTFALL = 0.1
"""Headers are often off by a frame or two; a file that holds this share less than it declares is taken as truncated."""
TELL_DURATION = ("matroska,webm", "flv")
"""Containers that do not count their frames, but say in their header how long they last."""
SKIPPING = ("matroska,webm", "asf")
"""Containers of which FFmpeg skips what is damaged, be it seconds, goes on behind it, and only logs it."""
ENDS_EARLY = "File ended prematurely"
"""FFmpeg's demuxer of Matroska logs this, and nothing else tells it."""
SEEK_SPACING = 8
"""Frames: of key frames that lie closer together, not each is worth opening the file for."""
TURNS = {0: (1, 0, 0, 1), 90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), 270: (0, 1, -1, 0)}
"""By degrees counter-clockwise: (a, b, c, d) of the display matrix that turns so."""
MAX_TILT = math.sqrt(2) * 2 * math.sin(math.radians(1) / 2)
"""How far a matrix that is a degree off lies from these."""
STARTS_BETWEEN_KEYS = (
    "starts between key frames: its first frames refer to others that are not in the file; cut it at a key frame, or "
    "encode it anew"
)


class _Mark(NamedTuple):
    """What tells a frame from all others."""

    pts: int | None
    checksum: int


class _Whole(NamedTuple):
    """A file as decoding it from its start to its end shows it."""

    video: VideoRecord
    """Without seek points."""
    marks: Sequence[_Mark]
    """One for each frame."""
    keys: Sequence[int]
    """Numbers of the key frames, rising."""
    decoding_times: Mapping[int, int]
    """Of the coded key frames, by the times of their display."""


def probe(path: Path, *, seekable: bool = True) -> VideoRecord:
    """Decodes the whole file and returns what it really holds; label and split are left empty.

    seekable: also find the seek points, for which the file is decoded a second time. Without them every clip is decoded
    from the start of the file.

    Raises DataError with the reason (without the path) if the file cannot be used.
    """
    if path.stat().st_size == 0:
        raise DataError("is empty (0 bytes)")
    with _log() as log:
        try:
            with open_video(path) as container:
                whole = _decode_whole(path, container, log)
        except (av.FFmpegError, ValueError) as error:
            said = f": {log[-1][2].strip()}" if log else ""
            raise DataError(f"cannot be opened as a video ({reason_of(error)}{said})") from None
        return replace(whole.video, seek_points=_proven_seek_points(path, whole)) if seekable else whole.video


# --- The full decode


def _decode_whole(path: Path, container: InputContainer, log: _Log) -> _Whole:
    stream = select_video_stream(container)
    promised = _promised_frames(container, stream)
    first_packet: Packet | None = None
    coded: list[int] = []  # times of display of the frames that are not hidden by an edit list
    marks: list[_Mark] = []
    keys: list[int] = []
    decoding_times: dict[int, int] = {}
    first: VideoFrame | None = None
    gaps = 0
    end_seconds = 0.0
    try:
        for packet in demux(container, stream):
            first_packet = first_packet or packet
            gaps += packet.is_corrupt
            if packet.size and not packet.is_discard and packet.pts is not None:
                coded.append(packet.pts)
                if packet.is_keyframe and packet.dts is not None:
                    decoding_times[packet.pts] = packet.dts
            for frame in packet.decode():
                if first is None:
                    first = frame
                    _check_start(frame, first_packet)
                _check_frame(len(marks), frame, first)
                if frame.key_frame:
                    keys.append(len(marks))
                marks.append(_Mark(frame.pts, frame_checksum(as_planar_420(frame))))
                end_seconds = max(end_seconds, _end_seconds(frame))
    except (av.FFmpegError, ValueError) as error:
        if not marks and first_packet and not first_packet.is_keyframe:
            raise DataError(STARTS_BETWEEN_KEYS) from None
        # PyAV has words of its own for what it does not know, which say nothing of the video.
        reason = reason_of(error) if isinstance(error, av.FFmpegError) else "the next frame is of an unknown kind"
        raise DataError(f"decoding fails after {_of(len(marks), promised)} ({reason})") from None
    if first is None:
        raise DataError("holds no frame that decodes")
    undecodable = sum(pts < first.pts for pts in coded) if first.pts is not None else 0
    _check_end(path, container, log, len(marks), promised - undecodable, end_seconds)
    _check_log(container, stream, log)
    mirrored, rotation = _orientation(first)
    sideways = rotation % 180 != 0
    video = VideoRecord(
        path=str(path),
        frames=len(marks),
        declared_frames=promised,
        rate=float(stream.average_rate or stream.guessed_rate or Fraction(0)),
        width=first.height if sideways else first.width,
        height=first.width if sideways else first.height,
        codec=stream.codec_context.codec.canonical_name,
        content=_content(path),
        mirrored=mirrored,
        rotation=rotation,
        undecodable=undecodable,
        gaps=gaps,
        video_streams=len(list_video_streams(container)),
        pixel_aspect=float(stream.sample_aspect_ratio or 1),
    )
    return _Whole(video, marks, keys, decoding_times)


def _promised_frames(container: InputContainer, stream: VideoStream) -> int:
    """How many frames the header says will be shown; 0 where it says nothing.

    What an edit list hides is counted by the header of a QuickTime or MP4 file, but not by FFmpeg's index of it. The
    header of an AVI file also counts frames that were dropped while recording: its index has none there, and goes on.
    """
    if container.format.name.startswith("mov"):
        return min(stream.frames, sum(not entry.is_discard for entry in stream.index_entries))
    if container.format.name == "avi":
        times = [entry.timestamp for entry in stream.index_entries]
        return len(times) if times and times[-1] == stream.frames - 1 else stream.frames
    return stream.frames


def _check_start(first: VideoFrame, packet: Packet) -> None:
    """Raises DataError if the first frame, decoded from this packet and those behind it, shows what it cannot know."""
    refers = not first.key_frame and first.pict_type in (PictureType.P, PictureType.B)
    hidden_key = packet.is_discard and packet.is_keyframe  # an edit list may hide what it refers to
    if refers and not hidden_key:
        raise DataError(STARTS_BETWEEN_KEYS)


def _check_frame(number: int, frame: VideoFrame, first: VideoFrame) -> None:
    """Raises DataError if this frame makes the file unusable."""
    if min(frame.width, frame.height) < MIN_SIDE:
        raise DataError(f"is {frame.width} x {frame.height} pixels; a crop needs {MIN_SIDE} on each side")
    if frame.is_corrupt:
        raise DataError(f"is damaged at frame {number}")
    if (frame.width, frame.height) != (first.width, first.height):
        raise DataError(
            f"changes its size at frame {number} from {first.width} x {first.height} to {frame.width} x {frame.height}"
        )
    before, now = ((f.format.name, f.colorspace, f.color_range) for f in (first, frame))
    if before != now and not np.array_equal(
        frame_yuv_to_rgb_matrix(as_planar_420(first)), frame_yuv_to_rgb_matrix(as_planar_420(frame))
    ):
        raise DataError(f"changes its colours at frame {number}: from there on they are coded in another way")


def _check_end(
    path: Path, container: InputContainer, log: _Log, frames: int, promised: int, end_seconds: float
) -> None:
    """Raises DataError if the file ends before its header says."""
    if frames < promised * (1 - MAX_SHORTFALL):
        raise DataError(f"is cut short: only {_of(frames, promised)} decode")
    if any(ENDS_EARLY in message for _, _, message in log):
        raise DataError(f"is cut short: it ends in the middle of its data, after {frames} frames")
    if container.format.name in TELL_DURATION and container.duration:
        promised_seconds = container.duration / av.time_base
        enough = promised_seconds * (1 - MAX_SHORTFALL)
        if end_seconds < enough and _last_second(path) < enough:  # a sound track may last longer than the pictures
            raise DataError(f"is cut short: its pictures end after {end_seconds:.1f} of {promised_seconds:.1f} seconds")


def _check_log(container: InputContainer, stream: VideoStream, log: _Log) -> None:
    """Raises DataError if the decoder complained of what no frame shows, or the demuxer of what it skipped."""
    for level, name, message in log:
        if level > av.logging.ERROR:
            continue
        if name == stream.codec_context.name and stream.codec_context.codec.canonical_name in CONCEALING_CODECS:
            raise DataError(f"is damaged (its decoder says: {message.strip()})")
        if name == container.format.name and name in SKIPPING:
            raise DataError(f"is damaged, and frames are lost (its container says: {message.strip()})")


def _end_seconds(frame: VideoFrame) -> float:
    return 0.0 if frame.time is None else frame.time + float((frame.duration or 0) * (frame.time_base or 0))


def _last_second(path: Path) -> float:
    """When the last packet of any stream ends."""
    with open_video(path) as container:
        return max(
            float((packet.pts + (packet.duration or 0)) * packet.time_base)
            for packet in demux(container)
            if packet.pts is not None
        )


def _orientation(frame: VideoFrame) -> tuple[bool, int]:
    """Whether to mirror left and right, and the degrees to turn counter-clockwise afterwards.

    A pixel (x, y) of the frame is shown at (a x + c y, b x + d y), up to a shift (ISO/IEC 14496-12, 8.3.2). Raises
    DataError if that is something else than quarter turns and reflections.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return False, 0
    a, b, _, c, d, *_ = (value / 2**16 for value in struct.unpack("9i", bytes(data)))
    across, down = math.hypot(a, b), math.hypot(c, d)
    if across and down:
        a, b, c, d = a / across, b / across, c / down, d / down
        mirrored = a * d < b * c
        turned = (-a, -b, c, d) if mirrored else (a, b, c, d)
        for degrees, exact in TURNS.items():
            if math.dist(turned, exact) <= MAX_TILT:
                return mirrored, degrees
    raise DataError(
        f"has the display matrix ({a:g}, {b:g}; {c:g}, {d:g}): only quarter turns and reflections are handled"
    )


# --- The stretches


def _proven_seek_points(path: Path, whole: _Whole) -> tuple[SeekPoint, ...]:
    """The key frames from which decoding gives what the full decode gave, up to the first frame of the next of them."""
    times = Counter(pts for pts, _ in whole.marks)
    proven: list[SeekPoint] = []
    end = len(whole.marks)
    for key in reversed(_spaced(whole.keys)):
        pts = whole.marks[key].pts
        if pts is None or times[pts] > 1:
            continue  # it cannot be told from others
        targets = dict.fromkeys((pts, whole.decoding_times.get(pts, pts)))
        points = (SeekPoint(key, pts, target) for target in targets)
        if point := next((p for p in points if _reproduces(path, p, whole.marks[key : end + 1])), None):
            proven.append(point)
            end = key
    return tuple(reversed(proven))


def _spaced(keys: Sequence[int]) -> list[int]:
    chosen = [0]
    for key in keys:
        if key - chosen[-1] >= SEEK_SPACING:
            chosen.append(key)
    return chosen[1:]


def _reproduces(path: Path, point: SeekPoint, marks: Sequence[_Mark]) -> bool:
    try:
        with open_video(path) as container:
            frames = decode_from(container, select_video_stream(container), point)
            seen = (_Mark(frame.pts, frame_checksum(as_planar_420(frame))) for frame in frames if not frame.is_corrupt)
            return all(a == b for a, b in zip_longest(islice(seen, len(marks)), marks))
    except (av.FFmpegError, ValueError):
        return False  # this key frame cannot be sought: clips start at an earlier one


# --- What FFmpeg says

_Log: TypeAlias = Sequence[tuple[int, str, str]]
"""Level, name of the decoder or the container, message."""

_listening = threading.Lock()
_listeners = 0
_settings_before: tuple[int | None, bool] = (None, True)


@contextmanager
def _log() -> Iterator[_Log]:
    """Collects the errors that FFmpeg logs in this thread while open. Its settings are those of the whole process."""
    global _listeners, _settings_before
    with _listening:
        if not _listeners:
            _settings_before = av.logging.get_level(), av.logging.get_skip_repeated()
            av.logging.set_level(av.logging.ERROR)
            av.logging.set_skip_repeated(False)  # else a message may come when the next file is open
        _listeners += 1
    try:
        with av.logging.Capture(local=True) as log:
            yield log
    finally:
        with _listening:
            _listeners -= 1
            if not _listeners:
                level, skip_repeated = _settings_before
                av.logging.set_level(level)
                av.logging.set_skip_repeated(skip_repeated)


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _of(frames: int, promised: int) -> str:
    return f"{frames} of {promised} frames" if promised else f"{frames} frames"
