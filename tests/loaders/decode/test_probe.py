"""What a scan says of a file holds when it is trained on, and what is wrong with a file is said."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import av.logging
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from cacl.errors import DataError
from cacl.loaders.decode.probe import probe
from cacl.loaders.decode.raw import decode_frames
from cacl.loaders.decode.remux import remux_clip
from cacl.loaders.prepared.transcode import TranscodeSettings, transcode
from tests.loaders.decode import streams
from tests.loaders.decode.damaged_files import halves
from tests.loaders.decode.plain_decoding import alone, grey, wrong_clips

MakeVideo = Callable[..., Path]


# --- Frames that are hidden, and frames that cannot be decoded


@pytest.mark.parametrize("bframes", [0, 2])
@pytest.mark.parametrize(
    ("first", "last"), [(0, 0), (3, 0), (12, 0), (13, 0), (30, 0), (0, 5), (0, 17), (25, 26), (1, 40)]
)
def test_what_an_edit_list_hides_is_not_missing(
    make_video: MakeVideo, tmp_path: Path, first: int, last: int, bframes: int
) -> None:
    path = make_video(tmp_path / "video.mp4", frames=60, bframes=bframes)
    whole = alone(path)
    video = probe(streams.hide(path, first, last, 60))
    assert abs(video.frames - (60 - first - last)) <= 1  # At the end FFmpeg shows one frame more or less.
    assert video.frames == video.declared_frames
    shown = [grey(frame) for frame in decode_frames(path, video, range(video.frames))]
    assert all(np.array_equal(a, b) for a, b in zip(shown, whole[first:], strict=False))
    assert wrong_clips({path: video}, threads=1, clips=20, length=3) == []


def test_frames_that_were_dropped_while_recording_are_not_missing(make_video: MakeVideo, tmp_path: Path) -> None:
    """The header of an AVI file counts them, and in the place of each it holds a frame of no bytes."""
    with streams.coded(make_video(tmp_path / "whole.avi", codec="mpeg4", frames=40)) as (stream, frames):
        times = [*range(15), *range(35, 60)]
        path = streams.mux(tmp_path / "video.avi", stream, frames, times)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 60
    video = probe(path)
    assert (video.frames, video.declared_frames) == (40, 40)
    assert wrong_clips({path: video}, threads=1, clips=20) == []
    halves(path, 0.8)  # Its index is gone with the rest.
    with pytest.raises(DataError, match=r"^is cut short: only \d+ of 60 frames decode$|^decoding fails after"):
        probe(path)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_file_that_starts_between_key_frames(make_video: MakeVideo, tmp_path: Path, suffix: str) -> None:
    """The same coded frames are worth the same in any container: numbers begin at the first frame that decodes."""
    whole = make_video(tmp_path / "whole.mp4", frames=60, gop=24)
    path = streams.starting_at(whole, tmp_path / f"video.{suffix}", 5)
    video = probe(path)
    assert (video.frames, video.undecodable_frames) == (36, 19)
    assert wrong_clips({path: video}, threads=1) == []
    expected = alone(whole)[24:]
    for first, last in ((0, 0), (0, 9), (7, 12), (20, 26), (35, 35)):
        piece = remux_clip(path, video, first, last)  # DALI gets this.
        (tmp_path / "piece.mp4").write_bytes(piece.data)
        shown = alone(tmp_path / "piece.mp4")[piece.offset :]
        assert all(np.array_equal(a, b) for a, b in zip(shown, expected[first : last + 1], strict=False))
        assert len(shown) >= last + 1 - first


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        ("mpeg4", "mp4"),
        ("mpeg4", "avi"),
        ("mpeg4", "mkv"),
        ("libvpx-vp9", "webm"),
        ("libvpx-vp9", "mp4"),
        ("ffv1", "mkv"),
    ],
)
def test_a_start_between_key_frames_that_a_decoder_makes_up(
    make_video: MakeVideo, tmp_path: Path, codec: str, suffix: str
) -> None:
    """FFmpeg's decoder of MPEG-4 shows differences to a grey frame that never was, and does not flag them."""
    whole = make_video(tmp_path / f"whole.{suffix}", frames=40, codec=codec)
    path = streams.starting_at(whole, tmp_path / f"video.{suffix}", 5)
    with pytest.raises(DataError, match=r"^starts between key frames: its first frames refer to others"):
        probe(path)


# --- Several streams


