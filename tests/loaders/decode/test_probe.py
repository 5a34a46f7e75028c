"""What a scan says of a file holds when it is trained on, and what is wrong with a file is said."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import av.logging
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from cacl.clips import VideoRecord
from cacl.config import DataConfig
from cacl.errors import DataError
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.scan import scan
from cacl.loaders.decode import mp4
from cacl.loaders.decode.probe import probe
from cacl.loaders.decode.raw import decode_frames
from cacl.loaders.decode.remux import remux_clip
from cacl.loaders.prepared.prepare import prepare
from cacl.loaders.prepared.transcode import TranscodeSettings, transcode
from tests.loaders.decode import streams

MakeVideo = Callable[..., Path]
BASELINE = {"profile": "baseline"}
CABAC = {"profile": "main", "bf": "0"}


# --- A second way to decode


def alone(path: Path, stream: int = 0) -> list[np.ndarray]:
    """int [H, W] each: the brightness of all frames, decoded from the start of the file."""
    with av.open(str(path)) as container:
        return [grey(frame) for frame in container.decode(video=stream)]


def grey(frame: VideoFrame) -> np.ndarray:
    return frame.reformat(format="gray").to_ndarray().astype(int)


def wrong_clips(files: dict[Path, VideoRecord], *, threads: int, clips: int = 60, length: int = 5) -> list[str]:
    """Clips that differ from the file decoded alone; of all files in random order, in so many threads."""
    draw = random.Random(0)
    truth = {file: alone(file) for file in files}
    jobs = []
    for _ in range(clips):
        file = draw.choice(list(files))
        start = draw.randint(0, files[file].frames - length)
        jobs.append((file, range(start, start + length)))

    def look(job: tuple[Path, range]) -> str | None:
        file, numbers = job
        frames = [grey(frame) for frame in decode_frames(file, files[file], numbers)]
        same = all(np.array_equal(truth[file][n], frame) for n, frame in zip(numbers, frames, strict=True))
        return None if same else f"{file.name}: {numbers}"

    with ThreadPoolExecutor(threads) as pool:
        return [fault for fault in pool.map(look, jobs) if fault]


def of(catalog: Catalog) -> dict[Path, VideoRecord]:
    return {Path(catalog.location(video)): video for video in catalog.videos}


# --- Two encodes in one file


@pytest.fixture(scope="module")
def spliced(tmp_path_factory: pytest.TempPathFactory, make_video: MakeVideo) -> Path:
    """Three files with the same parameter sets, and one of two encodes whose second has others."""
    folder = tmp_path_factory.mktemp("spliced")
    size = {"size": (176, 128), "gop": 16}
    for number in range(3):
        make_video(folder / f"videos/plain_{number}.mp4", **size, frames=48, first=number * 40, options=BASELINE)
    parts = [
        make_video(folder / f"{crf}.ts", **size, frames=32, first=first, options=BASELINE | {"crf": crf})
        for crf, first in (("18", 0), ("35", 32))
    ]
    (folder / "videos/joined.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    return folder / "videos"


@pytest.mark.parametrize("threads", [1, 3])
def test_no_video_changes_how_another_is_decoded(spliced: Path, tmp_path: Path, threads: int) -> None:
    settings = TranscodeSettings(short_side=128)
    summary = prepare(DataConfig(root=str(spliced)), tmp_path / "set", settings, workers=1, progress=lambda *_: None)
    assert [done.copied for done in summary.converted] == [False, True, True, True]
    assert wrong_clips(of(summary.catalog), threads=threads, clips=150) == []
    raw = scan(DataConfig(root=str(spliced), cache=str(tmp_path / "cache")))
    assert wrong_clips(of(raw), threads=threads) == []


def test_no_decoder_outlives_a_clip(spliced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a prepared file whose frames bring parameter sets along changes nothing for the files after it."""
    with streams.coded(spliced / "joined.ts") as (stream, frames):
        joined = streams.mux(tmp_path / "joined.mp4", stream, frames)
    monkeypatch.setattr(mp4, "changes_parameters", lambda data: False)  # else none would be made
    files = {}
    for source in (joined, spliced / "plain_0.mp4"):
        file = tmp_path / f"{source.stem}.prepared"
        converted = transcode(source, probe(source), file, TranscodeSettings(short_side=128))
        assert converted.copied
        files[file] = converted.video
    monkeypatch.undo()
    assert wrong_clips(files, threads=1) == []


def test_parameter_sets_that_repeat_those_of_the_head_are_copied(make_video: MakeVideo, tmp_path: Path) -> None:
    path = make_video(tmp_path / "video.ts", frames=40, size=(80, 48))
    converted = transcode(path, probe(path), tmp_path / "converted", TranscodeSettings(short_side=48))
    assert converted.copied
    assert wrong_clips({tmp_path / "converted": converted.video}, threads=1) == []


# --- Seek points


