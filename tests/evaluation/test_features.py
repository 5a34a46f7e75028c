"""Features: what an encoder gives, their mean over the clips of a video, and when kept arrays may be used again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from cacl.clips import ClipBatch, ClipPlan, Failure, VideoRecord
from cacl.config import Config
from cacl.errors import DataError
from cacl.evaluation import features
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.clip_loader import ClipLoader
from cacl.models.cnn3d import CNN3D
from tests import forked
from tests.config_keys import config_keys, other_value, value_at, with_value
from tests.tiny import tiny_config

VIDEOS, CLIPS = 5, 3
CONFIG = tiny_config(
    "never written", {"retrieval": {"clips_per_video": CLIPS, "batch_size": 4}}
)  # a batch holds clips of two videos


@pytest.mark.parametrize("size", [(4, 6), (5, 3), (1, 1), (1, 4)], ids=str)
def test_the_feature_of_a_cnn_is_the_largest_of_each_four_neighbours(size: tuple[int, int]) -> None:
    """This holds for every channel at every time. A row or column without a partner is left out, unless it is the only
    one."""
    rng = np.random.default_rng(0)
    maps = rng.permutation(2 * 3 * 2 * size[0] * size[1]).reshape(2, 3, 2, *size).astype(np.float32)
    high, wide = min(2, size[0]), min(2, size[1])
    expected = [
        [
            maps[clip, channel, time, y * high : (y + 1) * high, x * wide : (x + 1) * wide].max()
            for channel in range(3)
            for time in range(2)
            for y in range(size[0] // high)
            for x in range(size[1] // wide)
        ]
        for clip in range(2)
    ]
    encoder = SimpleNamespace(forward_features=lambda clips: torch.from_numpy(maps))
    found = features.encoder_feature(cast(CNN3D, encoder))(torch.zeros(0), torch.zeros(0))
    assert found.tolist() == expected


# ------------------------------------------------------------------------------------------------ mean over the clips


class Died(BaseException):
    """Stands for the end of the process in the middle of an extraction."""


class PaintedBackend:
    """A backend without files: every pixel of clip c of video v is `shades[v, c]`, and one clip may fail to load."""

    def __init__(self, shades: np.ndarray, *, dies_in: int | None = None, fails: int | None = None) -> None:
        self.shades, self.dies_in, self.fails = torch.from_numpy(shades), dies_in, fails
        self.seen: list[tuple[int, int]] = []

    def end(self) -> None:
        raise Died

    def batches(self, plans: Iterable[Sequence[ClipPlan]]) -> Iterator[ClipBatch]:
        for number, chunk in enumerate(plans):
            if number == self.dies_in:
                self.end()
            self.seen += [(plan.video, plan.index % CLIPS) for plan in chunk]
            kept = [plan for plan in chunk if plan.index != self.fails]
            view = torch.zeros(len(kept), 3, 4, 16, 16).half()
            for row, plan in enumerate(kept):
                view[row] = self.shades[plan.video, plan.index % CLIPS]
            yield ClipBatch(
                views=(view,),
                order=torch.tensor([plan.order for plan in kept], dtype=torch.uint8),
                video=torch.tensor([plan.video for plan in kept]),
                index=torch.tensor([plan.index for plan in kept]),
                failures=tuple(Failure(p.index, p.video, "a.mp4: is damaged") for p in chunk if p.index == self.fails),
            )


def shade_and_square(clips: Tensor, order: Tensor) -> Tensor:
    shade = clips.mean((1, 2, 3, 4))
    return torch.stack([shade, shade**2], 1)


def shade(clips: Tensor, order: Tensor) -> Tensor:
    return clips[:, :1, 0, 0, 0]


def tokens(clips: Tensor, order: Tensor) -> Tensor:
    return shade_and_square(clips, order)[:, None] * torch.tensor([[1.0], [2], [-1]])


FUNCTIONS: dict[str, features.FeatureFunction] = {
    "shade and square": shade_and_square,
    "shade": shade,
    "tokens": tokens,
}
SHADES = np.random.default_rng(1).integers(0, 16, (VIDEOS, CLIPS)).astype(np.float32)


def catalog_in(folder: Path) -> Catalog:
    videos = tuple(
        VideoRecord(path=f"{n}.mp4", frames=8, declared_frames=8, rate=25, width=32, height=24, codec="h264")
        for n in range(VIDEOS)
    )
    return Catalog(root=folder, layout="folder", videos=videos, rejected=(), missing=())


def extract_into(
    folder: Path, backend: PaintedBackend, functions: dict[str, features.FeatureFunction] = FUNCTIONS
) -> dict[str, np.ndarray]:
    """Fills the arrays in `folder / "features"`."""
    size = CONFIG.retrieval.batch_size
    loader = ClipLoader.from_config(CONFIG, catalog=catalog_in(folder), batch_size=size, split=None)
    loader.backend = backend
    return features.extract(functions, loader, folder / "features", lambda done, total: None)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return catalog_in(tmp_path)


@pytest.fixture
def extracted(tmp_path: Path) -> Callable[[PaintedBackend], dict[str, np.ndarray]]:
    """`extracted(backend)` fills the arrays in `tmp_path / "features"`."""
    return lambda backend: extract_into(tmp_path, backend)


def test_a_video_has_the_mean_of_its_clips(extracted: Callable[[PaintedBackend], dict[str, np.ndarray]]) -> None:
    """The same holds for the squares, so clips are averaged after their feature is taken, and for each token."""
    found = extracted(PaintedBackend(SHADES))
    assert {name: array.dtype for name, array in found.items()} == dict.fromkeys(FUNCTIONS, np.dtype(np.float32))
    mean, mean_square = SHADES.mean(1), (SHADES**2).mean(1)
    np.testing.assert_allclose(found["shade"], mean[:, None], rtol=1e-6)
    np.testing.assert_allclose(found["shade and square"], np.stack([mean, mean_square], 1), rtol=1e-6)
    np.testing.assert_allclose(
        found["tokens"], np.stack([mean, mean_square], 1)[:, None] * np.array([[1], [2], [-1]]), rtol=1e-6
    )
    assert (mean_square - mean**2).min() > 0.1  # no video whose clips are all the same
    assert np.abs(mean - SHADES[:, -1]).min() > 0.1


@pytest.mark.parametrize("fails", [0, 5, VIDEOS * CLIPS - 1])
def test_a_clip_that_does_not_load_ends_the_extraction(
    extracted: Callable[[PaintedBackend], dict[str, np.ndarray]], tmp_path: Path, fails: int
) -> None:
    with pytest.raises(DataError, match=r"a\.mp4: is damaged"):
        extracted(PaintedBackend(SHADES, fails=fails))
    assert features.load_cached(tmp_path / "features", list(FUNCTIONS)) is None


# -------------------------------------------------------------------------------------------------- kept, and for what


def test_finished_features_are_used_again(
    extracted: Callable[[PaintedBackend], dict[str, np.ndarray]], tmp_path: Path
) -> None:
    folder = tmp_path / "features"
    assert features.load_cached(folder, list(FUNCTIONS)) is None
    found = extracted(PaintedBackend(SHADES))
    again = features.load_cached(folder, list(FUNCTIONS))
    assert again is not None
    assert again.keys() == found.keys()
    assert all(np.array_equal(again[name], found[name]) for name in found)
    assert features.load_cached(folder, [*FUNCTIONS, "another"]) is None


@pytest.mark.parametrize("dies_in", [0, 1, 2, 3])
def test_an_extraction_that_died_goes_on(
    extracted: Callable[[PaintedBackend], dict[str, np.ndarray]], tmp_path: Path, dies_in: int
) -> None:
    """Batches hold four clips, and videos have three: after n of them floor(4n / 3) videos are done, and stay so."""
    with pytest.raises(Died):
        extracted(PaintedBackend(SHADES, dies_in=dies_in))
    assert features.load_cached(tmp_path / "features", list(FUNCTIONS)) is None
    rest = PaintedBackend(SHADES + 1)  # so that it shows which clips are seen now
    found = extracted(rest)
    done = 4 * dies_in // 3
    assert rest.seen == [(video, clip) for video in range(done, VIDEOS) for clip in range(CLIPS)]
    expected = SHADES.mean(1) + (np.arange(VIDEOS) >= done)
    np.testing.assert_allclose(found["shade"][:, 0], expected, rtol=1e-6)
    assert features.load_cached(tmp_path / "features", list(FUNCTIONS)) is not None


class Killed(PaintedBackend):
    def end(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def killed_extraction(folder: str) -> None:
    features.SAVE_EVERY_SECONDS = 0
    extract_into(Path(folder), Killed(SHADES, dies_in=2))


def test_a_killed_extraction_goes_on(
    extracted: Callable[[PaintedBackend], dict[str, np.ndarray]], tmp_path: Path
) -> None:
    """The process gets no chance to save anything when it is killed, in its third batch."""
    ended = forked.run(killed_extraction, tmp_path, environment=os.environ)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    rest = PaintedBackend(SHADES)
    found = extracted(rest)
    assert [video for video, _ in rest.seen[::CLIPS]] == [2, 3, 4]
    np.testing.assert_allclose(found["shade"], SHADES.mean(1)[:, None], rtol=1e-6)


def test_features_that_are_asked_for_later_stand_beside_the_others(
    extracted: Callable[[PaintedBackend], dict[str, np.ndarray]], tmp_path: Path
) -> None:
    """An extraction of one of two features does not make that of the other, which died, look finished."""
    with pytest.raises(Died):
        extracted(PaintedBackend(SHADES, dies_in=2))
    extract_into(tmp_path, PaintedBackend(SHADES), {"shade": shade})
    assert features.load_cached(tmp_path / "features", ["shade"]) is not None
    assert features.load_cached(tmp_path / "features", list(FUNCTIONS)) is None
    rest = PaintedBackend(SHADES)
    extracted(rest)
    assert len(rest.seen) == (VIDEOS - 2) * CLIPS


@pytest.mark.parametrize("suffix", [".npy", ".done"])
def test_damaged_arrays_are_made_anew(
    extracted: Callable[[PaintedBackend], dict[str, np.ndarray]], tmp_path: Path, suffix: str
) -> None:
    extracted(PaintedBackend(SHADES))
    file = tmp_path / f"features/shade{suffix}"
    file.write_bytes(file.read_bytes()[:-1])
    assert features.load_cached(tmp_path / "features", list(FUNCTIONS)) is None
    found = extracted(PaintedBackend(SHADES + 1))
    np.testing.assert_allclose(found["shade"], SHADES.mean(1)[:, None] + 1, rtol=1e-6)


DO_NOT_DECIDE_FEATURES = (
    *(
        "name",
        "run",
        "data.",
        "loader.",
        "contrast.",
        "losses",
        "optim.",
        "train.",
        "retrieval.batch_size",
        "finetune.",
        "recognition.",
        "knn.",
        "profile.",
    ),
    "model.",  # the weights are for one model, and an evaluation may not name another
    *(
        f"augment.{name}"
        for name in (
            "flip_prob",
            "brightness",
            "contrast",
            "saturation",
            "hue",
            "color_jitter_prob",
            "grayscale_prob",
            "color_arithmetic",
            "batch_transforms",
        )
    ),
)
"""Keys, and beginnings of keys, that may change while features stay the same. The videos and the backend are passed to
`cache_key` on their own."""


@pytest.mark.parametrize("key", list(config_keys(CONFIG)))
def test_whatever_decides_features_is_part_of_their_key(catalog: Catalog, key: str) -> None:
    """Every key of the configuration does, unless it is listed above."""

    def digest(config: Config) -> str:
        return features.cache_key("weights", catalog, config, "cpu")

    other = with_value(CONFIG, key, other_value(value_at(CONFIG, key)))
    assert (digest(other) == digest(CONFIG)) == key.startswith(DO_NOT_DECIDE_FEATURES)


def test_weights_videos_and_backend_are_part_of_the_key_of_features(catalog: Catalog, tmp_path: Path) -> None:
    fewer = Catalog(root=tmp_path, layout="folder", videos=tuple(catalog.videos)[1:], rejected=(), missing=())
    given: list[tuple[Any, ...]] = [("weights", catalog, "cpu"), ("others", catalog, "cpu")]
    given += [("weights", fewer, "cpu"), ("weights", catalog, "reference")]
    assert len({features.cache_key(weights, videos, CONFIG, backend) for weights, videos, backend in given}) == 4
