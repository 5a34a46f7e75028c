"""The boxes of a fragmented MP4 file (ISO/IEC 14496-12), as far as `cacl data prepare` writes them.

    init segment | fragment | fragment | ...        a fragment is a moof box and an mdat box, and holds one GOP

The init segment followed by any run of fragments is an MP4 file itself. So a clip is a byte range, and because the moof
box tells where each coded frame lies, a decoder can be fed straight from it.

All functions raise ValueError where the data is not such a file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

HEADER_BYTES = 8
"""The size and the type at the head of a box."""
FIELDS_BEFORE_BOXES = {b"stsd": 8, b"avc1": 78, b"hvc1": 78}
"""Boxes that hold fields of their own before the boxes within, and how many bytes these fields take."""
DATA_OFFSET, FIRST_FLAGS = 0x1, 0x4
"""Flags of the optional fields that a trun box has before its table."""
SAMPLE_FIELDS = (0x100, 0x200, 0x400, 0x800)
"""Flags of the columns of that table: duration, size, flags and composition offset of each sample."""
SAMPLE_SIZE = 0x200
FIELDS_BEFORE_DEFAULT_SAMPLE_SIZE = ((0x1, 8), (0x2, 4), (0x8, 4))
"""Flags and bytes of the optional fields that a tfhd box has before the default size of a sample."""
DEFAULT_SAMPLE_SIZE_PRESENT = 0x10
"""The flag of that default size."""


class CodecLayout(NamedTuple):
    """How the stream of a codec lies in a file (ISO/IEC 14496-15)."""

    sample_entry: bytes
    """The type of the box that describes the stream."""
    configuration: bytes
    """The type of the box in it that holds what a decoder has to know before the first frame."""
    length_size_position: int
    """The byte of that box whose last two bits are the bytes of the length before each NAL unit, less one."""
    unit_type_shift: int
    """How many bits of the first byte of a NAL unit stand behind its type."""
    unit_type_mask: int
    """The bits of the type, once those behind it are shifted out."""
    parameter_sets: tuple[int, ...]
    """The types of the NAL units that hold parameter sets."""


CODECS = {
    "h264": CodecLayout(b"avc1", b"avcC", 4, 0, 0x1F, (7, 8, 13, 15)),  # ITU-T H.264, table 7-1
    "hevc": CodecLayout(b"hvc1", b"hvcC", 21, 1, 0x3F, (32, 33, 34)),  # ITU-T H.265, table 7-1
}
"""The codecs of prepared videos, by FFmpeg's names."""


class Box(NamedTuple):
    """A box and the bytes [start, end) that it takes, with its header."""

    kind: bytes
    start: int
    end: int


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """Lists the boxes that lie side by side in data[start:end].

    Args:
        data: A file, or a part of one.
        start: Where the first box begins.
        end: Where the last box ends; None stands for the end of the data.

    Yields:
        The boxes in file order.

    Raises:
        ValueError: A box does not fit.
    """
    end = len(data) if end is None else end
    while start < end:
        if start + HEADER_BYTES > end:
            raise ValueError("ends within a box")
        size, kind = struct.unpack_from(">I4s", data, start)
        if size < HEADER_BYTES or start + size > end:
            raise ValueError(f"box {kind!r} does not fit")
        yield Box(kind, start, start + size)
        start += size


def decoder_configuration(init_segment: bytes, codec: str) -> bytes:
    """Returns what a decoder has to know before the first frame: the contents of the avcC or hvcC box.

    Args:
        init_segment: The head of a file, or the whole file.
        codec: One of `CODECS`.

    Raises:
        ValueError: There is no such box.
    """
    layout = CODECS[codec]
    path = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", layout.sample_entry, layout.configuration)
    box = _find_box(init_segment, Box(b"", -HEADER_BYTES, len(init_segment)), *path)
    return init_segment[box.start + HEADER_BYTES : box.end]


def changes_parameters(data: bytes, codec: str) -> bool:
    """Returns whether a file has parameter sets among its frames that its head does not have.

    They override those of the head, and are missing where decoding starts behind them.

    Args:
        data: A whole file.
        codec: One of `CODECS`.

    Raises:
        ValueError: The file is damaged.
    """
    configuration, layout = decoder_configuration(data, codec), CODECS[codec]
    length_bytes = (configuration[layout.length_size_position] & 3) + 1
    return any(
        unit[0] >> layout.unit_type_shift & layout.unit_type_mask in layout.parameter_sets and unit not in configuration
        for sample in samples(data)
        for unit in _nal_units(sample, length_bytes)
    )


