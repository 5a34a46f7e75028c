"""ClipLoader: the batches of sampler and backend bit for bit, at an exact position, for any number of ranks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

import cacl
from cacl.clips import ClipBatch
from cacl.config import AugmentConfig, ClipConfig, Config, DataConfig, LoaderConfig
from cacl.errors import CheckpointError, ConfigError, DataError
from cacl.loaders.backends.select import build_backend
from cacl.loaders.catalog.scan import scan
from cacl.loaders.prepared.prepare import prepare
from cacl.loaders.prepared.transcode import TranscodeSettings
from cacl.loaders.sampling.sampler import ClipSampler, evaluation_plans
from tests.damage import deleted
from tests.loaders.decode.web_server import Server

MakeVideo = Callable[..., Path]
CPU = torch.device("cpu")
CLIP = ClipConfig(frames=4, stride=2, size=16)
TRAIN, TEST = 7, 2
BACKENDS = ("cpu", "reference", "dali")


@pytest.fixture(scope="module")
def folder(make_video: MakeVideo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven training and two test videos of three classes, of which the last has only a test video."""
    folder = tmp_path_factory.mktemp("clip loader")
    names = [f"train/{'ab'[n % 2]}/{n}.mp4" for n in range(TRAIN)] + ["test/a/7.mp4", "test/c/8.mp4"]
    for number, name in enumerate(names):
        make_video(folder / "videos" / name, frames=12 + number, size=(64, 48), gop=4, first=30 * number)
    return folder


@pytest.fixture(scope="module")
def config(folder: Path) -> Config:
    data = DataConfig(root=str(folder / "videos"), cache=str(folder / "cache"))
    return Config(data=data, clip=CLIP, loader=LoaderConfig(threads=2), seed=5)


@pytest.fixture(scope="module")
def prepared(folder: Path, config: Config) -> Path:
    settings = TranscodeSettings(short_side=48)
    prepare(config.data, folder / "prepared", settings, workers=1, progress=lambda *_: None)
    return folder / "prepared"


def loader(config: Config, **options: object) -> cacl.ClipLoader:
    return cacl.ClipLoader.from_config(config, **{"batch_size": 4, **options})  # type: ignore[arg-type]


def with_backend(config: Config, name: str) -> Config:
    if name == "dali":
        pytest.importorskip("nvidia.dali")
    return replace(config, loader=replace(config.loader, backend=name))


def assert_same(one: Iterable[ClipBatch], other: Iterable[ClipBatch]) -> None:
    for mine, theirs in zip(one, other, strict=True):
        assert mine.failures == theirs.failures
        assert len(mine.views) == len(theirs.views)
        assert (mine.labels is None) == (theirs.labels is None)
        pairs = [(mine.order, theirs.order), (mine.video, theirs.video), (mine.index, theirs.index)]
        pairs += [] if mine.labels is None or theirs.labels is None else [(mine.labels, theirs.labels)]
        for left, right in [*pairs, *zip(mine.views, theirs.views, strict=True)]:
            assert left.dtype == right.dtype
            assert torch.equal(left, right)


def clips(batches: Iterable[ClipBatch]) -> list[tuple[int, int, bytes]]:
    """The clips of batches: their number in the stream, their video, and the bits of their order and of all views."""
    return sorted(
        (int(index), int(video), b"".join(part.numpy().tobytes() for part in parts))
        for batch in batches
        for index, video, *parts in zip(batch.index, batch.video, batch.order, *batch.views, strict=True)
    )


