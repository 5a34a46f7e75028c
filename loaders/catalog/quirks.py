"""What is unusual about videos that can be used all the same, for people to know."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from typing import TypeAlias

from cacl.clips import VideoRecord

SLOW_FRAMES = 2000
"""A video is reported as slow if this many frames, or more, may have to be decoded and dropped before a clip begins."""
SQUARE_TOLERANCE = 0.01
"""Pixels that are wider or narrower than high by more than this share are reported."""

Quirks: TypeAlias = dict[str, str]
"""What is unusual about one video, by kind: continuations of a sentence that begins with its path."""


def find_quirks(video: VideoRecord) -> Quirks:
    """Returns how a video was read in each respect in which it could have been read otherwise."""
    found = {}
    if video.undecodable_frames:
        found["start"] = (
            f"starts between key frames: its first {video.undecodable_frames} frames do not decode, nor count"
        )
    if video.incomplete_packets:
        found["gaps"] = f"has gaps, says its container (at {video.incomplete_packets} packets): frames may be missing"
    if video.video_streams > 1:
        found["streams"] = f"holds {video.video_streams} video streams: that of {video.width} x {video.height} is used"
    if abs(video.pixel_aspect - 1) > SQUARE_TOLERANCE:
        found["pixels"] = f"has pixels {video.pixel_aspect:.3g} times as wide as high: they are taken as square"
    return found


def find_slow_seeking(video: VideoRecord) -> Quirks:
    """Returns what makes the clips of a video slow that is not prepared."""
    starts = [*video.decoding_starts(), video.frames]
    longest = max(end - start for start, end in pairwise(starts))
    if longest < SLOW_FRAMES:
        return {}
    return {
        "seeking": f"has {longest} frames in a row at none of which decoding can start: clips late in them are slow, "
        "until the set is prepared"
    }


def summarize_quirks(quirks_by_path: Iterable[tuple[str, Quirks]]) -> tuple[str, ...]:
    """Tells the quirks of all videos briefly.

    Args:
        quirks_by_path: The path of each video, and its quirks.

    Returns:
        One line for each kind of quirk, with the path of the first video and the number of the others.
    """
    lines: dict[str, list[str]] = defaultdict(list)
    for path, quirks in quirks_by_path:
        for kind, text in quirks.items():
            lines[kind].append(f"{path} {text}")
    return tuple(
        found[0] + (f" ({len(found) - 1} more of this kind)" if len(found) > 1 else "") for found in lines.values()
    )