@pytest.mark.parametrize("options", [BASELINE, CABAC], ids=["CAVLC", "CABAC"])
def test_a_key_frame_that_needs_what_came_before_it_is_no_seek_point(
    make_video: MakeVideo, tmp_path: Path, options: dict[str, str]
) -> None:
    """The parameter sets of the second half stand before its first frame only. A decoder that has seen them decodes all
    of its key frames; a new one, which starts at one of them, makes other pictures of it."""
    first = make_video(tmp_path / "first.mp4", frames=48, size=(160, 128), options=options | {"crf": "18"})
    second = make_video(tmp_path / "second.mp4", frames=48, first=48, size=(160, 128), options=options | {"crf": "35"})
    path = streams.appended(first, second, tmp_path / "appended.mp4")
    video = probe(path)
    assert video.frames == 96
    assert [point.frame for point in video.seek_points] == [12, 24, 36, 48]
    assert wrong_clips({path: video}, threads=3) == []


def test_a_seek_point_holds_for_all_frames_up_to_the_next(make_video: MakeVideo, tmp_path: Path) -> None:
    """Frames 30 to 35 need parameter sets that stand before frame 0 and nowhere else. Started at frame 24, a decoder
    gets to them before the next key frame that is tried."""
    size, options = (160, 128), BASELINE
    most = make_video(tmp_path / "most.mp4", frames=60, size=size, options=options)
    others = make_video(tmp_path / "others.mp4", frames=6, size=size, options=options | {"x264-params": "sps-id=1"})
    with streams.coded(most) as (stream, frames), streams.coded(others) as (other, few):
        sets = streams.parameter_sets(bytes(other.codec_context.extradata or b""))
        frames[0] = frames[0]._replace(data=sets + frames[0].data)
        frames[30:36] = [frame._replace(is_key=False) for frame in few]
        path = streams.mux(tmp_path / "video.mp4", stream, frames)
    video = probe(path)
    assert [point.frame for point in video.seek_points] == [36, 48]
    assert wrong_clips({path: video}, threads=1) == []


KINDS = [
    ("libx264", "mp4", {"bf": "2", "x264-params": "open-gop=1"}),
    ("libx264", "mp4", {"intra-refresh": "1"}),
    ("libx264", "flv", {}),
    ("libx265", "mp4", {"x265-params": "log-level=none:keyint=12:open-gop=1:bframes=3"}),
    ("libx265", "ts", {}),
    ("libvpx", "webm", {"deadline": "good", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "12"}),
    ("libsvtav1", "mkv", {}),
    ("mpeg2video", "ts", {"bf": "2"}),
    ("mpeg2video", "mpg", {"bf": "2"}),
    ("mpeg1video", "mpg", {}),
    ("wmv2", "wmv", {}),
    ("msmpeg4", "avi", {}),
    ("flv", "flv", {}),
    ("ffv1", "mkv", {}),
    ("rv20", "rm", {}),
]


@pytest.mark.parametrize(("codec", "suffix", "options"), KINDS)
def test_clips_of_all_kinds_of_streams(
    make_video: MakeVideo, tmp_path: Path, codec: str, suffix: str, options: dict[str, str]
) -> None:
    size = (176, 144)
    path = make_video(tmp_path / f"video.{suffix}", frames=60, size=size, codec=codec, options=options)
    video = probe(path)
    assert video.frames == 60
    if "intra-refresh" not in options:  # which has no key frame but its first
        assert len(video.seek_points) >= 2
    assert wrong_clips({path: video}, threads=3) == []


def test_a_clip_late_in_a_program_stream_needs_no_decoding_from_the_start(
    make_video: MakeVideo, tmp_path: Path
) -> None:
    """Such files have no index, and guess most timestamps."""
    path = make_video(tmp_path / "video.mpg", frames=600, size=(160, 120), codec="mpeg2video")
    points = [point.frame for point in probe(path).seek_points]
    assert max(b - a for a, b in pairwise([0, *points, 600])) <= 120


def test_seek_points_are_left_out_on_request(make_video: MakeVideo, tmp_path: Path) -> None:
    path = make_video(tmp_path / "video.mp4", frames=50)
    video = probe(path, seekable=False)
    assert video.seek_points == ()
    assert wrong_clips({path: video}, threads=1) == []


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
    assert abs(video.frames - (60 - first - last)) <= 1  # at the end FFmpeg shows one frame more or less
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
    halves(path, 0.8)  # and its index is gone
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
        piece = remux_clip(path, video, first, last)  # what DALI gets
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
    """Of MPEG-4 FFmpeg shows differences to a grey frame that never was, and does not flag them."""
    whole = make_video(tmp_path / f"whole.{suffix}", frames=40, codec=codec)
    path = streams.starting_at(whole, tmp_path / f"video.{suffix}", 5)
    with pytest.raises(DataError, match=r"^starts between key frames: its first frames refer to others"):
        probe(path)