def _nal_units(sample: bytes, length_bytes: int) -> Iterator[bytes]:
    """Yields the NAL units of a coded frame, without the lengths before them."""
    position = 0
    while position + length_bytes < len(sample):
        start = position + length_bytes
        position = start + int.from_bytes(sample[position:start])
        if position > start:
            yield sample[start:position]


def find_fragments(data: bytes) -> tuple[list[int], list[int]]:
    """Finds the fragments of a file.

    Args:
        data: A whole file.

    Returns:
        The offsets in bytes at which the fragments begin, followed by the one at which the last fragment ends; and the
        number of frames in each fragment.

    Raises:
        ValueError: The file is damaged.
    """
    offsets, frames, end = [], [], 0
    for box in boxes(data):
        if box.kind == b"moof":
            offsets.append(box.start)
            frames.append(len(_sample_sizes(data, box)[1]))
        elif box.kind == b"mdat":
            end = box.end
    return [*offsets, end], frames


def samples(data: bytes) -> Iterator[bytes]:
    """Splits fragments into samples, which are the coded frames.

    Args:
        data: A run of fragments, with or without the init segment before it.

    Yields:
        The coded frames in file order.

    Raises:
        ValueError: The data is damaged.
    """
    for box in boxes(data):
        if box.kind == b"moof":
            position, sizes = _sample_sizes(data, box)
            for size in sizes:
                yield data[position : position + size]
                position += size


def _sample_sizes(data: bytes, moof: Box) -> tuple[int, list[int]]:
    """Returns where the first sample of a fragment lies, and the size of each sample in bytes."""
    trun = _find_box(data, moof, b"traf", b"trun")
    flags, count, offset = _read_fields(data, trun, ">IIi")  # The version is 0, and so is its byte before the flags.
    if not flags & DATA_OFFSET:
        raise ValueError("box b'trun' names no data")
    position = moof.start + offset
    columns = [bit for bit in SAMPLE_FIELDS if flags & bit]
    if SAMPLE_SIZE in columns:
        start = trun.start + HEADER_BYTES + 12 + (4 if flags & FIRST_FLAGS else 0)
        if start + 4 * count * len(columns) > trun.end:
            raise ValueError("ends within a box")
        table = np.frombuffer(data, ">u4", count * len(columns), start).reshape(count, -1)
        sizes = table[:, columns.index(SAMPLE_SIZE)].tolist()
    else:
        size = _default_sample_size(data, moof)
        sizes = [size] * min(count, len(data) // size + 1)  # A count that is damaged must not fill the memory.
    if position < moof.end or position + sum(sizes) > len(data):
        raise ValueError("its frames lie outside of it")
    return position, sizes


def _default_sample_size(data: bytes, moof: Box) -> int:
    tfhd = _find_box(data, moof, b"traf", b"tfhd")
    (flags,) = _read_fields(data, tfhd, ">I")
    before = sum(size for bit, size in FIELDS_BEFORE_DEFAULT_SAMPLE_SIZE if flags & bit)
    size = _read_fields(data, tfhd, ">I", 8 + before)[0] if flags & DEFAULT_SAMPLE_SIZE_PRESENT else 0
    if not size:
        raise ValueError("box b'tfhd' names no size")
    return size


def _read_fields(data: bytes, box: Box, layout: str, skip: int = 0) -> tuple[int, ...]:
    """Reads numbers in a box, `skip` bytes behind its header. The layout is one of `struct`."""
    start = box.start + HEADER_BYTES + skip
    if start + struct.calcsize(layout) > box.end:
        raise ValueError("ends within a box")
    return struct.unpack_from(layout, data, start)


def _find_box(data: bytes, box: Box, *path: bytes) -> Box:
    """Follows a path of box types from a box to a box within it."""
    for kind in path:
        start = box.start + HEADER_BYTES + FIELDS_BEFORE_BOXES.get(box.kind, 0)
        found = next((inner for inner in boxes(data, start, box.end) if inner.kind == kind), None)
        if found is None:
            raise ValueError(f"holds no box {kind!r}")
        box = found
    return box
