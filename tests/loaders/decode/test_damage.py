"""Files that are damaged or cut short are refused, with a reason; files that are in order are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import av.logging
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

from cacl.errors import DataError
from cacl.loaders.decode.probe import probe
from tests.loaders.decode import streams
from tests.loaders.decode.damaged_files import halves, overwritten
from tests.loaders.decode.plain_decoding import alone

MakeVideo = Callable[..., Path]


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.93])
@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("libx264", "mkv"), ("libvpx-vp9", "webm"), ("libvpx", "webm"), ("flv", "flv"), ("mpeg4", "avi")],
)
def test_a_file_that_is_cut_short(make_video: MakeVideo, tmp_path: Path, codec: str, suffix: str, share: float) -> None:
    path = make_video(tmp_path / f"video.{suffix}", frames=60, size=(160, 120), codec=codec)
    probe(path)
    halves(path, share)
    with pytest.raises(DataError, match=r"^(is cut short|is damaged|cannot be opened)"):
        probe(path)


def test_an_end_between_two_frames_is_told_by_the_duration(make_video: MakeVideo, tmp_path: Path) -> None:
    """Nothing is torn, and nothing but the header knows that there was more."""
    path = make_video(tmp_path / "video.flv", frames=60, codec="flv")
    with streams.coded(path) as (_, frames):
        coded = frames[30].data
    data = path.read_bytes()
    path.write_bytes(data[: data.index(coded) - 12])  # It ends before the header of the tag.
    with pytest.raises(DataError, match=r"^is cut short: its pictures end after 1\.2 of 2\.4 seconds$"):
        probe(path)


def test_sound_may_last_longer_than_the_pictures(tmp_path: Path) -> None:
    path = tmp_path / "video.mkv"
    with av.open(str(path), "w") as file:
        video, audio = file.add_stream("libx264", 25), file.add_stream("aac", 8000, layout="mono")
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for number in range(20):
            file.mux(video.encode(VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * number, np.uint8), "rgb24")))
        for number in range(20):
            sound = AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            sound.sample_rate, sound.pts = 8000, 1024 * number
            file.mux(audio.encode(sound))
        file.mux([*video.encode(), *audio.encode()])
    assert probe(path).frames == 20


def test_checksums_in_the_stream_are_looked_at(make_video: MakeVideo, tmp_path: Path) -> None:
    """FFmpeg's decoder of FFV1 puts something else in the place of a slice with a wrong checksum, and only logs it."""
    path = make_video(tmp_path / "video.mkv", codec="ffv1", options={"level": "3", "slicecrc": "1"})
    good = make_video(tmp_path / "good.mkv", codec="ffv1", options={"level": "3", "slicecrc": "1"})
    overwritten(path, 7)
    for _ in range(2):
        with pytest.raises(DataError, match=r"^is damaged \(its decoder says: .*CRC mismatch"):
            probe(path)
        assert probe(good).frames == 24  # What is said of one file is not held against the next.


def test_frames_that_the_container_lost_are_missed(make_video: MakeVideo, tmp_path: Path) -> None:
    """FFmpeg's demuxer goes on with the next cluster. All that is decoded is right, and the file lasts as long as its
    header says."""
    path = make_video(tmp_path / "video.mkv", frames=48, muxer={"cluster_time_limit": "200"})
    with streams.coded(path) as (_, frames):
        data = bytearray(path.read_bytes())
        begin = data.index(frames[20].data)
    data[begin - 8 : begin] = bytes(8)
    path.write_bytes(data)
    assert 24 < len(alone(path)) < 48
    with pytest.raises(
        DataError, match=r"^is damaged, and frames are lost \(its container says: .*invalid as first byte"
    ):
        probe(path)


def test_packets_that_are_lost_are_counted(make_video: MakeVideo, tmp_path: Path) -> None:
    """MPEG-TS numbers its packets of 188 bytes (ISO/IEC 13818-1, 2.4.3.3): that a whole frame is missing is told by
    nothing else."""
    path = make_video(tmp_path / "video.ts", frames=40, size=(160, 120))
    assert probe(path).incomplete_packets == 0
    data = path.read_bytes()
    with streams.coded(path) as (_, frames):
        begin, end = (data.index(frames[number].data[:60]) // 188 * 188 for number in (23, 24))
    path.write_bytes(data[:begin] + data[end:])
    video = probe(path)
    assert (video.frames, video.incomplete_packets > 0) == (39, True)


@pytest.mark.parametrize(("codec", "pixels"), [("libx265", "yuv420p"), ("mjpeg", "yuvj420p")])
def test_a_decoder_that_can_refuse_damage_does(make_video: MakeVideo, tmp_path: Path, codec: str, pixels: str) -> None:
    """Left alone, FFmpeg's decoders of these accept all of these files, and flag no frame of them."""
    path = make_video(tmp_path / "video.mp4", frames=40, size=(160, 120), codec=codec, pixels=pixels)
    whole = path.read_bytes()
    named = []
    for frame in range(0, 40, 4):
        path.write_bytes(whole)
        overwritten(path, frame)
        try:
            probe(path)
        except DataError as error:
            named.append(str(error))
    assert len(named) >= 2
    assert all(reason.startswith(("is damaged", "decoding fails after")) for reason in named)


def test_colours_that_change_on_the_way(make_video: MakeVideo, tmp_path: Path) -> None:
    """A clip is turned into RGB in one way, which would be wrong for the half of it."""
    parts = [
        make_video(tmp_path / f"{name}.ts", frames=24, options={"colorspace": name, "color_range": "tv"})
        for name in ("bt709", "smpte170m")
    ]
    path = tmp_path / "video.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(DataError, match=r"^changes its colours at frame 24"):
        probe(path)