# --- Several streams


def with_two_streams(path: Path, sizes: tuple[tuple[int, int], ...], frames: tuple[int, ...]) -> Path:
    """Videos of 25 frames a second in one file, the first one with the flag `default`."""
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
def test_of_several_streams_the_film_is_taken(
    tmp_path: Path, suffix: str, sizes: tuple[tuple[int, int], ...], frames: tuple[int, ...]
) -> None:
    """A thumbnail or a small preview may be the first stream, and the one that is flagged `default`."""
    path = with_two_streams(tmp_path / f"video.{suffix}", sizes, frames)
    video = probe(path)
    assert (video.frames, video.width, video.height, video.codec, video.video_streams) == (20, 64, 48, "h264", 2)
    (first,) = decode_frames(path, video, [0])
    assert grey(first).mean() == pytest.approx(200, abs=4)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_large_picture_is_no_film(tmp_path: Path, suffix: str) -> None:
    path = with_two_streams(tmp_path / f"video.{suffix}", ((128, 96), (64, 48)), (1, 20))
    assert (probe(path).frames, probe(path).width) == (20, 64)


def test_a_stream_that_nothing_told_of(make_video: MakeVideo, tmp_path: Path) -> None:
    """Frame 40 comes once more, under an identifier that no table of the file names."""
    path = make_video(tmp_path / "video.m2ts", frames=60)
    whole = alone(path)
    data, size, film, other = path.read_bytes(), 192, 0x11, 0x19  # of packets; low bytes of their identifiers
    packets = [data[at : at + size] for at in range(0, len(data), size)]
    begins = [n for n, packet in enumerate(packets) if packet[5] & 0x40 and packet[6] == film]
    again = [
        packet[:6] + bytes([other]) + packet[7:] for packet in packets[begins[40] : begins[41]] if packet[6] == film
    ]
    path.write_bytes(b"".join(packets[: begins[40]] + again + packets[begins[40] :]))
    video = probe(path)
    assert (video.frames, video.video_streams) == (60, 1)
    for numbers in (range(60), range(35, 60, 3)):
        for number, frame in zip(numbers, decode_frames(path, video, numbers), strict=True):
            assert np.array_equal(grey(frame), whole[number])
    for short_side in (32, 48):  # encoded, copied
        converted = transcode(path, video, tmp_path / "converted", TranscodeSettings(short_side=short_side))
        assert converted.video.frames == 60


# --- Damage that is told


def halves(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


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
    path.write_bytes(data[: data.index(coded) - 12])  # before the header of its tag
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


def overwritten(path: Path, frame: int) -> None:
    """Changes the middle of a coded frame."""
    with streams.coded(path) as (_, frames):
        coded = frames[frame].data
    data = bytearray(path.read_bytes())
    middle = data.index(coded) + len(coded) // 2
    data[middle : middle + 8] = b"\xff" * 8
    path.write_bytes(data)


def test_checksums_in_the_stream_are_looked_at(make_video: MakeVideo, tmp_path: Path) -> None:
    """FFmpeg's decoder of FFV1 puts something else in the place of a slice with a wrong checksum, and only logs it."""
    path = make_video(tmp_path / "video.mkv", codec="ffv1", options={"level": "3", "slicecrc": "1"})
    good = make_video(tmp_path / "good.mkv", codec="ffv1", options={"level": "3", "slicecrc": "1"})
    overwritten(path, 7)
    for _ in range(2):
        with pytest.raises(DataError, match=r"^is damaged \(its decoder says: .*CRC mismatch"):
            probe(path)
        assert probe(good).frames == 24  # what is said of one file is not held against the next


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


def test_messages_of_other_threads_are_not_held_against_a_file(make_video: MakeVideo, tmp_path: Path) -> None:
    options = {"level": "3", "slicecrc": "1"}
    bad, good = (make_video(tmp_path / f"{name}.mkv", codec="ffv1", options=options) for name in ("bad", "good"))
    overwritten(bad, 7)

    def verdict(path: Path) -> str:
        try:
            return str(probe(path).frames)
        except DataError as error:
            return str(error)[:10]

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(verdict, [bad, good] * 12)) == ["is damaged", "24"] * 12


@pytest.mark.parametrize(("level", "skip_repeated"), [(None, True), (av.logging.INFO, False)])
def test_what_ffmpeg_logs_is_as_it_was_after_a_probe(
    make_video: MakeVideo, tmp_path: Path, level: int | None, skip_repeated: bool
) -> None:
    path = make_video(tmp_path / "video.mp4")
    before = av.logging.get_level(), av.logging.get_skip_repeated()
    try:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skip_repeated)
        probe(path)
        assert (av.logging.get_level(), av.logging.get_skip_repeated()) == (level, skip_repeated)
    finally:
        av.logging.set_level(before[0])
        av.logging.set_skip_repeated(before[1])


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