# ------------------------------------------------------------------------------------------------- which batches come


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 2)])
def test_batches_are_those_of_sampler_and_backend(config: Config, backend: str, rank: int, world_size: int) -> None:
    config = with_backend(config, backend)
    videos = scan(config.data).of_split("train")
    plans = ClipSampler(videos.videos, CLIP, AugmentConfig(), 5).batches(2, 6, 4, rank, world_size)
    expected = list(build_backend(backend, videos, config, CPU).batches(plans))
    assert len(expected) == 4
    made = loader(config, rank=rank, world_size=world_size)
    assert_same(made.steps(2, 6), expected)
    assert_same(islice(made, 2), made.steps(6, 8))  # it goes on where it was
    assert [batch.views[0].shape for batch in expected] == [(4 // world_size, 3, 4, 16, 16)] * 4


def test_a_path_makes_the_same_loader_as_a_configuration(
    folder: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "home"))
    made = cacl.ClipLoader(
        folder / "videos", frames=4, stride=2, size=16, batch_size=4, seed=5, backend="reference", split="test"
    )
    assert_same(islice(made, 3), islice(loader(with_backend(config, "reference"), split="test"), 3))
    assert made.fingerprint == loader(config, split="test").fingerprint
    assert {video.split for video in made.catalog.videos} == {"test"}


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("backend", BACKENDS)
def test_first_views_do_not_depend_on_their_number(config: Config, backend: str, views: int) -> None:
    config = with_backend(config, backend)
    for mine, usual in zip(loader(config, views=views).steps(0, 3), loader(config).steps(0, 3), strict=True):
        assert len(mine.views) == views
        assert all(torch.equal(left, right) for left, right in zip(mine.views, usual.views, strict=False))
        assert len({view.numpy().tobytes() for view in mine.views}) == views


@pytest.mark.parametrize("batch_size", [4, 6, 7])
def test_ranks_divide_the_clips_of_one(config: Config, batch_size: int) -> None:
    alone = clips(islice(loader(config, batch_size=batch_size), 4))
    assert [index for index, *_ in alone] == list(range(4 * batch_size))
    epoch = clips(loader(config, batch_size=batch_size).epoch(1))
    assert [index for index, *_ in epoch] == list(range(TRAIN, 2 * TRAIN))
    for world_size in (2, 3):
        ranks = [loader(config, batch_size=batch_size, rank=r, world_size=world_size) for r in range(world_size)]
        shares = [list(islice(rank, 4)) for rank in ranks]
        assert sorted(clip for share in shares for clip in clips(share)) == alone
        assert {len(batch) for share in shares for batch in share} <= {
            batch_size // world_size,
            -(-batch_size // world_size),
        }
        assert sorted(clip for rank in ranks for clip in clips(rank.epoch(1))) == epoch
        assert len({json.dumps(rank.state_dict()) for rank in ranks}) == 1


def test_an_epoch_is_each_video_once(config: Config) -> None:
    made = loader(config)
    orders = [[batch.video.tolist() for batch in made.epoch(number)] for number in range(3)]
    assert [[len(batch) for batch in epoch] for epoch in orders] == [[4, 3]] * 3
    assert all(sorted(video for batch in epoch for video in batch) == list(range(TRAIN)) for epoch in orders)
    assert orders[0] != orders[1]
    assert made.epochs_done == 3
    assert [batch.video.tolist() for batch in made.epoch(1)] == orders[1]


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 2)])
def test_evaluation_clips_are_evenly_spaced_and_central(config: Config, rank: int, world_size: int) -> None:
    videos = scan(config.data)
    plans = list(evaluation_plans(videos.videos, range(rank, TRAIN + TEST, world_size), 3, CLIP, AugmentConfig()))
    share = 4 // world_size
    batches = [plans[first : first + share] for first in range(0, len(plans), share)]
    made = loader(config, split=None, rank=rank, world_size=world_size)
    before = made.state_dict()
    assert_same(made.evaluation(3), build_backend("cpu", videos, config, CPU).batches(batches))
    assert made.state_dict() == before


@pytest.mark.parametrize("backend", BACKENDS)
def test_clips_at_given_starts_are_those_of_an_evaluation(config: Config, backend: str) -> None:
    """Three evenly spaced clips of a video of 13 frames start at 0, 3 and 6."""
    made = loader(replace(config, loader=LoaderConfig(backend=backend, threads=2)), split=None)
    before = made.state_dict()
    (number,) = (n for n, video in enumerate(made.catalog.videos) if video.frames == 13)
    (expected,) = made.evaluation(3, [number])
    (found,) = made.clips_at([(number, [0, 3, 6])])
    assert torch.equal(found.views[0], expected.views[0])
    assert (found.index.tolist(), found.video.tolist()) == ([0, 1, 2], [number] * 3)
    assert [len(batch) for batch in made.clips_at([(0, [0, 1, 2]), (1, [0, 2])])] == [4, 1]
    assert made.state_dict() == before


# --------------------------------------------------------------------------------------------------- where it stands


@pytest.mark.parametrize("delivered", [0, 1, 3])
def test_a_restored_loader_goes_on_with_the_same_bits(config: Config, delivered: int) -> None:
    """Three batches are loaded ahead of the one delivered last, and do not count."""
    whole = list(islice(loader(config), 8))
    stopped = loader(config)
    assert_same(islice(stopped, delivered), whole[:delivered])
    state = json.loads(json.dumps(stopped.state_dict()))
    assert state["next_clip"] == 4 * delivered
    again = loader(config)
    again.load_state_dict(state)
    assert again.state_dict() == state
    assert_same(islice(again, 8 - delivered), whole[delivered:])
    other = loader(config, batch_size=6, rank=1, world_size=2)  # clips 3, 4 and 5 of each batch of six
    other.load_state_dict(state)
    assert next(iter(other)).index.tolist() == [4 * delivered + number for number in (3, 4, 5)]


def test_the_first_epoch_after_restoring_begins_where_it_was_left(config: Config) -> None:
    whole = list(loader(config).epoch(1))
    stopped = loader(config)
    next(stopped.epoch(1))
    again = loader(config)
    again.load_state_dict(stopped.state_dict())
    assert again.epochs_done == 1
    assert_same(again.epoch(1), whole[1:])
    assert_same(again.epoch(1), whole)


