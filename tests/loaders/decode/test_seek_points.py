"""Seek points: from each of them, decoding gives what it gives from the start, in any order of files and clips."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from cacl.config import DataConfig
from cacl.loaders.catalog.scan import scan
from cacl.loaders.decode import mp4
from cacl.loaders.decode.probe import probe
from cacl.loaders.prepared.prepare import prepare
from cacl.loaders.prepared.transcode import TranscodeSettings, transcode
from tests.loaders.decode import streams
from tests.loaders.decode.plain_decoding import of, wrong_clips

MakeVideo = Callable[..., Path]

BASELINE = {"profile": "baseline"}
CABAC = {"profile": "main", "bf": "0"}
X265 = "log-level=none:open-gop=0:scenecut=0"
ENCODERS = {
    "h264": ("libx264", BASELINE, {"crf": "35"}),
    "hevc": ("libx265", {"x265-params": X265}, {"x265-params": f"{X265}:sao=1:signhide=1"}),
}
"""Encoders, options, and those of a second encode, which change its parameter sets."""


# --- Two encodes in one file, whose parameter sets differ


@pytest.fixture(scope="module", params=ENCODERS)
def codec(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def spliced(codec: str, tmp_path_factory: pytest.TempPathFactory, make_video: MakeVideo) -> Path:
    """Three files with the same parameter sets, and one of two encodes whose second has others."""
    folder = tmp_path_factory.mktemp("spliced")
    encoder, plain, other = ENCODERS[codec]
    kind = {"size": (176, 128), "gop": 16, "codec": encoder}
    for number in range(3):
        make_video(folder / f"videos/plain_{number}.mp4", **kind, frames=48, first=number * 40, options=plain)
    parts = [
        make_video(folder / f"{first}.ts", **kind, frames=32, first=first, options=options)
        for first, options in ((0, plain), (32, plain | other))
    ]
    (folder / "videos/joined.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    return folder / "videos"


@pytest.mark.parametrize("threads", [1, 3])
def test_no_video_changes_how_another_is_decoded(codec: str, spliced: Path, tmp_path: Path, threads: int) -> None:
    settings = TranscodeSettings(short_side=128, codec=codec)
    summary = prepare(DataConfig(root=str(spliced)), tmp_path / "set", settings, workers=1, progress=lambda *_: None)
    assert [done.copied for done in summary.converted] == [False, True, True, True]
    assert wrong_clips(of(summary.catalog), threads=threads, clips=150) == []
    raw = scan(DataConfig(root=str(spliced), cache=str(tmp_path / "cache")))
    assert wrong_clips(of(raw), threads=threads) == []


def test_no_decoder_outlives_a_clip(codec: str, spliced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a prepared file whose frames bring parameter sets along changes nothing for the files after it."""
    with streams.coded(spliced / "joined.ts") as (stream, frames):
        joined = streams.mux(tmp_path / "joined.mp4", stream, frames)
    settings = TranscodeSettings(short_side=128, codec=codec)
    assert not transcode(joined, probe(joined), tmp_path / "joined.prepared", settings).copied
    monkeypatch.setattr(mp4, "changes_parameters", lambda data, codec: False)  # Else none would be made.
    files = {}
    for source in (joined, spliced / "plain_0.mp4"):
        file = tmp_path / f"{source.stem}.prepared"
        converted = transcode(source, probe(source), file, settings)
        assert converted.copied
        files[file] = converted.video
    monkeypatch.undo()
    assert wrong_clips(files, threads=1) == []


def test_parameter_sets_that_repeat_those_of_the_head_are_copied(
    codec: str, make_video: MakeVideo, tmp_path: Path
) -> None:
    broadcast = make_video(tmp_path / "video.ts", frames=40, size=(80, 48), codec=ENCODERS[codec][0])
    with streams.coded(broadcast) as (stream, frames):
        file = streams.mux(tmp_path / "video.mp4", stream, frames)
    for path in (broadcast, file):
        settings = TranscodeSettings(short_side=48, codec=codec)
        converted = transcode(path, probe(path), tmp_path / "converted", settings)
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
    if "intra-refresh" not in options:  # Such a stream has no key frame but its first.
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
