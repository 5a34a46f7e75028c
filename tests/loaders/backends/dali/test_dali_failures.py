"""What the DALI backend says of files that it fails on, and of machines on which it cannot run."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cacl.clips import ClipPlan, VideoRecord
from cacl.errors import CaclError, ConfigError
from cacl.loaders.backends import dali
from cacl.loaders.backends.dali_sources import ClipInputs, DecodedFrames, EncodedSegments
from cacl.loaders.backends.dali_views import Node
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.decode.probe import probe
from cacl.loaders.decode.storage import Location
from tests.loaders.backends.clips import CPU, MakeVideo, catalog, view
from tests.loaders.backends.dali.clips import FRAMES, VIEW_MAKERS, ViewMakerName, dali_backend, plan

pytest.importorskip("nvidia.dali")


@pytest.mark.parametrize("view_maker", VIEW_MAKERS)
def test_a_file_that_cannot_be_decoded_is_named(
    videos: Catalog, make_video: MakeVideo, tmp_path: Path, view_maker: ViewMakerName
) -> None:
    path = make_video(tmp_path / "shrunk.mp4", frames=FRAMES)
    some = catalog(*videos.videos, probe(path))
    make_video(path, frames=10)
    batches = [
        [plan(index, index, view(0, 0, 40)) for index in range(2)],
        [plan(index, index, view(0, 0, 40)) for index in (3, 4)],
    ]
    whole, part = dali_backend(some, views=view_maker).batches(batches)
    assert whole.index.tolist() == [0, 1]
    assert part.index.tolist() == [3]
    (failure,) = part.failures
    assert (failure.index, failure.video) == (4, 4)
    assert failure.reason.startswith(f"{path}: ")


class Torn(EncodedSegments):
    """A source that hands DALI no more than the first bytes of one video."""

    def __init__(self, path: str) -> None:
        super().__init__("cpu")
        self.path = path

    def read(self, location: Location, video: VideoRecord, plan: ClipPlan) -> ClipInputs:
        clip = super().read(location, video, plan)
        data, numbers = clip.inputs
        return clip._replace(inputs=(data[:200], numbers)) if video.path == self.path else clip


@pytest.mark.parametrize("view_maker", VIEW_MAKERS)
def test_a_file_that_dali_fails_on_is_named(vp9: Catalog, view_maker: ViewMakerName) -> None:
    """DALI's decoder does not say which file it fails on."""
    torn = vp9.videos[2].path
    backend = dali_backend(vp9, views=view_maker)
    backend.source = Torn(torn)
    batches = [[plan(index, index, view(0, 0, 40)) for index in numbers] for numbers in ((0, 1, 1), (0, 2, 1))]
    whole, part = backend.batches(batches)
    assert whole.index.tolist() == [0, 1, 1]
    assert part.index.tolist() == [0, 1]
    (failure,) = part.failures
    assert (failure.index, failure.video) == (2, 2)
    assert re.fullmatch(re.escape(torn) + r": DALI fails on it \(.*\); \"cpu\" may read it", failure.reason)


@pytest.mark.parametrize("view_maker", VIEW_MAKERS)
@pytest.mark.parametrize("size", [(96, 40), (40, 72)])
def test_a_file_whose_frames_have_shrunk_is_named(
    vp9: Catalog, make_video: MakeVideo, tmp_path: Path, size: tuple[int, int], view_maker: ViewMakerName
) -> None:
    """Another video has taken the place of a file, and is too low or too narrow for one of the views."""
    path = make_video(tmp_path / "shrunk.webm", frames=FRAMES, size=(96, 72), codec="libvpx-vp9")
    some = catalog(vp9.videos[0], probe(path))
    make_video(path, frames=FRAMES, size=size, codec="libvpx-vp9")
    backend = dali_backend(some, views=view_maker)
    backend.source = EncodedSegments("cpu")
    (batch,) = backend.batches([[plan(index, index, view(0, 0, 20), view(20, 20, 21)) for index in (0, 1)]])
    assert batch.index.tolist() == [0]
    assert batch.failures[0].reason.startswith(f"{path}: DALI fails on it (")


def test_a_graph_that_dies_on_no_clip_alone_is_an_error(videos: Catalog) -> None:
    """No file is at fault then. Here, the graph for more than one clip is wrong."""

    class Wrong(DecodedFrames):
        def frames(self, *inputs: Node) -> Node:
            from nvidia.dali import fn
            from nvidia.dali.pipeline import Pipeline

            (frames,) = inputs
            graph = Pipeline.current()
            assert graph is not None
            return frames if graph.max_batch_size == 1 else fn.slice(frames, start=(1000,), shape=(1,), axes=(0,))

    backend = dali_backend(videos)
    backend.source = Wrong()
    with pytest.raises(CaclError, match="DALI fails on a batch, though on none of its clips alone"):
        list(backend.batches([[plan(index, index, view(0, 0, 40)) for index in range(2)]]))


def test_what_keeps_it_from_running_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dali.unavailable_reason(CPU) is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert dali.unavailable_reason(torch.device("cuda")) == "there is no CUDA device (asked for: cuda)"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(dali.ctypes, "CDLL", raises(OSError))
    assert "libnvcuvid.so.1" in (dali.unavailable_reason(torch.device("cuda")) or "")
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    monkeypatch.setattr(dali, "find_spec", lambda name: name)
    with pytest.raises(ConfigError, match=r"nvidia\.dali is damaged"):
        dali_backend(catalog())
    monkeypatch.setattr(dali, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"nvidia\.dali is not installed"):
        dali_backend(catalog())


def raises(error: type[Exception]) -> Callable[..., None]:
    def function(*_: object) -> None:
        raise error

    return function