def with_two_streams(path: Path, sizes: tuple[tuple[int, int], ...], frames: tuple[int, ...]) -> Path:
    """Writes videos of 25 frames a second into one file, the first one with the flag `default`."""
    with av.open(str(path), "w") as file:
        tracks = []
        for (width, height), codec in zip(sizes, ("mjpeg", "libx264"), strict=True):
            track = file.add_stream(codec, 25)
            assert isinstance(track, VideoStream)
            track.width, track.height = width, height
            track.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            tracks.append(track)
        for number in range(max(frames)):
            for track, count, level in zip(tracks, frames, (40, 200), strict=True):
                if number < count:
                    image = np.full((track.height, track.width, 3), level + number, np.uint8)
                    frame = VideoFrame.from_ndarray(image, "rgb24").reformat(format=track.pix_fmt)
                    frame.pts, frame.time_base = number, Fraction(1, 25)
                    file.mux(track.encode(frame))
        for track in tracks:
            file.mux(track.encode())
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
@pytest.mark.parametrize(("sizes", "frames"), [(((32, 32), (64, 48)), (1, 20)), (((32, 32), (64, 48)), (20, 20))])
def test_of_several_streams_the_video_is_taken(
    tmp_path: Path, suffix: str, sizes: tuple[tuple[int, int], ...], frames: tuple[int, ...]
) -> None:
    """A thumbnail or a small preview may be the first stream, and the one that is flagged `default`."""
    path = with_two_streams(tmp_path / f"video.{suffix}", sizes, frames)
    video = probe(path)
    assert (video.frames, video.width, video.height, video.codec, video.video_streams) == (20, 64, 48, "h264", 2)
    (first,) = decode_frames(path, video, [0])
    assert grey(first).mean() == pytest.approx(200, abs=4)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_large_picture_is_no_video(tmp_path: Path, suffix: str) -> None:
    path = with_two_streams(tmp_path / f"video.{suffix}", ((128, 96), (64, 48)), (1, 20))
    assert (probe(path).frames, probe(path).width) == (20, 64)


def test_a_stream_that_nothing_told_of(make_video: MakeVideo, tmp_path: Path) -> None:
    """Frame 40 comes once more, under an identifier that no table of the file names."""
    path = make_video(tmp_path / "video.m2ts", frames=60)
    whole = alone(path)
    data, size, used, other = path.read_bytes(), 192, 0x11, 0x19  # bytes of a packet, low bytes of identifiers
    packets = [data[at : at + size] for at in range(0, len(data), size)]
    begins = [n for n, packet in enumerate(packets) if packet[5] & 0x40 and packet[6] == used]
    again = [
        packet[:6] + bytes([other]) + packet[7:] for packet in packets[begins[40] : begins[41]] if packet[6] == used
    ]
    path.write_bytes(b"".join(packets[: begins[40]] + again + packets[begins[40] :]))
    video = probe(path)
    assert (video.frames, video.video_streams) == (60, 1)
    for numbers in (range(60), range(35, 60, 3)):
        for number, frame in zip(numbers, decode_frames(path, video, numbers), strict=True):
            assert np.array_equal(grey(frame), whole[number])
    for short_side in (32, 48):  # The first is encoded, the second copied.
        converted = transcode(path, video, tmp_path / "converted", TranscodeSettings(short_side=short_side))
        assert converted.video.frames == 60


# --- Pixel formats


@pytest.mark.parametrize(
    ("codec", "suffix", "pixels"),
    [
        ("png", "mov", "monob"),
        ("png", "mov", "rgba64be"),
        ("rawvideo", "nut", "yuv410p"),
        ("rawvideo", "avi", "rgb555le"),
        ("qtrle", "mov", "rgb24"),
        ("libx264", "mp4", "gray"),
        ("libx264", "mp4", "yuv444p10le"),
        ("prores_ks", "mov", "yuva444p10le"),
    ],
)
def test_pixels_of_any_layout(make_video: MakeVideo, tmp_path: Path, codec: str, suffix: str, pixels: str) -> None:
    path = make_video(tmp_path / f"video.{suffix}", frames=12, codec=codec, pixels=pixels)
    video = probe(path)
    assert video.frames == 12
    converted = transcode(path, video, tmp_path / "converted", TranscodeSettings(short_side=48)).video
    kept = [grey(frame) for frame in decode_frames(tmp_path / "converted", converted, range(12))]
    assert max(np.abs(a - b).mean() for a, b in zip(kept, alone(path), strict=True)) < 20
