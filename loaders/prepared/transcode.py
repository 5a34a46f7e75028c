"""One video as training wants it: small H.264 or HEVC in an MP4 file whose fragments are independent GOPs.

What such a file looks like, `decode.mp4` tells. A source that fits already is copied packet by packet. Any other is
decoded, scaled and encoded anew, every frame exactly once, so that frame numbers stay what they are. Either way what
was written is decoded again, GOP by GOP as the loader does it, before anybody relies on it. The same file and settings
give the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from cacl.clips import Fragments, VideoRecord
from cacl.errors import DataError, UsageError, reason_of
from cacl.loaders.decode import mp4
from cacl.loaders.decode.fragments import decode_prepared
from cacl.loaders.decode.raw import decode_stream, demux, open_video, select_video_stream
from cacl.loaders.decode.yuv import (
    FULL_RANGE,
    apply_orientation,
    as_planar_420,
    frame_checksum,
    planes,
    source_colorspace,
)

MAX_COPIED_GOP = 32
"""The longest GOP in frames that is copied. Files with longer ones are encoded anew: a clip would take twice the frames
that it needs."""
MAX_RATE_DENOMINATOR = 1001
"""The largest denominator of a frame rate, as in 30000/1001."""
MAX_RATE = 100_000
"""Frames per second. A header that says more is taken to say nothing."""
UNKNOWN_RATE = Fraction(25)
"""The frame rate of videos whose header tells none."""
BICUBIC_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
"""These flags give the same pixels on every CPU."""
COEFFICIENTS = {Colorspace.ITU709: 1, Colorspace.BT2020: 9, Colorspace.ITU601: 6}
"""Matrix coefficients of ITU-T H.273 that name a colour standard."""
ENCODERS = {
    # With mbtree, x264 on AVX-512 gives other bytes from run to run.
    "h264": ("libx264", {"sc_threshold": "0", "mbtree": "0"}),
    # With cutree, x265 4.2 writes beyond its memory where frames are up to 48 pixels wide.
    "hevc": ("libx265", {"x265-params": "scenecut=0:cutree=0:open-gop=0:pools=none:info=0:log-level=none"}),
}
"""The encoder of each codec of `mp4.CODECS`, and its options that the other does not have."""
MIN_HEVC_SIDE = 16
"""The shortest side in pixels that x265 encodes."""
MUXER = {"movflags": "frag_keyframe+empty_moov+default_base_moof+skip_trailer+write_colr", "fflags": "+bitexact"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscodeSettings:
    """What decides the bytes of a prepared video, beside its source.

    Raises:
        UsageError: A value is out of its bounds.
    """

    short_side: int = 128
    """The shorter side of larger videos, in pixels. Smaller ones keep their size."""
    gop: int = 16
    """The number of frames from one key frame to the next."""
    crf: int = 23
    """The constant rate factor of the encoder: a lower one is better and larger."""
    codec: str = "h264"
    """FFmpeg's name of the codec: `h264` or `hevc`."""

    def __post_init__(self) -> None:
        problems = [
            (self.short_side < 16 or self.short_side % 2, f"short side {self.short_side}: give an even number from 16"),
            (not 1 <= self.gop <= 250, f"GOP {self.gop}: give 1 to 250 frames"),
            (not 1 <= self.crf <= 51, f"CRF {self.crf}: give 1 to 51"),
            (self.codec not in ENCODERS, f"codec {self.codec}: give {' or '.join(ENCODERS)}"),
        ]
        if wrong := [message for is_wrong, message in problems if is_wrong]:
            raise UsageError("; ".join(wrong))


class TranscodeResult(NamedTuple):
    """A prepared video that was written."""

    video: VideoRecord
    """What was written, with its fragments and without a path."""
    copied: bool
    """Whether the packets were copied; if not, the frames were encoded."""


def transcode(source: Path, video: VideoRecord, file: Path, settings: TranscodeSettings) -> TranscodeResult:
    """Writes the prepared video of a source, and decodes it again to prove it.

    Args:
        source: The source.
        video: What `probe` found in it.
        file: The file to write. After an error, what there is of it is worth nothing.
        settings: What the source is converted with.

    Returns:
        What was written.

    Raises:
        DataError: The source cannot be converted. The message is the reason, without the path.
        OSError: The file cannot be written.
    """
    rate = Fraction(video.rate).limit_denominator(MAX_RATE_DENOMINATOR)
    if not 0 < rate <= MAX_RATE:
        rate = UNKNOWN_RATE
    return _copy(source, video, rate, file, settings) or _encode(source, video, rate, file, settings)


