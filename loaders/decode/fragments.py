"""Clips of prepared videos: the bytes of a few fragments, and a decoder that is fed straight from them.

No container is opened. The index says which bytes hold a clip, and the boxes around the coded frames say where each
begins. Every clip has a decoder of its own: a decoder that is used again keeps parameter sets of the streams before,
which flushing does not take away, and opening one costs little beside decoding a clip.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import av
from av.codec.context import CodecContext, Flags
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from cacl.clips import VideoRecord
from cacl.errors import DataError, reason_of
from cacl.loaders.decode import mp4, storage
from cacl.loaders.decode.storage import Location


class FragmentRange(NamedTuple):
    """Consecutive fragments of a prepared video."""

    data: bytes
    """The bytes of whole fragments."""
    first_frame: int
    """The number of the first frame in them."""


def read_fragments(location: Location, video: VideoRecord, first: int, last: int) -> FragmentRange:
    """Reads the fragments that hold a range of frames, in one read, and compares their checksums.

    Args:
        location: The file of the video.
        video: A prepared video.
        first: The number of the first frame.
        last: The number of the last frame, which is included.

    Returns:
        The fragments.

    Raises:
        DataError: The file cannot be read, or a byte of these fragments is not as it was written. The message names the
            file.
    """
    fragments = video.fragments
    assert fragments is not None
    start, end = fragments.position_of(first), fragments.position_of(last)
    offsets = fragments.offsets[start : end + 2].tolist()
    data = storage.read(location, offsets[0], offsets[-1])
    view = memoryview(data)
    for position in range(len(offsets) - 1):
        fragment = view[offsets[position] - offsets[0] : offsets[position + 1] - offsets[0]]
        if zlib.crc32(fragment) != fragments.checksums[start + position]:
            raise DataError(
                f"{location}: is damaged at byte {offsets[position]}: not what `cacl data prepare` wrote; remove it "
                "and prepare the set again"
            )
    return FragmentRange(data, int(fragments.first_frames[start]))


def decode_prepared(location: Location, video: VideoRecord, frame_numbers: Sequence[int]) -> Iterator[VideoFrame]:
    """Decodes frames of a prepared video.

    Args:
        location: The file of the video.
        video: A prepared video.
        frame_numbers: The numbers of the frames, rising; at least one.

    Yields:
        The frames with these numbers.

    Raises:
        DataError: The fragments cannot be read (see `read_fragments`), or a frame does not decode. The message names
            the file.
    """
    assert video.fragments is not None
    fragment_range = read_fragments(location, video, frame_numbers[0], frame_numbers[-1])
    remaining = iter(frame_numbers)
    wanted = next(remaining)
    reason = ""
    try:
        frames = _decode_fragments(video.codec, video.fragments.init_segment, fragment_range.data)
        for number, frame in enumerate(frames, fragment_range.first_frame):
            if number == wanted:
                if (frame.width, frame.height) != (video.width, video.height):
                    raise ValueError(f"it is {frame.width}x{frame.height}")
                yield frame
                wanted = next(remaining, -1)
                if wanted < 0:
                    return
    except (av.FFmpegError, ValueError) as error:
        reason = f" ({reason_of(error)})"
    raise DataError(
        f"{location}: frame {wanted} does not decode, though its bytes are in order{reason}; prepare the set again"
    )


def _decode_fragments(codec: str, init_segment: bytes, data: bytes) -> Iterator[VideoFrame]:
    decoder = CodecContext.create(codec, "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.extradata = mp4.decoder_configuration(init_segment, codec)
    decoder.thread_type, decoder.thread_count = "NONE", 1
    decoder.flags |= Flags.low_delay  # Frames are displayed in the order of decoding.
    for sample in mp4.samples(data):
        yield from decoder.decode(av.Packet(sample))
    yield from decoder.decode(None)
