"""The stretch of a video file that a clip needs, as a small file of its own. Packets are copied, nothing is decoded.

DALI's decoder starts at the first frame of whatever it is handed, so it is handed no more than the packets from the
nearest proven seek point to the last frame of the clip.
"""

from __future__ import annotations

import io
from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import av
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from cacl.clips import SeekPoint, VideoRecord
from cacl.errors import DataError, reason_of
from cacl.loaders.decode.fragments import read_fragments
from cacl.loaders.decode.raw import demux, open_video, select_video_stream
from cacl.loaders.decode.storage import Location

VOP_START = b"\0\0\1\xb6"
"""Begins a frame of MPEG-4 part 2; the two bits after it are the type of the frame."""
B_FRAME = 2


class RemuxedClip(NamedTuple):
    data: bytes
    """An MP4 file, or a Matroska file for VP8, which MP4 does not take. No timestamp in it is negative."""
    offset: int
    """Position of the first wanted frame among the frames of `data`, in order of display."""
    colorspace: int
    """Matrix coefficients of ITU-T H.273 that the file names for its YUV (1 is BT.709, 2 is unknown)."""


def remux_clip(location: Location, video: VideoRecord, first: int, last: int) -> RemuxedClip:
    """The packets that show the frames `first` to `last` (included), with as few others as that takes.

    A prepared video is read, not cut: whole fragments behind the head of the file. Raises DataError naming the file if
    it cannot be read, no longer holds these frames, or does not tell in which order its frames are shown.
    """
    if video.fragments:
        stretch, init = read_fragments(location, video, first, last), video.fragments.init
        return RemuxedClip(init + stretch.data, first - stretch.first, _colorspace(init))
    try:
        with open_video(location) as container:
            stream = select_video_stream(container)
            if container.format.name == "avi" and stream.codec_context.has_b_frames:
                start, packets = SeekPoint(0, 0, 0), _retimed(container, stream)
            else:
                start = _seek_point(video.seek_points, first)
                packets = _packets_from(container, stream, start)
                if video.undecodable and not start.frame:
                    packets = _from_first_key(packets)
            stretch, times = _until(last + 1 - start.frame, packets)
            offset = sorted(_time(packet) for packet in stretch).index(times[first - start.frame])
            return RemuxedClip(_remux(stretch, stream), offset, int(stream.codec_context.colorspace))
    except (FFmpegError, ValueError, OSError) as error:
        raise DataError(f"{location}: cannot be cut into clips ({reason_of(error)}); scan the folder again") from None
    except DataError as error:
        raise DataError(f"{location}: {error}") from None


@lru_cache  # sets have few different ones
def _colorspace(init: bytes) -> int:
    with av.open(io.BytesIO(init), format="mp4") as container:
        return int(container.streams.video[0].codec_context.colorspace)


def _seek_point(points: Sequence[SeekPoint], frame: int) -> SeekPoint:
    nearest = bisect_right(points, frame, key=lambda point: point.frame) - 1
    return points[nearest] if nearest >= 0 else SeekPoint(0, 0, 0)


def _packets_from(container: InputContainer, stream: VideoStream, start: SeekPoint) -> Iterator[Packet]:
    """In file order, without the frames that follow the seek point in the file but are shown before it."""
    if start.frame:
        container.seek(start.target, stream=stream)
    for packet in demux(container, stream):
        if packet.has_sidedata("new_extradata"):
            raise DataError('changes its parameters on the way, which loader.backend = "dali" cannot follow; "cpu" can')
        if packet.size and (not start.frame or _time(packet) >= start.pts):
            yield packet


def _from_first_key(packets: Iterator[Packet]) -> Iterator[Packet]:
    """Without those that refer to frames which are not in the file: they are not decoded, and have no number."""
    key = next(packet for packet in packets if packet.is_keyframe)
    yield key
    yield from (packet for packet in packets if _time(packet) >= _time(key))


def _retimed(container: InputContainer, stream: VideoStream) -> list[Packet]:
    """The packets of an AVI file with B-frames, with one frame in each and the times of display that AVI cannot store.

    Encoders pack a B-frame into the packet of the frame that is shown after it, and leave an empty packet in its place
    (DivX and XviD: UCF101, HMDB51). Unpacked, a B-frame is shown at once, any other frame when the next such frame
    has arrived (ISO/IEC 14496-2).
    """
    if stream.codec_context.name != "mpeg4":
        raise DataError('has B-frames in an AVI file, which loader.backend = "dali" cannot put in order; "cpu" can')
    unpack = BitStreamFilterContext("mpeg4_unpack_bframes", stream)
    unpacked = [frame for packet in demux(container, stream) if packet.size for frame in unpack.filter(packet)]
    frames = [frame for frame in unpacked if VOP_START in bytes(frame)]
    shown: list[Packet] = []
    waiting: list[Packet] = []
    for frame in frames:
        if _vop_type(frame) == B_FRAME:
            shown.append(frame)
        else:
            shown += waiting
            waiting = [frame]
    for time, frame in enumerate(frames):
        frame.dts = time
    for time, frame in enumerate(shown + waiting, start=1):  # one later, so that none is shown before it is decoded
        frame.pts = time
    return frames


def _vop_type(frame: Packet) -> int:
    data = bytes(frame)
    return data[data.index(VOP_START) + len(VOP_START)] >> 6


def _until(count: int, packets: Iterable[Packet]) -> tuple[list[Packet], list[int]]:
    """The packets that the first `count` frames shown need, and the times of the frames these packets show, rising."""
    needed: list[Packet] = []
    times: list[int] = []
    for packet in packets:
        # Packets come in the order of decoding, and none is shown before it is decoded.
        if len(times) >= count and packet.dts is not None and packet.dts >= times[count - 1]:
            break
        needed.append(packet)
        if not packet.is_discard:  # hidden by an edit list, but others refer to it
            insort(times, _time(packet))
    if len(times) < count:
        raise DataError(f"ends {count - len(times)} frames earlier than when it was scanned; scan the folder again")
    return needed, times


def _time(packet: Packet) -> int:
    if packet.pts is None:
        raise DataError('does not tell when its frames are shown: loader.backend = "dali" needs that, "cpu" does not')
    return packet.pts


def _remux(packets: Iterable[Packet], stream: VideoStream) -> bytes:
    file = io.BytesIO()
    # Without an edit list every frame of the file counts, and all readers count alike.
    form, options = ("matroska", {}) if stream.codec_context.name == "vp8" else ("mp4", {"use_editlist": "0"})
    with av.open(file, "w", format=form, options=options) as container:
        copy = container.add_stream_from_template(stream, opaque=True)
        for packet in packets:
            packet.stream = copy
            container.mux(packet)
    return file.getvalue()
