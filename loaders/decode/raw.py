"""Frame-exact decoding with PyAV.

A frame number is a position in the sequence that decoding the whole file yields. Containers promise less: headers
miscount, timestamps repeat, seeks land elsewhere. So `probe` decodes a file in full before it is used, counts its
frames, and proves the key frames at which decoding may start; `decode_frames` then starts only there and counts.

Every clip is decoded by a file opened anew: what a demuxer or a decoder has learnt from one file, or from another part
of the same one, is not there when the next clip is decoded. Seek points are proven in that same state.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import dropwhile

import av
import numpy as np
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
"""Codecs whose decoders put something in the place of what is damaged and do not flag the frame, as those of H.264 and
of the MPEG family do."""
STRICT_CODECS = CONCEALING_CODECS | {"mjpeg"}
"""Codecs whose decoders are told to fail at damage where they can. That of MJPEG would show what lies in its memory. It
also logs what is no damage, since cameras write more than they should."""


def decode_frames(location: Location, video: VideoRecord, numbers: Sequence[int]) -> Iterator[VideoFrame]:
    """Yields the frames with these rising numbers, decoding no more than the stretch from the nearest seek point.

    Raises DataError naming the file if it no longer holds them.
    """
    return decode_prepared(location, video, numbers) if video.fragments else _decode_file(location, video, numbers)


def _decode_file(location: Location, video: VideoRecord, numbers: Sequence[int]) -> Iterator[VideoFrame]:
    try:
        with open_video(location) as container:
            stream = select_video_stream(container)
            nearest = bisect_right(video.seek_points, numbers[0], key=lambda point: point.frame) - 1
            start = video.seek_points[nearest] if nearest >= 0 else None
            frames = decode_from(container, stream, start) if start else decode_stream(container, stream)
            wanted = iter(numbers)
            number = next(wanted)
            size = (video.height, video.width) if video.rotation % 180 else (video.width, video.height)
            for position, frame in enumerate(frames, start.frame if start else 0):
                if frame.is_corrupt or (frame.width, frame.height) != size:  # frames after it may refer to it
                    raise DataError(f"frame {position} is not what it was")
                if position == number:
                    yield frame
                    number = next(wanted, -1)
                    if number < 0:
                        return
    except (av.FFmpegError, ValueError, OSError, DataError) as error:
        raise DataError(f"{location}: decoding fails ({reason_of(error)}); scan the folder again") from None
    raise DataError(
        f"{location}: ends before frame {number}, which was there when it was scanned; scan the folder again"
    )


def apply_orientation(image: np.ndarray, video: VideoRecord) -> np.ndarray:
    """A decoded image [..., H, W] as the container wants it shown (a view, nothing is copied)."""
    image = image[..., ::-1] if video.mirrored else image
    return np.rot90(image, video.rotation // 90, axes=(-2, -1)) if video.rotation else image


def open_video(location: Location) -> InputContainer:
    return av.open(str(location), metadata_errors="ignore")  # titles in other encodings must not stop a video


def list_video_streams(container: InputContainer) -> list[VideoStream]:
    """The video streams that are no pictures (cover art, thumbnails)."""
    return [stream for stream in container.streams.video if not stream.disposition & STILL_IMAGES]


def select_video_stream(container: InputContainer) -> VideoStream:
    """The video stream that is the film, with a decoder that has decoded nothing yet.

    Of several it is the largest of those that last at least half as long as the longest. FFmpeg's own choice goes by
    the flag `default` first, which muxers give to the first stream, be it a thumbnail or a preview.

    Raises DataError if there is none, or no decoder for it.
    """
    candidates = list_video_streams(container)
    if not candidates:
        raise DataError("holds no video stream")
    longest = max(map(_seconds, candidates))
    stream = max((s for s in candidates if _seconds(s) >= longest / 2), key=_area)
    context = stream.codec_context
    if context is None:
        raise DataError("is in a format that there is no decoder for")
    context.thread_type = "NONE"  # clips are decoded in parallel, not frames of a clip
    context.thread_count = 1
    if context.codec.canonical_name in STRICT_CODECS:
        context.options = {"err_detect": "explode"}
    return stream


def _seconds(stream: VideoStream) -> float:
    """How long it lasts; 0 where nothing says so. In Matroska files a tag does, if anything."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
    return sum(float(part) * unit for part, unit in zip(tag.groups(), (3600, 60, 1), strict=True)) if tag else 0.0


def _area(stream: VideoStream) -> int:
    context = stream.codec_context  # None where there is no decoder for it
    return context.width * context.height if context else 0


def demux(container: InputContainer, *streams: VideoStream) -> Iterator[Packet[VideoStream]]:
    """The packets of these streams, or of all, and then an empty one that makes a decoder give what it still has.

    A stream may come up on the way that the container has not told of. PyAV then fails, once it has given all these.
    """
    with suppress(IndexError):
        yield from container.demux(*streams)  # pyright: ignore[reportReturnType]


def decode_stream(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """All frames from where the container stands."""
    for packet in demux(container, stream):
        yield from packet.decode()


def decode_from(container: InputContainer, stream: VideoStream, point: SeekPoint) -> Iterator[VideoFrame]:
    """The frames from a seek point on. Those that only lead up to it are decoded and dropped."""
    container.seek(point.target, stream=stream)
    return dropwhile(lambda frame: frame.pts != point.pts, decode_stream(container, stream))