def test_the_state_of_other_clips_is_refused(config: Config) -> None:
    state = loader(config).state_dict()
    others = [
        loader(config, split="test"),
        loader(config, views=1),
        loader(replace(config, seed=6)),
        loader(replace(config, clip=replace(CLIP, stride=1))),
        loader(replace(config, clip=replace(CLIP, max_frames_apart=3))),
        loader(replace(config, augment=AugmentConfig(hue=0.0))),
    ]
    for other in others:
        with pytest.raises(CheckpointError, match="belongs to other videos") as refused:
            other.load_state_dict(state)
        assert "\n" not in str(refused.value)
        assert other.state_dict()["next_clip"] == 0
    loader(with_backend(config, "reference")).load_state_dict(state)  # which decides nothing


# ----------------------------------------------------------------------------------- prepared sets, labels and failures


def test_a_prepared_set_is_read_from_a_server_as_from_disk(
    config: Config, prepared: Path, server: Server, tmp_path: Path
) -> None:
    shutil.copytree(prepared, server.folder / "set")
    local = loader(replace(config, data=DataConfig(root=str(prepared))), labels="label")
    remote = loader(replace(config, data=DataConfig(root=server.root, cache=str(tmp_path))), labels="label")
    assert local.fingerprint == remote.fingerprint
    assert local.classes == remote.classes == ("a", "b", "c")
    begun = list(islice(local, 2))
    assert_same(islice(remote, 2), begun)
    remote.load_state_dict(local.state_dict())
    assert_same(islice(remote, 3), islice(local, 3))


def test_labels_are_those_of_the_videos(config: Config, folder: Path) -> None:
    for split in ("train", "test"):
        made = loader(config, split=split, labels="label")
        assert made.classes == ("a", "b", "c")  # those of the whole set
        for batch in made.epoch(0):
            assert batch.labels is not None
            assert batch.labels.dtype == torch.int64
            paths = [Path(made.catalog.videos[video].path) for video in batch.video.tolist()]
            assert [made.classes[label] for label in batch.labels.tolist()] == [path.parent.name for path in paths]
    assert next(iter(loader(config))).labels is None
    lines = [
        "path,split,speed",
        *(f"train/{'ab'[n % 2]}/{n}.mp4,train,{'slow' if n < 3 else 'fast'}" for n in range(5)),
    ]
    table = folder / "videos" / "list.csv"
    table.write_text("\n".join(lines))
    try:
        listed = loader(replace(config, data=replace(config.data, root=str(table))), labels="speed")
        batch = next(iter(listed))
    finally:
        table.unlink()
    assert listed.classes == ("fast", "slow")
    assert batch.labels is not None
    slow = [int(Path(listed.catalog.videos[video].path).stem) < 3 for video in batch.video.tolist()]
    assert slow == batch.labels.bool().tolist()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_clip_that_fails_is_named_and_has_no_row(config: Config, folder: Path, tmp_path: Path, backend: str) -> None:
    root = shutil.copytree(folder / "videos", tmp_path / "videos")
    config = with_backend(replace(config, data=DataConfig(root=str(root), cache=str(tmp_path / "cache"))), backend)
    made = loader(config, labels="label")
    (gone,) = (number for number, video in enumerate(made.catalog.videos) if video.path == "train/b/3.mp4")
    whole = list(loader(config, labels="label").epoch(0))
    deleted(root / "train/b/3.mp4")
    damaged = list(made.epoch(0))
    failures = [failure for batch in damaged for failure in batch.failures]
    assert [failure.video for failure in failures] == [gone]
    assert failures[0].reason.startswith(f"{root}/train/b/3.mp4: ")
    for mine, before in zip(damaged, whole, strict=True):
        kept = before.video != gone
        assert mine.labels is not None
        assert before.labels is not None
        assert torch.equal(mine.index, before.index[kept])
        assert torch.equal(mine.labels, before.labels[kept])
        assert torch.equal(mine.views[1], before.views[1][kept])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "val"}, r"none of its 9 videos belongs to val; their splits are test, train"),
        ({"labels": "colour"}, r"its videos have no 'colour'"),
        ({"rank": 2, "world_size": 2}, r"rank = 2: with world_size = 2 it must be from 0 to 1"),
        ({"batch_size": 2, "world_size": 3}, r"batch_size = 2: each of the world_size = 3 processes"),
        ({"views": 0}, r"views = 0"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(config: Config, options: dict[str, object], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message) as refused:
        loader(config, **options)
    assert "\n" not in str(refused.value)


def test_arguments_are_checked_like_keys_of_a_configuration(folder: Path) -> None:
    for options, message in (({"frames": 1}, "clip.frames"), ({"backend": "gpu"}, "loader.backend")):
        with pytest.raises(ConfigError, match=message):
            cacl.ClipLoader(folder / "videos", **options)  # type: ignore[arg-type]