def scaled_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Returns the size of a video once its shorter side is scaled down to a length.

    Args:
        width: The width in pixels.
        height: The height in pixels.
        short_side: The length in pixels. A video whose shorter side is no longer than that is not scaled.

    Returns:
        Width and height in pixels, both even.
    """
    scale = min(1.0, short_side / min(width, height))
    # Rounding to the nearest even number must not make the video larger than it was.
    scaled_width, scaled_height = (max(2, min(2 * round(side * scale / 2), side // 2 * 2)) for side in (width, height))
    return scaled_width, scaled_height


def scale_frames(frames: Iterable[VideoFrame], video: VideoRecord, short_side: int) -> Iterator[VideoFrame]:
    """Turns decoded frames into what is encoded.

    Args:
        frames: Frames of the video as they were decoded.
        video: What `probe` found in it.
        short_side: See `scaled_size`.

    Yields:
        The frames upright and scaled, in 8-bit 4:2:0 of limited range. Their colour standard stays.
    """
    width, height = scaled_size(video.width, video.height, short_side)
    across, down = (height, width) if video.rotation % 180 else (width, height)
    scaler = VideoReformatter()  # It keeps its tables from frame to frame.
    for frame in frames:
        planar = as_planar_420(frame)
        standard = source_colorspace(planar)
        small = scaler.reformat(
            planar,
            across,
            down,
            "yuv420p",
            src_colorspace=standard,
            dst_colorspace=standard,
            dst_color_range=ColorRange.MPEG,
            interpolation=BICUBIC_SCALING,
            threads=1,
        )
        pixels = [apply_orientation(plane, video).ravel() for plane in planes(small)]
        # This is a new frame: what else the decoder attached to its frames would steer the encoder.
        fresh = VideoFrame.from_ndarray(np.concatenate(pixels).reshape(-1, width), format="yuv420p")
        fresh.colorspace, fresh.color_range = COEFFICIENTS[standard], ColorRange.MPEG
        yield fresh


# --- Copying


def _copy(
    source: Path, video: VideoRecord, rate: Fraction, file: Path, settings: TranscodeSettings
) -> TranscodeResult | None:
    """Writes the packets of a source to the file.

    The result is None if the source does not fit, or does not decode GOP by GOP to just the frames that it has as a
    whole.
    """
    size = (video.width, video.height)
    turned = video.rotation or video.mirrored
    if video.codec != settings.codec or turned or scaled_size(*size, settings.short_side) != size:
        return None
    try:
        with open_video(source) as container:
            stream = select_video_stream(container)
            packets: list[Packet] = []
            checksums: list[int] = []
            for packet in demux(container, stream):
                frames = packet.decode()
                if packet.is_discard or packet.has_sidedata("new_extradata") or not all(map(_can_be_copied, frames)):
                    return None
                checksums += map(frame_checksum, frames)
                packets += [packet] if packet.size else []
            data = _mux_copy(packets, stream, rate)
        if max(mp4.find_fragments(data)[1]) > MAX_COPIED_GOP or mp4.changes_parameters(data, video.codec):
            return None
        copy = _write(data, file, rate, *size, video.codec)
        return TranscodeResult(copy, copied=True) if list(_decoded_checksums(file, copy)) == checksums else None
    except (av.FFmpegError, ValueError, DataError):
        return None  # Whatever is odd about its stream, encoding it anew mends that.


def _can_be_copied(frame: VideoFrame) -> bool:
    return (
        frame.format.name == "yuv420p"
        and frame.color_range != FULL_RANGE
        and frame.pict_type != PictureType.B
        and not frame.interlaced_frame
    )


def _mux_copy(packets: Iterable[Packet], stream: VideoStream, rate: Fraction) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options=MUXER) as container:
        copy = container.add_stream_from_template(stream, opaque=True)
        copy.codec_context.codec_tag = _codec_tag(stream.codec_context.name)
        for number, packet in enumerate(packets):
            packet.pts = packet.dts = number
            packet.duration, packet.time_base, packet.stream = 1, 1 / rate, copy
            container.mux(packet)
    return file.getvalue()


# --- Encoding


def _encode(
    source: Path, video: VideoRecord, rate: Fraction, file: Path, settings: TranscodeSettings
) -> TranscodeResult:
    """Encodes the frames of a source to the file, and raises the errors of `transcode`."""
    size = scaled_size(video.width, video.height, settings.short_side)
    if settings.codec == "hevc" and min(size) < MIN_HEVC_SIDE:
        least = f"{MIN_HEVC_SIDE}x{MIN_HEVC_SIDE}"
        raise DataError(f"would be {size[0]}x{size[1]}, and HEVC begins at {least}; `--codec h264` takes it")
    try:
        with open_video(source) as container:
            frames = decode_stream(container, select_video_stream(container))
            data = _mux_encoded(scale_frames(frames, video, settings.short_side), rate, settings)
        encoded = _write(data, file, rate, *size, settings.codec)
    except (av.FFmpegError, ValueError) as error:
        raise DataError(f"cannot be encoded ({reason_of(error)})") from None
    if encoded.frames != video.frames:
        raise DataError(f"decodes to {video.frames} frames at first, and to {encoded.frames} the next time")
    try:
        for _ in _decoded_checksums(file, encoded):
            pass
    except DataError as error:
        raise DataError(f"was encoded, but that does not decode ({error})") from None
    return TranscodeResult(encoded, copied=False)


def _mux_encoded(frames: Iterable[VideoFrame], rate: Fraction, settings: TranscodeSettings) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options=MUXER) as container:
        stream = None
        for number, frame in enumerate(frames):
            stream = stream or _add_encoder(container, frame, rate, settings)
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        if stream is None:
            raise ValueError("no frame decodes the second time")
        container.mux(stream.encode())
    return file.getvalue()


def _add_encoder(
    container: OutputContainer, first: VideoFrame, rate: Fraction, settings: TranscodeSettings
) -> VideoStream:
    """Adds the stream that frames such as the first one are encoded into."""
    encoder, own_options = ENCODERS[settings.codec]
    options = {
        "preset": "veryfast",  # Small frames come out about as small and as good as with medium, and much faster.
        "tune": "fastdecode",
        "crf": str(settings.crf),
        "g": str(settings.gop),
        "keyint_min": str(settings.gop),
        "bf": "0",
        **own_options,
    }
    stream = container.add_stream(encoder, rate, options)
    assert isinstance(stream, VideoStream)
    stream.width, stream.height, stream.pix_fmt = first.width, first.height, "yuv420p"
    context = stream.codec_context
    context.codec_tag = _codec_tag(settings.codec)
    context.thread_count = 1  # The bytes depend on the number of threads.
    context.time_base = 1 / rate
    context.colorspace, context.color_range = first.colorspace, first.color_range
    return stream


def _codec_tag(codec: str) -> str:
    """Returns the type that a stream has in MP4 files. FFmpeg's own choice for HEVC is not played everywhere."""
    return mp4.CODECS[codec].sample_entry.decode()


