"""Videos that fit already are copied packet by packet, and nothing else is."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import pytest

from cacl.loaders.decode import mp4
from cacl.loaders.decode.yuv import frame_checksum
from tests.loaders.prepared.transcoded import SMALL, decoded, encode, made, number_on, patches, with_each_codec

MakeVideo = Callable[..., Path]

ENCODERS = {"h264": "libx264", "hevc": "libx265"}

Trimmed = Callable[[Path, Path], Path]


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [*(("h264", suffix) for suffix in ("mp4", "mkv", "ts", "avi")), *(("hevc", s) for s in ("mp4", "mkv", "ts"))],
)
def test_a_file_that_fits_is_copied(make_video: MakeVideo, tmp_path: Path, codec: str, suffix: str) -> None:
    path = make_video(tmp_path / f"video.{suffix}", frames=45, size=(80, 48), gop=12, codec=ENCODERS[codec])
    settings = replace(SMALL, codec=codec)
    converted, file = made(path, settings)
    assert converted.copied
    assert converted.video.codec == codec
    assert converted.video.fragments is not None
    assert converted.video.fragments.first_frames.tolist() == [0, 12, 24, 36]
    frames = decoded(file)
    assert [frame_checksum(frame) for frame in frames] == [frame_checksum(frame) for frame in decoded(path)]
    assert [frame.time for frame in frames] == pytest.approx([number / 25 for number in range(45)])
    if suffix in ("mp4", "mkv"):  # The others delimit coded frames otherwise.
        with av.open(str(path)) as container:
            packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
        data = file.read_bytes()
        assert list(mp4.samples(data)) == packets
    assert file.read_bytes() == made(path, settings)[1].read_bytes()


@with_each_codec
def test_a_file_of_the_other_codec_is_not_copied(make_video: MakeVideo, tmp_path: Path, codec: str) -> None:
    """A set has one codec."""
    (other,) = ENCODERS.keys() - {codec}
    path = make_video(tmp_path / "video.mp4", size=(80, 48), codec=ENCODERS[other])
    assert made(path, replace(SMALL, codec=other))[0].copied
    converted, file = made(path, replace(SMALL, codec=codec))
    assert (converted.copied, converted.video.codec) == (False, codec)
    assert [number_on(frame) for frame in decoded(file)] == list(range(24))


def test_what_does_not_fit_is_not_copied(make_video: MakeVideo, tmp_path: Path) -> None:
    size = (80, 48)
    unfit = {
        "B-frames": make_video(tmp_path / "a.mp4", size=size, bframes=2),
        "large": make_video(tmp_path / "b.mp4", size=(100, 60)),
        "long groups": make_video(tmp_path / "c.mp4", size=size, frames=40, gop=40),
        "full range": encode(
            tmp_path / "d.mp4", "libx264", "yuv420p", [patches(*size)] * 4, color_range=2, options={"bf": "0"}
        ),
        "no key frames": encode(
            tmp_path / "e.ts",
            "libx264",
            "yuv420p",
            [patches(*size)] * 40,
            options={"bf": "0", "intra-refresh": "1", "g": "12"},
        ),
        "fields": encode(
            tmp_path / "f.mp4", "libx264", "yuv420p", [patches(*size)] * 4, options={"bf": "0", "x264-params": "tff=1"}
        ),
    }
    for reason, path in unfit.items():
        converted, file = made(path)
        assert not converted.copied, reason
        assert len(decoded(file)) == len(decoded(path)), reason


def test_hidden_frames_are_not_copied(make_video: MakeVideo, trimmed: Trimmed, tmp_path: Path) -> None:
    """A trimmed file keeps the pictures before its first one, since that needs them."""
    whole = make_video(tmp_path / "whole.mp4", size=(80, 48))
    path = trimmed(whole, tmp_path / "trimmed.mp4")
    converted, file = made(path)
    assert not converted.copied
    assert [number_on(frame) for frame in decoded(file)] == list(range(4, 24))


def test_colours_that_only_the_container_states_are_not_lost(make_video: MakeVideo, tmp_path: Path) -> None:
    """The loader hands packets to a decoder, without the container: there the frames would be read as BT.601."""
    path = make_video(tmp_path / "video.mp4", size=(80, 48))
    content = bytearray(path.read_bytes())
    box = struct.pack(">I4s4s3HB", 19, b"colr", b"nclx", 1, 1, 1, 0)
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):  # They are all at the end of the file.
        at = content.rindex(kind) - 4
        (size,) = struct.unpack_from(">I", content, at)
        struct.pack_into(">I", content, at, size + len(box))
    content[at + size : at + size] = box
    path.write_bytes(content)
    assert decoded(path)[0].colorspace == 1
    converted, file = made(path)
    assert (converted.copied, decoded(file)[0].colorspace) == (False, 1)
