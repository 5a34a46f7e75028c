"""Makes videos like those of UCF101 from real footage, for `cacl bench-loader`: 320x240, 180 frames, in class folders.

    python benchmarks/scripts/make_corpus.py FOOTAGE OUT [--videos N] [--codec xvid|h264]

`xvid` is what UCF101 and HMDB51 hold: MPEG-4 part 2 in AVI with packed B-frames, about 500 kb/s, key frames up to 250
frames apart. `h264` is what Kinetics holds: libx264 in MP4, with key frames as far apart. The same footage gives the
same bytes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import chain, islice, zip_longest
from pathlib import Path

import av
import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream

WIDTH, HEIGHT, FRAMES, RATE, GOP = 320, 240, 180, 25, 250
MIN_FRAMES, MAX_ENLARGEMENT = 24, 1.5
"""The footage that is taken has enough frames to be played to and fro, and is not blurred by enlarging it."""
OPTIONS = {
    "xvid": {"b": "500k", "flags": "+bitexact", "mbd": "rd", "trellis": "1"},
    # With mbtree, libx264 on AVX-512 gives other bytes from run to run.
    "h264": {"preset": "medium", "crf": "23", "mbtree": "0"},
}
VOP_START, NEW_VOL = b"\0\0\1\xb6", b"\0\0\1\xb2DivX503b1393p"
"""The start of a coded frame of MPEG-4 part 2, and the note by which decoders know that B-frames are packed."""
B_FRAME = 2
NOT_CODED = VOP_START + bytes([0b01010000, 0b01001111])
"""A P-frame without content, which fills the place of a frame that was packed into an earlier packet."""


def pictures(file: Path, offset: int) -> Iterator[np.ndarray]:
    """Yields FRAMES pictures uint8 [H, W, 3]: the middle of each frame, played to and fro from frame `offset` on."""
    with av.open(str(file), metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        scale = enlargement(stream)
        width, height = round(stream.width * scale), round(stream.height * scale)
        frames = [f.reformat(width, height, "rgb24").to_ndarray() for f in container.decode(stream)]
    top, left, last = (height - HEIGHT) // 2, (width - WIDTH) // 2, len(frames) - 1
    for time in range(offset, offset + FRAMES):
        frame = frames[last - abs(last - time % (2 * last))]
        yield frame[top : top + HEIGHT, left : left + WIDTH]


def encode(file: Path, images: Iterator[np.ndarray], codec: str) -> None:
    """Encodes pictures uint8 [H, W, 3] to a file, with `xvid` or `h264`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream({"xvid": "mpeg4", "h264": "libx264"}[codec], RATE, options=OPTIONS[codec])
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        context = stream.codec_context
        context.gop_size, context.max_b_frames, context.thread_count = GOP, 2, 1
        if codec == "xvid":
            context.codec_tag = "XVID"
        frames = chain((av.VideoFrame.from_ndarray(image, "rgb24") for image in images), [None])
        packets = [packet for frame in frames for packet in stream.encode(frame)]
        container.mux(pack_b_frames(packets, stream) if codec == "xvid" else packets)


def pack_b_frames(packets: list[Packet], stream: VideoStream) -> list[Packet]:
    """Packs B-frames as XviD does: the first of a run joins the packet of the frame before it, an empty one follows."""
    frames = [bytes(packet) for packet in packets]
    kinds = [frame[frame.index(VOP_START) + len(VOP_START)] >> 6 for frame in frames]
    starts = [number for number, kind in enumerate(kinds) if kind != B_FRAME]
    contents: list[bytes] = []
    for start, end in zip(starts, [*starts[1:], len(frames)], strict=True):
        first, *rest = frames[start:end]
        contents += [first + rest[0], *rest[1:], NOT_CODED] if rest else [first]
    note = contents[0].index(VOP_START)
    contents[0] = contents[0][:note] + NEW_VOL + contents[0][note:]
    result = []
    for time, (content, packet) in enumerate(zip(contents, packets, strict=True)):
        whole = Packet(content)
        whole.stream, whole.time_base, whole.is_keyframe = stream, packet.time_base, packet.is_keyframe
        whole.pts = whole.dts = time
        result.append(whole)
    return result


def usable(file: Path) -> bool:
    """Whether footage is long and large enough."""
    try:
        with av.open(str(file), metadata_errors="ignore") as container:
            stream = container.streams.video[0]
            enough = sum(1 for _ in container.decode(stream)) >= MIN_FRAMES
            return enough and enlargement(stream) <= MAX_ENLARGEMENT
    except (av.FFmpegError, ValueError, IndexError):
        return False


def enlargement(stream: VideoStream) -> float:
    """The factor by which footage is enlarged to fill a frame."""
    return max(WIDTH / stream.width, HEIGHT / stream.height)


def sources(footage: Path) -> Iterator[Path]:
    """Yields usable footage, of each folder in turn."""
    folders: dict[Path, list[Path]] = {}
    for file in sorted(footage.rglob("*")):
        if file.suffix in (".avi", ".mp4"):
            folders.setdefault(file.parent, []).append(file)
    in_turn = chain.from_iterable(zip_longest(*folders.values()))
    return (file for file in in_turn if file and usable(file))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("footage", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--videos", type=int, default=48)
    parser.add_argument("--codec", choices=list(OPTIONS), default="xvid")
    args = parser.parse_args()
    taken = list(islice(sources(args.footage), args.videos))
    for number in range(args.videos):
        again, which = divmod(number, len(taken))
        label = taken[which].parent.name
        suffix = {"xvid": "avi", "h264": "mp4"}[args.codec]
        # Footage that is needed again starts elsewhere.
        images = pictures(taken[which], offset=again * 37)
        encode(args.out / label / f"v_{label}_{number:03d}.{suffix}", images, args.codec)
