"""What is unusual about videos that can be used all the same, for people to know."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from typing import TypeAlias

from cacl.clips import VideoRecord

SLOW_FRAMES = 2000
"""Frames that are decoded for nothing before a clip: from so many on, somebody should know."""
NEARLY_SQUARE = 0.01
"""What a pixel may be wider or narrower than it is high without a remark, as a share."""

Remarks: TypeAlias = dict[str, str]
"""By kind: continuations of a sentence that begins with the path of a video."""


def remarks_on(video: VideoRecord) -> Remarks:
    """What was made of a video that could have been taken otherwise."""
    found = {}
    if video.undecodable:
        found["start"] = f"starts between key frames: its first {video.undecodable} frames do not decode, nor count"
    if video.gaps:
        found["gaps"] = f"has gaps, says its container (at {video.gaps} packets): frames may be missing"
    if video.video_streams > 1:
        found["streams"] = f"holds {video.video_streams} video streams: that of {video.width} x {video.height} is used"
    if abs(video.pixel_aspect - 1) > NEARLY_SQUARE:
        found["pixels"] = f"has pixels {video.pixel_aspect:.3g} times as wide as high: they are taken as square"
    return found


def slowness_of(video: VideoRecord) -> Remarks:
    """What makes clips of a video slow that is not prepared."""
    starts = [0, *(point.frame for point in video.seek_points), video.frames]
    longest = max(end - start for start, end in pairwise(starts))
    if longest < SLOW_FRAMES:
        return {}
    return {
        "seeking": f"has {longest} frames in a row at none of which decoding can start: clips late in them are slow, "
        "until the set is prepared"
    }


def notes_of(remarked: Iterable[tuple[str, Remarks]]) -> tuple[str, ...]:
    """One line for each kind of remark, with the path of the first video and the number of the others."""
    lines: dict[str, list[str]] = defaultdict(list)
    for path, remarks in remarked:
        for kind, text in remarks.items():
            lines[kind].append(f"{path} {text}")
    return tuple(
        found[0] + (f" ({len(found) - 1} more of this kind)" if len(found) > 1 else "") for found in lines.values()
    )
