"""What the tests against the release share: a seed for each test, and a video without loss."""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np
import pytest
import torch
from av.video.stream import VideoStream

from cacl.clips import VideoRecord
from cacl.loaders.decode.probe import probe


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> tuple[VideoRecord, np.ndarray]:
    """A lossless RGB video, and its pictures [T, H, W, 3]: colours of all saturations that move, with noise."""
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    t, y, x = np.meshgrid(np.arange(60), np.arange(120), np.arange(214), indexing="ij")
    waves = [np.sin(x / 17 + t / 5 + a) + np.cos(y / (11 + a) - t / 9) for a in range(3)]
    noise = np.random.default_rng(0).normal(0, 12, (60, 120, 214, 3))
    pictures = np.clip(127 + 70 * np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=25, options={"qp": "0", "preset": "ultrafast"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 214, 120, "rgb24"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return probe(path), pictures
