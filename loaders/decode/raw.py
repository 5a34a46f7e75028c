"""Frame-exact decoding of raw video files, by PyAV.

A frame number is a position in the sequence of frames that decoding the whole file yields. Containers promise less:
headers miscount, timestamps repeat, seeks land elsewhere. So `probe` decodes a file in full before it is used, counts
its frames, and proves the key frames at which decoding may start. `decode_frames` then starts only there and counts.

Every clip is decoded from a file opened anew: what a demuxer or a decoder has learnt from one file, or from another
part of the same one, is gone when the next clip is decoded. Seek points are proven in that same state.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import dropwhile

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from cacl.clips import SeekPoint, VideoRecord
from cacl.errors import DataError, reason_of
from cacl.loaders.decode.fragments import decode_prepared
from cacl.loaders.decode.storage import Location

STILL_IMAGES = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
CONCEALING_CODECS = frozenset(
    ["hevc", "vp8", "vp9", "ffv1", "wmv1", "wmv2", "wmv3", "vc1", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3"]
)
"""Codecs whose decoders put something in the place of what is damaged and do not flag the frame. The decoders of H.264
and of the MPEG family do flag it."""
STRICT_CODECS = CONCEALING_CODECS | {"mjpeg"}
"""Codecs whose decoders are told to fail at damage where they can. The decoder of MJPEG would show what lies in its
memory. It also logs what is no damage, since cameras write more than they should."""


def decode_frames(location: Location, video: VideoRecord, frame_numbers: Sequence[int]) -> Iterator[VideoFrame]:
    """Decodes frames of a video, raw or prepared. Decoding starts at the last seek point or fragment before the first.

    Args:
        location: The file of the video.
        video: What `probe` or `cacl data prepare` found in it.
        frame_numbers: The numbers of the frames, rising; at least one.

    Returns:
        An iterator over the frames with these numbers.

    Raises:
        DataError: The file does not hold these frames any more. The message names the file. It is raised while the
            frames are iterated over.
    """
    decode = decode_prepared if video.fragments else _decode_raw
    return decode(location, video, frame_numbers)


def _decode_raw(location: Location, video: VideoRecord, frame_numbers: Sequence[int]) -> Iterator[VideoFrame]:
    start = video.last_seek_point(frame_numbers[0])
    remaining = iter(frame_numbers)
    wanted = next(remaining)
    size = (video.height, video.width) if video.rotation % 180 else (video.width, video.height)
    try:
        with open_video(location) as container:
            stream = select_video_stream(container)
            frames = decode_from(container, stream, start) if start else decode_stream(container, stream)
            for number, frame in enumerate(frames, start.frame if start else 0):
                if frame.is_corrupt or (frame.width, frame.height) != size:  # Frames after it may refer to it.
                    raise DataError(f"frame {number} is not what it was")
                if number == wanted:
                    yield frame
                    wanted = next(remaining, -1)
                    if wanted < 0:
                        return
    except (av.FFmpegError, ValueError, OSError, DataError) as error:
        raise DataError(f"{location}: decoding fails ({reason_of(error)}); scan the folder again") from None
    raise DataError(
        f"{location}: ends before frame {wanted}, which was there when it was scanned; scan the folder again"
    )


# --- Containers and streams


def open_video(location: Location) -> InputContainer:
    """Opens a video file for demuxing.

    Raises:
        FFmpegError: The file cannot be opened.
    """
    return av.open(str(location), metadata_errors="ignore")  # Titles in other encodings must not stop a video.


def list_video_streams(container: InputContainer) -> list[VideoStream]:
    """Returns the video streams of a container that are no still images (cover art, thumbnails)."""
    return [stream for stream in container.streams.video if not stream.disposition & STILL_IMAGES]


def select_video_stream(container: InputContainer) -> VideoStream:
    """Selects the video stream that is used, and prepares its decoder, which has decoded nothing yet.

    Of several streams it is the largest of those that last at least half as long as the longest. FFmpeg's own choice
    goes by the flag `default` first, which muxers give to the first stream, be it a thumbnail or a preview.

    Args:
        container: The opened file.

    Returns:
        The stream.

    Raises:
        DataError: There is no video stream, or no decoder for it.
    """
    candidates = list_video_streams(container)
    if not candidates:
        raise DataError("holds no video stream")
    longest = max(map(_duration_seconds, candidates))
    stream = max((s for s in candidates if _duration_seconds(s) >= longest / 2), key=_area)
    context = stream.codec_context
    if context is None:
        raise DataError("is in a format that there is no decoder for")
    context.thread_type = "NONE"  # Clips are decoded in parallel, not frames of a clip.
    context.thread_count = 1
    if context.codec.canonical_name in STRICT_CODECS:
        context.options = {"err_detect": "explode"}
    return stream


def _duration_seconds(stream: VideoStream) -> float:
    """Returns how long a stream lasts, or 0 where nothing says so. In Matroska files a tag does, if anything."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
    return sum(float(part) * unit for part, unit in zip(tag.groups(), (3600, 60, 1), strict=True)) if tag else 0.0


def _area(stream: VideoStream) -> int:
    context = stream.codec_context  # It is None where there is no decoder for the stream.
    return context.width * context.height if context else 0


# --- Packets and frames


def demux(container: InputContainer, *streams: VideoStream) -> Iterator[Packet[VideoStream]]:
    """Reads the packets of a file, from where the container stands.

    A stream may come up on the way that the container has not told of. PyAV then fails, but only once it has given all
    packets of the streams that are known.

    Args:
        container: The opened file.
        *streams: The streams whose packets are wanted; without any, all streams are.

    Yields:
        The packets, and then an empty one that makes a decoder give the frames that it still holds.
    """
    with suppress(IndexError):
        yield from container.demux(*streams)  # pyright: ignore[reportReturnType]


def decode_stream(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Decodes all frames of a stream, from where the container stands.

    Args:
        container: The opened file.
        stream: A stream of it, as `select_video_stream` returns it.

    Yields:
        The frames in the order of display.
    """
    for packet in demux(container, stream):
        yield from packet.decode()


def decode_from(container: InputContainer, stream: VideoStream, point: SeekPoint) -> Iterator[VideoFrame]:
    """Decodes the frames of a stream from a seek point on.

    Args:
        container: The file, opened anew.
        stream: A stream of it, as `select_video_stream` returns it.
        point: The seek point.

    Returns:
        An iterator over the frames from the seek point on, in the order of display. Frames that only lead up to it are
        decoded and dropped.
    """
    container.seek(point.target, stream=stream)
    return dropwhile(lambda frame: frame.pts != point.pts, decode_stream(container, stream))
