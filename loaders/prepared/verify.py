"""Compares what `cacl data prepare` wrote with its sources: random clips, read the way the loader reads them.

A clip has to be what decoding its whole file gives, bit for bit. Each of its frames has to be the frame of the source
with the same number: the very same where it was copied; where it was encoded, like it, and not more like one beside it.
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
from cacl.loaders.prepared.summary import PrepareSummary
from cacl.loaders.prepared.transcode import scale_frames
from cacl.loaders.progress import ProgressCallback

CLIP_FRAMES = 16
MAX_STRIDE = 4
MIN_PSNR_DB = 25.0
MIN_SQUARED_ERROR = 255**2 / 10**10
"""The least mean squared error that is counted: frames that are equal have a PSNR of 100 dB."""
NEIGHBOUR_FACTOR = 4.0
"""A frame is taken for a neighbour of the one that it should be if its error to the neighbour is the smaller one, and
smaller by this factor than the error between the two in the source."""


class VerificationError(CaclError):
    """A prepared video is not what its source is."""

    exit_code = 3


class VerifyResult(NamedTuple):
    """How alike prepared videos and their sources are."""

    clips: int
    """The number of clips that were compared."""
    lowest_psnr_db: float | None
    """The lowest PSNR of the luma of encoded frames, or None if only copied ones were drawn."""
    median_psnr_db: float | None
    """The median of the same."""


def verify(summary: PrepareSummary, clips: int, *, progress: ProgressCallback) -> VerifyResult:
    """Compares clips of a prepared set with its sources. They are always the same ones of a set.

    Args:
        summary: The set, as `prepare` returned it.
        clips: The number of clips, which are taken of as many videos as there are. A shard may have none.
        progress: Is called after each clip with clips done, clips in all, and the path of the video.

    Returns:
        How alike they are.

    Raises:
        VerificationError: A clip is not what it should be. The message names the video.
    """
    generator = random.Random(0)
    psnr: list[float] = []
    rows = generator.sample(range(len(summary.converted)), min(clips, len(summary.converted)))
    for number, row in enumerate(islice(cycle(rows), clips), start=1):
        frames = summary.converted[row].video.frames
        stride = generator.randint(1, max(1, min(MAX_STRIDE, frames // CLIP_FRAMES)))
        start = generator.randint(0, max(0, frames - CLIP_FRAMES * stride))
        try:
            psnr += _compare(summary, row, range(start, min(frames, start + CLIP_FRAMES * stride), stride))
        except DataError as error:
            raise VerificationError(str(error)) from None
        progress(number, clips, summary.converted[row].path)
    return VerifyResult(clips if rows else 0, min(psnr, default=None), median(psnr) if psnr else None)


def _compare(summary: PrepareSummary, row: int, frame_numbers: range) -> Iterator[float]:
    """Yields the PSNR of each frame of a clip that was encoded. Raises DataError if it is not what it should be."""
    video, source = summary.catalog.videos[row], summary.converted[row]
    file = summary.target / video.path
    clip = list(decode_frames(file, video, frame_numbers))
    whole = decode_frames(file, replace(video, fragments=None), frame_numbers)  # It is decoded from its start.
    if list(map(frame_checksum, clip)) != list(map(frame_checksum, whole)):
        raise DataError(f"{file}: frames {list(frame_numbers)} are others when the whole file is decoded")

    originals = _originals(summary.root / source.path, frame_numbers, summary.settings.short_side)
    for number, frame in zip(frame_numbers, clip, strict=True):
        if source.copied:
            if frame_checksum(frame) != frame_checksum(originals[number]):
                raise DataError(f"{file}: frame {number} was copied from {source.path}, but is not the same")
            continue
        error = _squared_error(frame, originals[number])
        for other in originals.keys() & {number - 1, number + 1}:
            to_other = _squared_error(frame, originals[other])
            apart = _squared_error(originals[number], originals[other])
            if to_other < error and to_other * NEIGHBOUR_FACTOR < apart:
                raise DataError(f"{file}: frame {number} is frame {other} of {source.path}")
        psnr = 10 * math.log10(255**2 / max(error, MIN_SQUARED_ERROR))
        if psnr < MIN_PSNR_DB:
            raise DataError(f"{file}: frame {number} is far from that of {source.path} (PSNR {psnr:.1f} dB)")
        yield psnr


def _originals(source: Path, frame_numbers: range, short_side: int) -> dict[int, VideoFrame]:
    """Returns these frames of the source and those around them by number, as they are before encoding."""
    try:
        video = probe(source, seekable=False)
    except (DataError, OSError) as error:
        raise DataError(f"{source}: cannot be compared with any more ({reason_of(error)})") from None
    around = range(max(0, frame_numbers[0] - 1), min(video.frames, frame_numbers[-1] + 2))
    frames = scale_frames(decode_frames(source, video, around), video, short_side)
    return dict(zip(around, frames, strict=True))


def _squared_error(a: VideoFrame, b: VideoFrame) -> float:
    """Returns the mean squared error of luma, in units of 1/255."""
    return float(np.mean((planes(a)[0].astype(np.float32) - planes(b)[0]) ** 2))
