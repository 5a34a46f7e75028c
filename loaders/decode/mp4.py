"""The boxes of a fragmented MP4 file (ISO/IEC 14496-12), as far as `cacl data prepare` writes them.

    init segment | fragment | fragment | ...        a fragment is a moof box and an mdat box: one group of pictures

The init segment followed by any run of fragments is an MP4 file itself. So a clip is a byte range, and because the moof
box tells where each coded frame lies, a decoder can be fed straight from it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

HEADER_BYTES = 8
"""Bytes of size and type at the head of a box."""
FIELDS_BEFORE_BOXES = {b"stsd": 8, b"avc1": 78}
"""Boxes that hold fields of their own before the boxes within, and how many bytes of them."""
DATA_OFFSET, FIRST_FLAGS = 0x1, 0x4
"""Optional fields of a trun box before its table."""
PARAMETER_SETS = (7, 8, 13, 15)
"""Types of the units of H.264 that hold parameter sets (ITU-T H.264, table 7-1)."""
SAMPLE_FIELDS = (0x100, 0x200, 0x400, 0x800)
"""Columns of that table: duration, size, flags, composition offset."""
SAMPLE_SIZE = 0x200
BEFORE_DEFAULT_SIZE = ((0x1, 8), (0x2, 4), (0x8, 4))
"""Optional fields of a tfhd box before the default size of a sample, and their bytes."""
DEFAULT_SIZE = 0x10


class Box(NamedTuple):
    kind: bytes
    start: int
    end: int


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """The boxes side by side in data[start:end]. Raises ValueError where one does not fit."""
    end = len(data) if end is None else end
    while start < end:
        if start + HEADER_BYTES > end:
            raise ValueError("ends within a box")
        size, kind = struct.unpack_from(">I4s", data, start)
        if size < HEADER_BYTES or start + size > end:
            raise ValueError(f"box {kind!r} does not fit")
        yield Box(kind, start, start + size)
        start += size


def decoder_configuration(init: bytes) -> bytes:
    """The contents of the avcC box of an init segment: what a decoder of H.264 must know before the first frame."""
    box = _within(
        init, Box(b"", -HEADER_BYTES, len(init)), b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1", b"avcC"
    )
    return init[box.start + HEADER_BYTES : box.end]


def changes_parameters(data: bytes) -> bool:
    """Whether a file of H.264 has parameter sets among its frames that its head does not have. They override those of
    the head, and are missing where decoding starts behind them."""
    configuration = decoder_configuration(data)
    size_bytes = (configuration[4] & 3) + 1  # of the length before each unit (ISO/IEC 14496-15, 5.3.3.1)
    units = (unit for sample in samples(data) for unit in _units(sample, size_bytes))
    return any(unit[0] & 31 in PARAMETER_SETS and unit not in configuration for unit in units)


def _units(sample: bytes, size_bytes: int) -> Iterator[bytes]:
    """The units of a coded frame, without the lengths before them."""
    position = 0
    while position + size_bytes < len(sample):
        start = position + size_bytes
        position = start + int.from_bytes(sample[position:start])
        if position > start:
            yield sample[start:position]


def find_fragments(data: bytes) -> tuple[list[int], list[int]]:
    """For a whole file: where each fragment begins and the last one ends, and the number of frames in each."""
    offsets, frames, end = [], [], 0
    for box in boxes(data):
        if box.kind == b"moof":
            offsets.append(box.start)
            frames.append(len(_sample_sizes(data, box)[1]))
        elif box.kind == b"mdat":
            end = box.end
    return [*offsets, end], frames


def samples(data: bytes) -> Iterator[bytes]:
    """The coded frames in a run of fragments, in file order."""
    for box in boxes(data):
        if box.kind == b"moof":
            position, sizes = _sample_sizes(data, box)
            for size in sizes:
                yield data[position : position + size]
                position += size


def _sample_sizes(data: bytes, moof: Box) -> tuple[int, list[int]]:
    """Where the first coded frame of a fragment lies, and the bytes of each."""
    trun = _within(data, moof, b"traf", b"trun")
    flags, count, offset = _fields(data, trun, ">IIi")  # version 0: its byte is 0
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
        size = _default_size(data, moof)
        sizes = [size] * min(count, len(data) // size + 1)  # a count that is damaged must not fill the memory
    if position < moof.end or position + sum(sizes) > len(data):
        raise ValueError("its frames lie outside of it")
    return position, sizes


def _default_size(data: bytes, moof: Box) -> int:
    tfhd = _within(data, moof, b"traf", b"tfhd")
    (flags,) = _fields(data, tfhd, ">I")
    before = sum(size for bit, size in BEFORE_DEFAULT_SIZE if flags & bit)
    size = _fields(data, tfhd, ">I", 8 + before)[0] if flags & DEFAULT_SIZE else 0
    if not size:
        raise ValueError("box b'tfhd' names no size")
    return size


def _fields(data: bytes, box: Box, layout: str, skip: int = 0) -> tuple[int, ...]:
    """Numbers in a box, so many bytes behind its header."""
    start = box.start + HEADER_BYTES + skip
    if start + struct.calcsize(layout) > box.end:
        raise ValueError("ends within a box")
    return struct.unpack_from(layout, data, start)


def _within(data: bytes, box: Box, *path: bytes) -> Box:
    for kind in path:
        start = box.start + HEADER_BYTES + FIELDS_BEFORE_BOXES.get(box.kind, 0)
        found = next((inner for inner in boxes(data, start, box.end) if inner.kind == kind), None)
        if found is None:
            raise ValueError(f"holds no box {kind!r}")
        box = found
    return box
