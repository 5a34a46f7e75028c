"""Clips of prepared videos: the bytes of a few groups of pictures, and a decoder that is fed straight from them.

No container is opened. The index says which bytes hold a clip, and the boxes around the coded frames say where each
begins. Every clip has a decoder of its own: a decoder that is used again keeps parameter sets of the streams before,
which flushing does not take away, and opening one costs little beside decoding a clip.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import av
import numpy as np
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from cacl.clips import VideoRecord
from cacl.errors import DataError, reason_of
from cacl.loaders.decode import mp4, storage
from cacl.loaders.decode.storage import Location


class FragmentRange(NamedTuple):
    data: bytes
    """Whole fragments."""
    first: int
    """Number of the first frame in them."""


def read_fragments(location: Location, video: VideoRecord, first: int, last: int) -> FragmentRange:
    """The fragments that hold the frames `first` to `last` (included), in one read.

    Raises DataError naming the file if it cannot be read, or if a byte of these is not as it was written.
    """
    fragments = video.fragments
    assert fragments is not None
    start, end = (np.searchsorted(fragments.first, (first, last), "right") - 1).tolist()
    offsets = fragments.offset[start : end + 2].tolist()
    data = storage.read(location, offsets[0], offsets[-1])
    view = memoryview(data)
    for which in range(len(offsets) - 1):
        part = view[offsets[which] - offsets[0] : offsets[which + 1] - offsets[0]]
        if zlib.crc32(part) != fragments.checksum[start + which]:
            raise DataError(
                f"{location}: is damaged at byte {offsets[which]}: not what `cacl data prepare` wrote; remove it and "
                "prepare the set again"
            )
    return FragmentRange(data, int(fragments.first[start]))


def decode_prepared(location: Location, video: VideoRecord, numbers: Sequence[int]) -> Iterator[VideoFrame]:
    """Yields the frames with these rising numbers. Raises as `read_stretch` does."""
    assert video.fragments is not None
    fragment_range = read_fragments(location, video, numbers[0], numbers[-1])
    wanted = iter(numbers)
    number = next(wanted)
    reason = ""
    try:
        for position, frame in enumerate(_decoded(video.fragments.init, fragment_range.data), fragment_range.first):
            if position == number:
                yield frame
                number = next(wanted, -1)
                if number < 0:
                    return
    except (av.FFmpegError, ValueError) as error:
        reason = f" ({reason_of(error)})"
    raise DataError(
        f"{location}: frame {number} does not decode, though its bytes are in order{reason}; prepare the set again"
    )


def _decoded(init: bytes, data: bytes) -> Iterator[VideoFrame]:
    decoder = VideoCodecContext.create("h264", "r")
    decoder.extradata = mp4.decoder_configuration(init)
    decoder.thread_type, decoder.thread_count = "NONE", 1
    decoder.flags |= Flags.low_delay  # frames are shown in the order of decoding
    for sample in mp4.samples(data):
        yield from decoder.decode(av.Packet(sample))
    yield from decoder.decode(None)
