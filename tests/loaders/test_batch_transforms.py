"""Augmentations of whole batches: each view of each clip has a random stream of its own, whatever batch it is in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

import cacl
from cacl.clips import ClipBatch
from cacl.config import AugmentConfig, ClipConfig, Config, DataConfig
from cacl.errors import ConfigError
from cacl.loaders.sampling.rng import RandomStream
from cacl.loaders.sampling.sampler import BATCH_TRANSFORM_STREAM
from cacl.registry import BATCH_TRANSFORMS


def mark(views: Tensor, streams: Sequence[RandomStream]) -> Tensor:
    """Writes the number of the stream over the whole clip."""
    assert len(views) == len(streams)
    return torch.stack([torch.full_like(view, s.uniform(0, 1)) for view, s in zip(views, streams, strict=True)])


def halve(views: Tensor, streams: Sequence[RandomStream]) -> Tensor:
    return views / 2


def cut(views: Tensor, streams: Sequence[RandomStream]) -> Tensor:
    return views[..., :-1]


def rounded(views: Tensor, streams: Sequence[RandomStream]) -> Tensor:
    return (views * 255).byte()


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests look at the names of this package alone."""
    transforms = {"test_mark": mark, "test_halve": halve, "test_cut": cut, "test_round": rounded}
    monkeypatch.setattr(BATCH_TRANSFORMS, "_targets", transforms)


@pytest.fixture(scope="module")
def config(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("transforms")
    for number in range(5):
        make_video(folder / f"videos/{number}.mp4", frames=8, size=(32, 24))
    data = DataConfig(root=str(folder / "videos"), cache=str(folder / "cache"))
    return Config(data=data, clip=ClipConfig(frames=4, size=16), seed=3)


def batches(config: Config, *names: str, **options: int) -> Iterator[ClipBatch]:
    config = replace(config, augment=AugmentConfig(batch_transforms=names))
    loader = cacl.ClipLoader.from_config(config, **{"batch_size": 4, **options})  # type: ignore[arg-type]
    return islice(loader, 3)


def marks(found: Iterator[ClipBatch]) -> dict[tuple[int, int], float]:
    """The number on each view of each clip."""
    return {
        (int(index), view): float(pixels.unique())
        for batch in found
        for view in range(len(batch.views))
        for index, pixels in zip(batch.index, batch.views[view], strict=True)
    }


def test_the_stream_of_a_view_depends_on_seed_clip_and_view_alone(config: Config) -> None:
    expected = {
        (index, view): torch.tensor(RandomStream(3, BATCH_TRANSFORM_STREAM, index, view).uniform(0, 1)).half().item()
        for index in range(12)
        for view in range(2)
    }
    assert len(set(expected.values())) > 20
    assert marks(batches(config, "test_mark")) == expected
    ranks = [marks(batches(config, "test_mark", rank=rank, world_size=2)) for rank in range(2)]
    assert ranks[0] | ranks[1] == expected
    other = marks(batches(config, "test_mark", batch_size=3))
    assert other == {key: value for key, value in expected.items() if key[0] < 9}


def test_transforms_follow_each_other_and_change_the_views_alone(config: Config) -> None:
    once = list(batches(config, "test_mark"))
    for plain, both in zip(batches(config), batches(config, "test_mark", "test_halve"), strict=True):
        reference = once.pop(0)
        assert all(torch.equal(a / 2, b) for a, b in zip(reference.views, both.views, strict=True))
        assert torch.equal(plain.order, both.order)
        assert torch.equal(plain.video, both.video)


def test_evaluation_clips_are_left_alone(config: Config) -> None:
    loaders = [
        cacl.ClipLoader.from_config(replace(config, augment=AugmentConfig(batch_transforms=names)), batch_size=4)
        for names in ((), ("test_mark",))
    ]
    for plain, other in zip(*(loader.evaluation(2) for loader in loaders), strict=True):
        assert torch.equal(plain.views[0], other.views[0])
    assert loaders[0].fingerprint != loaders[1].fingerprint


@pytest.mark.parametrize(("name", "given"), [("test_cut", "float16 .4, 3, 4, 16, 15."), ("test_round", "uint8 ")])
def test_shape_and_type_of_the_views_stay(config: Config, name: str, given: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} gives torch.{given}.* for torch.float16 .4, 3, 4, 16, 16.,"):
        next(batches(config, name))