# --- Writing and proving


def _write(data: bytes, file: Path, rate: Fraction, width: int, height: int, codec: str) -> VideoRecord:
    """Writes the file, and returns what it holds. Data without fragments raises ValueError."""
    offsets, frames = mp4.find_fragments(data)
    view = memoryview(data)
    checksums = [zlib.crc32(view[start:end]) for start, end in pairwise(offsets)]
    file.write_bytes(data)
    return VideoRecord(
        path="",
        frames=sum(frames),
        declared_frames=sum(frames),
        rate=float(rate),
        width=width,
        height=height,
        codec=codec,
        content_hash=hashlib.blake2b(data, digest_size=16).hexdigest(),
        fragments=Fragments(
            init_segment=data[: offsets[0]],
            first_frames=np.cumsum([0, *frames[:-1]], dtype=np.int64),
            offsets=np.array(offsets, np.int64),
            checksums=np.array(checksums, np.uint32),
        ),
    )


def _decoded_checksums(file: Path, video: VideoRecord) -> Iterator[int]:
    """Yields the checksums of all frames, each GOP decoded by itself. One that does not decode raises DataError."""
    assert video.fragments is not None
    for first, end in pairwise([*video.fragments.first_frames.tolist(), video.frames]):
        for number, frame in enumerate(decode_prepared(file, video, range(first, end)), first):
            if frame.is_corrupt or (frame.width, frame.height) != (video.width, video.height):
                raise DataError(f"frame {number} is damaged")
            if number == first and not frame.key_frame:
                raise DataError(f"frame {number} is no key frame")
            yield frame_checksum(frame)
