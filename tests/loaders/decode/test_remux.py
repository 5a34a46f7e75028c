"""A remuxed clip shows the very same frames, bit for bit, as the whole file does."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from zlib import crc32

import av
import numpy as np
import pytest
from av.container import InputContainer
from av.video.plane import VideoPlane
from av.video.stream import VideoStream

from cacl.clips import VideoRecord
from cacl.errors import DataError
from cacl.loaders.decode.probe import probe
from cacl.loaders.decode.remux import RemuxedClip, remux_clip
from cacl.loaders.decode.yuv import yuv_to_rgb_matrix
from cacl.loaders.prepared.transcode import TranscodeSettings, transcode

MakeVideo = Callable[..., Path]
Trimmed = Callable[[Path, Path], Path]
FRAMES, GOP = 48, 12
SPANS = [(0, 0), (0, 30), (1, 1), (11, 12), (12, 12), (13, 43), (23, 25), (36, 47), (47, 47)]


@pytest.mark.parametrize(
    ("codec", "suffix", "bframes"),
    [
        ("libx264", "mp4", 0),
        ("libx264", "mp4", 3),
        ("libx264", "mkv", 3),
        ("libx264", "avi", 0),
        ("libvpx-vp9", "webm", 0),
        ("libvpx", "webm", 0),
        ("mpeg4", "mp4", 0),
        ("mpeg4", "mp4", 2),
        ("mpeg4", "avi", 0),
        ("mpeg4", "avi", 2),
    ],
)
def test_a_cut_shows_the_same_frames(
    make_video: MakeVideo, tmp_path: Path, codec: str, suffix: str, bframes: int
) -> None:
    path = make_video(tmp_path / f"video.{suffix}", frames=FRAMES, gop=GOP, codec=codec, bframes=bframes)
    video = probe(path)
    assert video.frames == FRAMES
    assert bool(bframes) == stores_out_of_order(path)
    check_cuts(path, video, SPANS)


@pytest.mark.parametrize(("matrix", "codec"), [(1, "h264"), (5, "h264"), (9, "h264"), (1, "hevc")])
def test_a_prepared_video_is_read_as_it_is(tmp_path: Path, matrix: int, codec: str) -> None:
    source, file = tmp_path / "video.mp4", tmp_path / "prepared.mp4"
    rng = np.random.default_rng(0)
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.colorspace = matrix
        for _ in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (72, 64), np.uint8), format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    prepared = transcode(source, probe(source), file, TranscodeSettings(gop=GOP, codec=codec)).video
    check_cuts(file, prepared, SPANS)
    assert rgb_weights(remux_clip(file, prepared, 13, 43).colorspace) == rgb_weights(matrix)
    for first, last in SPANS:
        assert len(checksums(remux_clip(file, prepared, first, last).data)) <= last - first + 2 * GOP


def rgb_weights(matrix: int) -> list[float]:
    """Returns what a number of H.273 stands for: 5 and 6 are both BT.601."""
    return yuv_to_rgb_matrix(matrix, False).ravel().tolist()


@pytest.mark.parametrize("bframes", [0, 3])
def test_a_cut_holds_little_more_than_the_span(make_video: MakeVideo, tmp_path: Path, bframes: int) -> None:
    path = make_video(tmp_path / "video.mp4", frames=FRAMES, gop=GOP, bframes=bframes)
    video = probe(path)
    assert [point.frame for point in video.seek_points] == [12, 24, 36]
    for first, last in SPANS:
        frames = len(checksums(remux_clip(path, video, first, last).data))
        lead = first % GOP
        assert last - first + 1 + lead <= frames <= last - first + 1 + lead + bframes + 1


def test_frames_shown_before_the_key_frame_they_follow_are_left_out(tmp_path: Path) -> None:
    """In open GOPs, B-frames after a key frame also refer to the GOP before it."""
    path = tmp_path / "open.mp4"
    with av.open(str(path), "w") as container:
        options = {"x264-params": "open-gop=1:bframes=3:b-adapt=0:keyint=12:min-keyint=12:scenecut=0"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        rng = np.random.default_rng(0)
        for _ in range(FRAMES):
            noise = rng.integers(0, 256, (48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode(None))
    video = probe(path)
    packets = [packet for packet in demux(path) if packet.size]
    leading = [b.pts < a.pts for a, b in pairwise(packets) if a.is_keyframe and a.pts and b.pts]
    assert any(leading)
    assert video.seek_points
    check_cuts(path, video, SPANS)


def test_frames_hidden_by_an_edit_list_are_not_counted(make_video: MakeVideo, trimmed: Trimmed, tmp_path: Path) -> None:
    whole = make_video(tmp_path / "whole.mp4", frames=FRAMES, gop=GOP, bframes=2)
    path = trimmed(whole, tmp_path / "edited.mp4")
    assert sum(packet.is_discard for packet in demux(path)) == 4
    video = probe(path)
    assert video.frames == FRAMES - 4
    check_cuts(path, video, [(0, 0), (0, 10), (3, 33), (7, 8), (43, 43)])


def test_real_footage(footage: Path) -> None:
    """The files are of every container and codec that folders hold, packed B-frames in AVI among them."""
    files = sorted((footage / "formats").iterdir()) + sorted((footage / "ut_interaction").rglob("*.avi"))[::20]
    usable = 0
    for path in files:
        try:
            video = probe(path)
        except DataError:
            continue
        middle, last = video.frames // 2, video.frames - 1
        check_cuts(path, video, [(0, 0), (0, min(30, last)), (middle, min(middle + 30, last)), (last, last)])
        usable += 1
    assert usable >= 17


def test_display_order_that_avi_does_not_store_is_an_error(make_video: MakeVideo, tmp_path: Path) -> None:
    path = make_video(tmp_path / "video.avi", frames=FRAMES, gop=GOP, bframes=3)
    with pytest.raises(DataError, match=r"video\.avi: has B-frames in an AVI file"):
        remux_clip(path, probe(path), 0, 10)


def test_a_file_that_changed_is_named(make_video: MakeVideo, tmp_path: Path) -> None:
    path = make_video(tmp_path / "video.mp4", frames=FRAMES, gop=GOP)
    video = probe(path)
    make_video(path, frames=20, gop=GOP)
    with pytest.raises(DataError, match=r"video\.mp4: ends 11 frames earlier .* scan the folder again"):
        remux_clip(path, video, 5, 30)
    path.write_bytes(b"no video" * 100)
    with pytest.raises(DataError, match=r"video\.mp4: cannot be cut"):
        remux_clip(path, video, 5, 30)
    path.unlink()
    with pytest.raises(DataError, match=r"video\.mp4: cannot be cut"):
        remux_clip(path, video, 5, 30)


def check_cuts(path: Path, video: VideoRecord, spans: list[tuple[int, int]]) -> None:
    whole = checksums(path)
    for first, last in spans:
        piece = remux_clip(path, video, first, last)
        shown = checksums(piece.data)[piece.offset :]
        assert shown[: last - first + 1] == whole[first : last + 1], f"{path.name}: frames {first} to {last}"
        check_timestamps(piece)


def check_timestamps(piece: RemuxedClip) -> None:
    """DALI leaves out frames with negative times, and puts the others in the order of their times."""
    times = [packet.pts for packet in demux(piece.data) if packet.size]
    assert all(time is not None and time >= 0 for time in times)
    assert len(set(times)) == len(times)


def checksums(video: Path | bytes) -> list[int]:
    """Returns a checksum of the visible pixels of each frame, over all planes."""
    with opened(video) as container:
        frames = container.decode(max(container.streams.video, key=lambda stream: stream.width))
        return [crc32(b"".join(visible(plane) for plane in frame.planes)) for frame in frames]


def visible(plane: VideoPlane) -> bytes:
    return np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width].tobytes()


def opened(video: Path | bytes) -> InputContainer:
    return av.open(io.BytesIO(video) if isinstance(video, bytes) else str(video), "r", metadata_errors="ignore")


def demux(video: Path | bytes) -> list[av.Packet]:
    with opened(video) as container:
        return list(container.demux(container.streams.video[0]))


def stores_out_of_order(path: Path) -> bool:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert isinstance(stream, VideoStream)
        return bool(stream.codec_context.has_b_frames)
