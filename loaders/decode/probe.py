"""What a video file really holds, found by decoding it: its frames, its damage, and where decoding may start.

The file is decoded in full, and then once more in parts: from each key frame to the next seek point behind it. Each
part is decoded from a file opened anew, just as `decode_frames` will decode the clips in it. A key frame whose part
comes out as in the full decode, bit for bit, becomes a seek point.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice, zip_longest
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from cacl.clips import SeekPoint, VideoRecord
from cacl.errors import DataError, reason_of
from cacl.loaders.decode import damage
from cacl.loaders.decode.ffmpeg_log import LogMessages, capture_errors
from cacl.loaders.decode.orientation import display_orientation
from cacl.loaders.decode.raw import decode_from, demux, list_video_streams, open_video, select_video_stream
from cacl.loaders.decode.yuv import as_planar_420, frame_checksum

SEEK_SPACING = 8
"""The least number of frames between seek points. Between closer key frames it is not worth opening the file anew."""


def probe(path: Path, *, seekable: bool = True) -> VideoRecord:
    """Decodes a whole file and returns what it really holds.

    Args:
        path: The file.
        seekable: Whether to find the seek points too, for which the file is decoded a second time. Without them every
            clip is decoded from the start of the file.

    Returns:
        The record of the video. Its label and its split are left empty.

    Raises:
        DataError: The file cannot be used. The message is the reason, without the path.
        OSError: The file cannot be read.
    """
    if path.stat().st_size == 0:
        raise DataError("is empty (0 bytes)")
    with capture_errors() as log:
        try:
            with open_video(path) as container:
                video, decoded = _decode_whole(path, container, log)
        except (av.FFmpegError, ValueError) as error:
            said = f": {log[-1][2].strip()}" if log else ""
            raise DataError(f"cannot be opened as a video ({reason_of(error)}{said})") from None
        return replace(video, seek_points=_prove_seek_points(path, decoded)) if seekable else video


# --- The full decode


class _FrameIdentity(NamedTuple):
    """What tells a frame from all others of its file."""

    pts: int | None
    checksum: int


@dataclass(slots=True)
class _FullDecode:
    """What decoding a file from its start has shown so far."""

    first_packet: Packet | None = None
    first_frame: VideoFrame | None = None
    frames: list[_FrameIdentity] = field(default_factory=list)
    """One for each frame that decoded."""
    key_frames: list[int] = field(default_factory=list)
    """The numbers of the key frames, rising."""
    coded_pts: list[int] = field(default_factory=list)
    """The presentation timestamps of all coded frames, in file order, but for those that an edit list hides."""
    decoding_times: dict[int, int] = field(default_factory=dict)
    """The decoding timestamps of coded key frames, by their presentation timestamps."""
    incomplete_packets: int = 0
    end_seconds: float = 0.0
    """When the frame that ends last ends."""

    @property
    def undecodable_frames(self) -> int:
        """The number of coded frames that would be displayed before the first one that decodes."""
        first = self.frames[0].pts
        return sum(pts < first for pts in self.coded_pts) if first is not None else 0

    def add_packet(self, packet: Packet) -> None:
        self.first_packet = self.first_packet or packet
        self.incomplete_packets += packet.is_corrupt
        if packet.size and not packet.is_discard and packet.pts is not None:
            self.coded_pts.append(packet.pts)
            if packet.is_keyframe and packet.dts is not None:
                self.decoding_times[packet.pts] = packet.dts

    def add_frame(self, frame: VideoFrame) -> None:
        """Adds the next frame. Raises DataError if it makes the file unusable."""
        if self.first_frame is None:
            assert self.first_packet is not None
            self.first_frame = frame
            damage.check_start(frame, self.first_packet)
        damage.check_frame(len(self.frames), frame, self.first_frame)
        if frame.key_frame:
            self.key_frames.append(len(self.frames))
        self.frames.append(_FrameIdentity(frame.pts, frame_checksum(as_planar_420(frame))))
        self.end_seconds = max(self.end_seconds, _end_seconds(frame))


def _decode_whole(path: Path, container: InputContainer, log: LogMessages) -> tuple[VideoRecord, _FullDecode]:
    """Decodes the whole file and returns its record, without seek points, and the identities of its frames."""
    stream = select_video_stream(container)
    promised = damage.promised_frames(container, stream)
    decoded = _FullDecode()
    try:
        for packet in demux(container, stream):
            decoded.add_packet(packet)
            for frame in packet.decode():
                decoded.add_frame(frame)
    except (av.FFmpegError, ValueError) as error:
        if not decoded.frames and decoded.first_packet and not decoded.first_packet.is_keyframe:
            raise DataError(damage.STARTS_BETWEEN_KEY_FRAMES) from None
        # PyAV has words of its own for what it does not know, which say nothing of the video.
        reason = reason_of(error) if isinstance(error, av.FFmpegError) else "the next frame is of an unknown kind"
        count = damage.frames_of(len(decoded.frames), promised)
        raise DataError(f"decoding fails after {count} ({reason})") from None
    if not decoded.frames:
        raise DataError("holds no frame that decodes")
    damage.check_end(
        path,
        container,
        log,
        frames=len(decoded.frames),
        promised=promised - decoded.undecodable_frames,
        end_seconds=decoded.end_seconds,
    )
    damage.check_log(container, stream, log)
    return _record(path, container, stream, decoded, promised), decoded


def _record(
    path: Path, container: InputContainer, stream: VideoStream, decoded: _FullDecode, promised: int
) -> VideoRecord:
    first = decoded.first_frame
    assert first is not None
    mirrored, rotation = display_orientation(first)
    sideways = rotation % 180 != 0
    return VideoRecord(
        path=str(path),
        frames=len(decoded.frames),
        declared_frames=promised,
        rate=float(stream.average_rate or stream.guessed_rate or Fraction(0)),
        width=first.height if sideways else first.width,
        height=first.width if sideways else first.height,
        codec=stream.codec_context.codec.canonical_name,
        content_hash=_hash_content(path),
        mirrored=mirrored,
        rotation=rotation,
        undecodable_frames=decoded.undecodable_frames,
        incomplete_packets=decoded.incomplete_packets,
        video_streams=len(list_video_streams(container)),
        pixel_aspect=float(stream.sample_aspect_ratio or 1),
    )


def _end_seconds(frame: VideoFrame) -> float:
    return 0.0 if frame.time is None else frame.time + float((frame.duration or 0) * (frame.time_base or 0))


def _hash_content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


# --- The seek points


def _prove_seek_points(path: Path, decoded: _FullDecode) -> tuple[SeekPoint, ...]:
    """Finds the key frames from which decoding gives what the full decode gave, up to the first frame of the next one.

    It goes from the last key frame to the first, so that the next seek point behind each is known.
    """
    times = Counter(pts for pts, _ in decoded.frames)
    proven: list[SeekPoint] = []
    end = len(decoded.frames)
    for key in reversed(_spaced(decoded.key_frames)):
        pts = decoded.frames[key].pts
        if pts is None or times[pts] > 1:
            continue  # This frame cannot be told from others.
        targets = dict.fromkeys((pts, decoded.decoding_times.get(pts, pts)))
        points = (SeekPoint(key, pts, target) for target in targets)
        if point := next((p for p in points if _reproduces(path, p, decoded.frames[key : end + 1])), None):
            proven.append(point)
            end = key
    return tuple(reversed(proven))


def _spaced(key_frames: Sequence[int]) -> list[int]:
    """Returns key frames that lie at least SEEK_SPACING frames apart, and as far from frame 0."""
    chosen = [0]
    for key in key_frames:
        if key - chosen[-1] >= SEEK_SPACING:
            chosen.append(key)
    return chosen[1:]


def _reproduces(path: Path, point: SeekPoint, expected: Sequence[_FrameIdentity]) -> bool:
    """Returns whether decoding from a seek point gives these frames."""
    try:
        with open_video(path) as container:
            frames = decode_from(container, select_video_stream(container), point)
            seen = (_FrameIdentity(f.pts, frame_checksum(as_planar_420(f))) for f in frames if not f.is_corrupt)
            return all(a == b for a, b in zip_longest(islice(seen, len(expected)), expected))
    except (av.FFmpegError, ValueError):
        return False  # This key frame cannot be sought: clips start at an earlier one.
