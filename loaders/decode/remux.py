"""A clip of a video file as a small file of its own. Packets are copied, nothing is decoded.

DALI's decoder starts at the first frame of whatever it is handed, so it is handed no more than the packets from the
last proven seek point before the clip to the last frame of the clip.
"""

from __future__ import annotations

import io
from bisect import insort
from collections.abc import Iterable, Iterator
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

START_OF_FILE = SeekPoint(0, 0, 0)
"""Stands for decoding from the start: nothing is sought."""
VOP_START = b"\0\0\1\xb6"
"""The start code of a frame (VOP) of MPEG-4 part 2. The two bits after it are the type of the frame."""
B_VOP = 2
"""The type of a B-frame."""


class RemuxedClip(NamedTuple):
    """A file that holds the frames of a clip, and a few others."""

    data: bytes
    """An MP4 file, or a Matroska file for VP8, which MP4 does not take. No timestamp in it is negative."""
    offset: int
    """The position of the first wanted frame among the frames of `data`, in the order of display."""
    colorspace: int
    """The matrix coefficients of ITU-T H.273 that the file names for its YUV (1 is BT.709, 2 is unknown)."""


def remux_clip(location: Location, video: VideoRecord, first: int, last: int) -> RemuxedClip:
    """Copies the packets that show a range of frames into a file, with as few others as that takes.

    A prepared video is only read: the result is the head of its file and whole fragments.

    Args:
        location: The file of the video.
        video: What `probe` or `cacl data prepare` found in it.
        first: The number of the first frame.
        last: The number of the last frame, which is included.

    Returns:
        The new file, which is in memory only.

    Raises:
        DataError: The file cannot be read, no longer holds these frames, or does not tell in which order its frames are
            displayed. The message names the file.
    """
    if video.fragments:
        fragment_range, init_segment = read_fragments(location, video, first, last), video.fragments.init_segment
        offset = first - fragment_range.first_frame
        return RemuxedClip(init_segment + fragment_range.data, offset, _colorspace(init_segment))
    try:
        with open_video(location) as container:
            stream = select_video_stream(container)
            if container.format.name == "avi" and stream.codec_context.has_b_frames:
                start, packets = START_OF_FILE, _packets_with_display_times(container, stream)
            else:
                start = video.last_seek_point(first) or START_OF_FILE
                packets = _packets_from(container, stream, start)
                if video.undecodable_frames and not start.frame:
                    packets = _drop_undecodable(packets)
            needed, times = _first_frames(last + 1 - start.frame, packets)
            offset = sorted(_display_time(packet) for packet in needed).index(times[first - start.frame])
            return RemuxedClip(_mux(needed, stream), offset, int(stream.codec_context.colorspace))
    except (FFmpegError, ValueError, OSError) as error:
        raise DataError(f"{location}: cannot be cut into clips ({reason_of(error)}); scan the folder again") from None
    except DataError as error:
        raise DataError(f"{location}: {error}") from None


@lru_cache  # A prepared set has few different heads.
def _colorspace(init_segment: bytes) -> int:
    with av.open(io.BytesIO(init_segment), format="mp4") as container:
        return int(container.streams.video[0].codec_context.colorspace)


def _packets_from(container: InputContainer, stream: VideoStream, start: SeekPoint) -> Iterator[Packet]:
    """Yields packets in file order, without frames that follow the seek point in the file but are shown before it."""
    if start.frame:
        container.seek(start.target, stream=stream)
    for packet in demux(container, stream):
        if packet.has_sidedata("new_extradata"):
            raise DataError('changes its parameters on the way, which loader.backend = "dali" cannot follow; "cpu" can')
        if packet.size and (not start.frame or _display_time(packet) >= start.pts):
            yield packet


def _drop_undecodable(packets: Iterator[Packet]) -> Iterator[Packet]:
    """Yields the packets from the first key frame on that do not refer to frames which are not in the file.

    Those that do are not decoded, and have no frame number.
    """
    key = next(packet for packet in packets if packet.is_keyframe)
    yield key
    yield from (packet for packet in packets if _display_time(packet) >= _display_time(key))


def _packets_with_display_times(container: InputContainer, stream: VideoStream) -> list[Packet]:
    """Returns the packets of an AVI file with B-frames: one frame in each, with a display time, which AVI cannot store.

    Encoders pack a B-frame into the packet of the frame that is displayed after it, and leave an empty packet in its
    place (DivX and XviD: UCF101, HMDB51). Once unpacked, a B-frame is displayed at once, and any other frame when the
    next such frame has arrived (ISO/IEC 14496-2).
    """
    if stream.codec_context.name != "mpeg4":
        raise DataError('has B-frames in an AVI file, which loader.backend = "dali" cannot put in order; "cpu" can')
    unpack = BitStreamFilterContext("mpeg4_unpack_bframes", stream)
    unpacked = [frame for packet in demux(container, stream) if packet.size for frame in unpack.filter(packet)]
    decoding_order = [frame for frame in unpacked if VOP_START in bytes(frame)]
    display_order: list[Packet] = []
    waiting: list[Packet] = []
    for frame in decoding_order:
        if _vop_type(frame) == B_VOP:
            display_order.append(frame)
        else:
            display_order += waiting
            waiting = [frame]
    for time, frame in enumerate(decoding_order):
        frame.dts = time
    for time, frame in enumerate(display_order + waiting, start=1):  # With 0, one would be displayed before decoding.
        frame.pts = time
    return decoding_order


def _vop_type(frame: Packet) -> int:
    data = bytes(frame)
    return data[data.index(VOP_START) + len(VOP_START)] >> 6


def _first_frames(count: int, packets: Iterable[Packet]) -> tuple[list[Packet], list[int]]:
    """Returns the packets that the first `count` displayed frames need.

    Also returns the display times of the frames that these packets show, rising.
    """
    needed: list[Packet] = []
    times: list[int] = []
    for packet in packets:
        # Packets come in the order of decoding, and no frame is displayed before it is decoded.
        if len(times) >= count and packet.dts is not None and packet.dts >= times[count - 1]:
            break
        needed.append(packet)
        if not packet.is_discard:  # An edit list hides such a frame, but others refer to it.
            insort(times, _display_time(packet))
    if len(times) < count:
        raise DataError(f"ends {count - len(times)} frames earlier than when it was scanned; scan the folder again")
    return needed, times


def _display_time(packet: Packet) -> int:
    if packet.pts is None:
        raise DataError('does not tell when its frames are shown: loader.backend = "dali" needs that, "cpu" does not')
    return packet.pts


def _mux(packets: Iterable[Packet], stream: VideoStream) -> bytes:
    file = io.BytesIO()
    # Without an edit list every frame of the file counts, and all readers count alike.
    muxer, options = ("matroska", {}) if stream.codec_context.name == "vp8" else ("mp4", {"use_editlist": "0"})
    with av.open(file, "w", format=muxer, options=options) as container:
        copy = container.add_stream_from_template(stream, opaque=True)
        for packet in packets:
            packet.stream = copy
            container.mux(packet)
    return file.getvalue()
