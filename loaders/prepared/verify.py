"""Looks again at what `cacl data prepare` wrote: random clips, read the way the loader reads them.

A clip has to be what decoding its whole file gives, bit for bit, and each of its frames the frame of the source with
the same number: the very same where it was copied; where it was encoded, like it, and not more like one beside it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from av.video.frame import VideoFrame

from cacl.errors import CaclError, DataError, reason_of
from cacl.loaders.decode.probe import probe
from cacl.loaders.decode.raw import decode_frames
from cacl.loaders.decode.yuv import frame_checksum, planes
from cacl.loaders.prepared.prepare import PrepareSummary
from cacl.loaders.prepared.transcode import scale_frames
from cacl.loaders.progress import ProgressCallback

FRAMES = 16
MAX_STRIDE = 4
LOWEST_PSNR_DB = 25.0
LEAST_ERROR = 255**2 / 10**10
"""Mean square: frames that are equal have a PSNR of 100 dB."""
BY_FAR = 4.0
"""A frame is that of a neighbour if it differs from it less, and so many times less than the neighbour from its own."""


class VerificationError(CaclError):
    """A prepared video is not what its source is."""

    exit_code = 3


class VerifyResult(NamedTuple):
    clips: int
    lowest_psnr_db: float | None
    """Of the brightness of encoded frames; None if only copied ones were drawn."""
    median_psnr_db: float | None


def verify(summary: PrepareSummary, clips: int, *, progress: ProgressCallback) -> VerifyResult:
    """Compares this many clips, of as many videos as there are, and always the same ones of a set.

    Raises VerificationError naming the video at fault.

    progress: called after each clip with clips done, clips in all, and the path of the video.
    """
    draw = random.Random(0)
    psnr: list[float] = []
    rows = draw.sample(range(len(summary.done)), min(clips, len(summary.done)))
    for number, row in enumerate(islice(cycle(rows), clips), start=1):
        frames = summary.done[row].video.frames
        stride = draw.randint(1, max(1, min(MAX_STRIDE, frames // FRAMES)))
        start = draw.randint(0, max(0, frames - FRAMES * stride))
        try:
            psnr += _compare(summary, row, range(start, min(frames, start + FRAMES * stride), stride))
        except DataError as error:
            raise VerificationError(str(error)) from None
        progress(number, clips, summary.done[row].path)
    return VerifyResult(clips, min(psnr, default=None), median(psnr) if psnr else None)


def _compare(summary: PrepareSummary, row: int, numbers: range) -> Iterator[float]:
    """The PSNR of each frame of a clip, if it was encoded."""
    video, done = summary.catalog.videos[row], summary.done[row]
    file = summary.target / video.path
    clip = list(decode_frames(file, video, numbers))
    whole = decode_frames(file, replace(video, fragments=None), numbers)  # from the start of the file
    if list(map(frame_checksum, clip)) != list(map(frame_checksum, whole)):
        raise DataError(f"{file}: frames {list(numbers)} are others when the whole file is decoded")

    originals = _originals(summary.root / done.path, numbers, summary.settings.short_side)
    for number, frame in zip(numbers, clip, strict=True):
        if done.copied:
            if frame_checksum(frame) != frame_checksum(originals[number]):
                raise DataError(f"{file}: frame {number} was copied from {done.path}, but is not the same")
            continue
        error = _error(frame, originals[number])
        for other in originals.keys() & {number - 1, number + 1}:
            error_there, apart = _error(frame, originals[other]), _error(originals[number], originals[other])
            if error_there < error and error_there * BY_FAR < apart:
                raise DataError(f"{file}: frame {number} is frame {other} of {done.path}")
        psnr = 10 * math.log10(255**2 / max(error, LEAST_ERROR))
        if psnr < LOWEST_PSNR_DB:
            raise DataError(f"{file}: frame {number} is far from that of {done.path} (PSNR {psnr:.1f} dB)")
        yield psnr


def _originals(source: Path, numbers: range, short_side: int) -> dict[int, VideoFrame]:
    """These frames of the source and those around them, as they are before encoding."""
    try:
        video = probe(source, seekable=False)
    except (DataError, OSError) as error:
        raise DataError(f"{source}: cannot be compared with any more ({reason_of(error)})") from None
    around = range(max(0, numbers[0] - 1), min(video.frames, numbers[-1] + 2))
    return dict(zip(around, scale_frames(decode_frames(source, video, around), video, short_side), strict=True))


def _error(a: VideoFrame, b: VideoFrame) -> float:
    """Mean square difference of brightness, in units of 1/255."""
    return float(np.mean((planes(a)[0].astype(np.float32) - planes(b)[0]) ** 2))
