"""The videos that the loader benchmark is meant for."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import PictureType

from cacl.config import load
from cacl.loaders.catalog.scan import scan
from tests.launch import ROOT


@pytest.mark.parametrize(("codec", "name"), [("xvid", "mpeg4"), ("h264", "h264")])
def test_the_corpus_is_like_ucf101(make_video: Callable[..., Path], tmp_path: Path, codec: str, name: str) -> None:
    """Sizes, lengths and codecs, and that packing the B-frames left every frame in its place."""
    footage, out, length = tmp_path / "footage", tmp_path / "out", 30
    make_video(footage / "run/one.mp4", frames=length, size=(320, 240))
    make_video(footage / "walk/two.avi", frames=length, size=(480, 240), codec="mpeg4")
    make_video(footage / "walk/tiny.mp4", frames=length, size=(64, 48))
    script = ROOT / "benchmarks" / "scripts" / "make_corpus.py"
    subprocess.run([sys.executable, script, footage, out, "--videos", "3", "--codec", codec], check=True, timeout=120)

    catalog = scan(replace(load().data, root=str(out)))
    assert [video.label for video in catalog.videos] == ["run", "run", "walk"]
    assert {(v.frames, v.width, v.height, v.codec) for v in catalog.videos} == {(180, 320, 240, name)}
    assert codec == "h264" or not any(video.seek_points for video in catalog.videos)
    with av.open(str(footage / "run/one.mp4")) as container:
        source = np.stack([_bars(frame) for frame in container.decode(video=0)])
    with av.open(str(catalog.location(catalog.videos[0]))) as container:
        frames = list(container.decode(video=0))
        kinds = {PictureType(frame.pict_type).name for frame in frames}
    shown = [int(np.abs(source - _bars(frame)).sum((1, 2)).argmin()) for frame in frames]
    there_and_back = [*range(length), *range(length - 2, 0, -1)]
    assert shown == [there_and_back[time % len(there_and_back)] for time in range(180)]
    assert kinds == {"I", "P", "B"}


def _bars(frame: av.VideoFrame) -> np.ndarray:
    """The upper half of a frame, whose bars spell its number."""
    return frame.to_ndarray(format="gray")[:120:8, ::8].astype(np.int64)
