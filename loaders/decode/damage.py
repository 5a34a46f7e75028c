"""What makes a video file unusable. Every check raises DataError with the reason, without the path."""

from __future__ import annotations

from pathlib import Path

import av
import av.logging
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from cacl.errors import DataError
from cacl.loaders.decode.ffmpeg_log import LogMessages
from cacl.loaders.decode.raw import CONCEALING_CODECS, demux, open_video
from cacl.loaders.decode.yuv import as_planar_420, frame_yuv_to_rgb_matrix

MIN_SIDE = 2
"""The least width and height in pixels: the smallest crop is one sample of 4:2:0 chroma."""
MAX_SHORTFALL = 0.1
"""Headers are often off by a frame or two. A file that lacks more than this share of what it declares is truncated."""
CONTAINERS_WITH_DURATION = ("matroska,webm", "flv")
"""Containers that do not count their frames, but say in their header how long they last."""
CONTAINERS_SKIPPING_DAMAGE = ("matroska,webm", "asf")
"""Containers of which FFmpeg skips what is damaged, be it seconds. It goes on behind it, and only logs it."""
PREMATURE_END = "File ended prematurely"
"""FFmpeg's demuxer of Matroska logs this at a truncated file, and nothing else tells it."""
STARTS_BETWEEN_KEY_FRAMES = (
    "starts between key frames: its first frames refer to others that are not in the file; cut it at a key frame, or "
    "encode it anew"
)


def check_start(first: VideoFrame, packet: Packet) -> None:
    """Refuses a first frame that shows what it cannot know, since it refers to frames before it.

    Args:
        first: The first frame that decodes.
        packet: The first packet of the file.

    Raises:
        DataError: The file starts between key frames.
    """
    refers = not first.key_frame and first.pict_type in (PictureType.P, PictureType.B)
    hidden_key = packet.is_discard and packet.is_keyframe  # An edit list may hide what the frame refers to.
    if refers and not hidden_key:
        raise DataError(STARTS_BETWEEN_KEY_FRAMES)


def check_frame(number: int, frame: VideoFrame, first: VideoFrame) -> None:
    """Refuses a frame that is damaged, too small, or coded otherwise than the first one.

    Args:
        number: The number of the frame.
        frame: The frame.
        first: The first frame of the file.

    Raises:
        DataError: The frame makes the file unusable.
    """
    if min(frame.width, frame.height) < MIN_SIDE:
        raise DataError(f"is {frame.width} x {frame.height} pixels; a crop needs {MIN_SIDE} on each side")
    if frame.is_corrupt:
        raise DataError(f"is damaged at frame {number}")
    if (frame.width, frame.height) != (first.width, first.height):
        raise DataError(
            f"changes its size at frame {number} from {first.width} x {first.height} to {frame.width} x {frame.height}"
        )
    before, now = ((f.format.name, f.colorspace, f.color_range) for f in (first, frame))
    if before != now and not np.array_equal(
        frame_yuv_to_rgb_matrix(as_planar_420(first)), frame_yuv_to_rgb_matrix(as_planar_420(frame))
    ):
        raise DataError(f"changes its colours at frame {number}: from there on they are coded in another way")


def check_end(
    path: Path, container: InputContainer, log: LogMessages, *, frames: int, promised: int, end_seconds: float
) -> None:
    """Refuses a file that ends before its header says.

    Args:
        path: The file.
        container: The same file, opened.
        log: What FFmpeg logged while the file was decoded.
        frames: The number of frames that decode.
        promised: The number of frames that the header promises, see `promised_frames`.
        end_seconds: When the last frame ends.

    Raises:
        DataError: The file is truncated.
    """
    if frames < promised * (1 - MAX_SHORTFALL):
        raise DataError(f"is cut short: only {frames_of(frames, promised)} decode")
    if any(PREMATURE_END in message for _, _, message in log):
        raise DataError(f"is cut short: it ends in the middle of its data, after {frames} frames")
    if container.format.name in CONTAINERS_WITH_DURATION and container.duration:
        promised_seconds = container.duration / av.time_base
        enough = promised_seconds * (1 - MAX_SHORTFALL)
        if end_seconds < enough and _last_second(path) < enough:  # A sound track may last longer than the frames.
            raise DataError(f"is cut short: its pictures end after {end_seconds:.1f} of {promised_seconds:.1f} seconds")


def check_log(container: InputContainer, stream: VideoStream, log: LogMessages) -> None:
    """Refuses a file of which the decoder logged damage that no frame shows, or the demuxer that it skipped something.

    Args:
        container: The opened file.
        stream: The stream that was decoded.
        log: What FFmpeg logged meanwhile.

    Raises:
        DataError: The file is damaged.
    """
    for level, name, message in log:
        if level > av.logging.ERROR:
            continue
        if name == stream.codec_context.name and stream.codec_context.codec.canonical_name in CONCEALING_CODECS:
            raise DataError(f"is damaged (its decoder says: {message.strip()})")
        if name == container.format.name and name in CONTAINERS_SKIPPING_DAMAGE:
            raise DataError(f"is damaged, and frames are lost (its container says: {message.strip()})")


def promised_frames(container: InputContainer, stream: VideoStream) -> int:
    """Returns how many frames the header says will be shown, or 0 where it says nothing.

    What an edit list hides is counted by the header of a QuickTime or MP4 file, but not by FFmpeg's index of it. The
    header of an AVI file also counts frames that were dropped while recording: its index has none there, and goes on.

    Args:
        container: The opened file.
        stream: A video stream of it.
    """
    if container.format.name.startswith("mov"):
        return min(stream.frames, sum(not entry.is_discard for entry in stream.index_entries))
    if container.format.name == "avi":
        times = [entry.timestamp for entry in stream.index_entries]
        return len(times) if times and times[-1] == stream.frames - 1 else stream.frames
    return stream.frames


def frames_of(frames: int, promised: int) -> str:
    """Returns a count of frames beside the promised one, in words for a message."""
    return f"{frames} of {promised} frames" if promised else f"{frames} frames"


def _last_second(path: Path) -> float:
    """Returns when the last packet of any stream ends, in seconds."""
    with open_video(path) as container:
        return max(
            float((packet.pts + (packet.duration or 0)) * packet.time_base)
            for packet in demux(container)
            if packet.pts is not None
        )
