"""Several roots in one loader: a folder of classes, a synthetic set, and prepared sets on disk and on a web server."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import cacl
from cacl.clips import ClipBatch, ClipPlan, RootShare
from cacl.config import ClipConfig, Config, DataConfig, LoaderConfig, RootConfig, from_dict
from cacl.errors import CheckpointError, DataError
from cacl.loaders.backends.select import build_backend
from cacl.loaders.catalog.scan import scan
from cacl.loaders.prepared.prepare import prepare
from cacl.loaders.prepared.transcode import TranscodeSettings
from cacl.loaders.synthetic.dataset import synthesise
from tests.damage import deleted
from tests.loaders.decode.web_server import Server

MakeVideo = Callable[..., Path]
CPU = torch.device("cpu")
CLIP = ClipConfig(frames=4, stride=1, size=16)
WEIGHTS = {"classes": 2.0, "synthetic": 0.5, "prepared": 1.0, "served": 1.25}
TRAIN = {"classes": 5, "synthetic": 48, "prepared": 5, "served": 5}
CLIPS = {"classes": 10, "synthetic": 24, "prepared": 5, "served": 6}
BATCH = 8


class Sets(NamedTuple):
    """Where the sets lie."""

    folder: Path
    classes: Path
    synthetic: Path
    prepared: Path
    to_serve: Path


def encode(make_video: MakeVideo, root: Path, first: int) -> Path:
    """Makes five training videos and two test videos of two classes."""
    for number in range(7):
        split = "train" if number < 5 else "test"
        path = root / split / ("jump", "walk")[number % 2] / f"{number}.mp4"
        make_video(path, frames=8 + number, size=(64, 48), gop=4, first=first + 30 * number)
    return root


@pytest.fixture(scope="module")
def sets(make_video: MakeVideo, tmp_path_factory: pytest.TempPathFactory) -> Sets:
    folder = tmp_path_factory.mktemp("roots")
    synthetic = folder / "synthetic"
    synthesise(synthetic, videos_per_pair=(1, 0), seed=3, frames=8, size=(32, 48))
    for name, first in (("prepared", 7), ("to serve", 11)):
        source = DataConfig(root=str(encode(make_video, folder / f"source of {name}", first)))
        prepare(source, folder / name, TranscodeSettings(short_side=48), workers=1, progress=lambda *_: None)
    classes = encode(make_video, folder / "classes", 0)
    return Sets(folder, classes, synthetic, folder / "prepared", folder / "to serve")


@pytest.fixture
def config(sets: Sets, server: Server) -> Config:
    """Four roots, of which the last is read from the server."""
    shutil.copytree(sets.to_serve, server.folder / "set")
    places = {"classes": sets.classes, "synthetic": sets.synthetic, "prepared": sets.prepared, "served": server.root}
    roots = tuple(RootConfig(root=str(place), weight=WEIGHTS[name]) for name, place in places.items())
    data = DataConfig(roots=roots, cache=str(sets.folder / "cache"))
    return Config(data=data, clip=CLIP, loader=LoaderConfig(threads=2), seed=5)


def loader(config: Config, **options: object) -> cacl.ClipLoader:
    return cacl.ClipLoader.from_config(config, **{"batch_size": BATCH, **options})  # type: ignore[arg-type]


def with_weights(config: Config, *weights: float) -> Config:
    roots = tuple(replace(root, weight=weight) for root, weight in zip(config.data.roots, weights, strict=True))
    return replace(config, data=replace(config.data, roots=roots))


def assert_same(one: Iterable[ClipBatch], other: Iterable[ClipBatch]) -> None:
    for mine, theirs in zip(one, other, strict=True):
        assert mine.failures == theirs.failures == ()
        pairs = [(mine.order, theirs.order), (mine.video, theirs.video), (mine.index, theirs.index)]
        assert all(torch.equal(*pair) for pair in [*pairs, *zip(mine.views, theirs.views, strict=True)])


def clips(batches: Iterable[ClipBatch]) -> list[tuple[int, bytes]]:
    return sorted(
        (int(index), view.numpy().tobytes())
        for batch in batches
        for index, view in zip(batch.index, batch.views[0], strict=True)
    )


def roots_of(made: cacl.ClipLoader, videos: Iterable[int]) -> list[str]:
    """The names of the roots that videos lie in, by their paths alone."""
    places = {name: root.root for name, root in zip(WEIGHTS, made.config.data.roots, strict=True)}
    paths = [made.catalog.videos[video].path for video in videos]
    return [next(name for name, place in places.items() if path.startswith(f"{place}/")) for path in paths]


# --- Which clips come


def test_shares_are_weights_times_training_videos(config: Config) -> None:
    made = loader(config)
    assert made.catalog.shares == tuple(RootShare(TRAIN[name], CLIPS[name]) for name in WEIGHTS)
    assert len(made.catalog.videos) == sum(TRAIN.values())
    assert made.catalog.clips_per_epoch == made.sampler.clips_per_epoch == sum(CLIPS.values()) == 45
    for number in range(2):
        videos = [video for batch in made.epoch(number) for video in batch.video.tolist()]
        assert Counter(roots_of(made, videos)) == CLIPS
    assert made.epochs_done == 2
    visits = Counter(made.sampler.plan(index).video for index in range(40 * 45))
    for video in range(len(made.catalog.videos)):
        (name,) = roots_of(made, [video])
        assert abs(visits[video] - 40 * CLIPS[name] / TRAIN[name]) < 1


@pytest.mark.parametrize("backend", ["cpu", "reference", "dali"])
def test_each_clip_is_that_of_its_own_root(config: Config, backend: str) -> None:
    """Every root is loaded by itself, too, with the plans of the combined loader."""
    if backend == "dali":
        pytest.importorskip("nvidia.dali")
    config = replace(config, loader=replace(config.loader, backend=backend))
    made = loader(config)
    combined = dict(clips(made.epoch(0)))
    first, alone = 0, dict[int, bytes]()
    for data, share in zip(config.data.each_root(), made.catalog.shares, strict=True):
        catalog = scan(data).choose_split("train")
        last = first + len(catalog.videos)
        plans = [made.sampler.plan(index) for index in range(45)]
        own: list[ClipPlan] = [replace(p, video=p.video - first) for p in plans if first <= p.video < last]
        assert len(own) == share.clips
        alone |= clips(build_backend(backend, catalog, config, CPU).batches([own]))
        first = last
    assert combined == alone


def test_ranks_divide_the_clips_of_one(config: Config) -> None:
    alone = clips(islice(loader(config), 4))
    assert [index for index, _ in alone] == list(range(4 * BATCH))
    epoch = clips(loader(config).epoch(1))
    assert [index for index, _ in epoch] == list(range(45, 90))
    for world_size in (2, 3):
        ranks = [loader(config, rank=rank, world_size=world_size) for rank in range(world_size)]
        assert sorted(clip for rank in ranks for clip in clips(islice(rank, 4))) == alone
        assert sorted(clip for rank in ranks for clip in clips(rank.epoch(1))) == epoch


def test_a_restored_loader_goes_on_with_the_same_bits(config: Config) -> None:
    whole = list(islice(loader(config), 6))
    stopped = loader(config)
    assert_same(islice(stopped, 2), whole[:2])
    state = json.loads(json.dumps(stopped.state_dict()))
    again = loader(config)
    again.load_state_dict(state)
    assert_same(islice(again, 4), whole[2:])
    reordered = replace(config, data=replace(config.data, roots=config.data.roots[::-1]))
    for other in (with_weights(config, 2, 0.5, 1, 1), reordered, with_weights(config, 1, 1, 1, 1)):
        with pytest.raises(CheckpointError, match="other weights of their roots"):
            loader(other).load_state_dict(state)


def test_an_evaluation_takes_every_video_once_whatever_the_weights(config: Config) -> None:
    made = loader(config, split=None)
    videos = [video for batch in made.evaluation(2) for video in batch.video.tolist()]
    assert Counter(videos) == dict.fromkeys(range(len(made.catalog.videos)), 2)
    other = loader(with_weights(config, 1, 1, 1, 1), split=None)
    assert_same(made.evaluation(2), other.evaluation(2))
    assert {video.split for video in loader(config, split="test").catalog.videos} == {"test"}


def test_one_root_of_weight_1_is_that_root(config: Config, sets: Sets) -> None:
    (classes,) = roots = config.data.roots[:1]
    alone = replace(config, data=replace(config.data, roots=(), root=str(sets.classes)))
    one = replace(config, data=replace(config.data, roots=(replace(classes, weight=1.0),)))
    assert loader(one).fingerprint == loader(alone).fingerprint
    assert_same(islice(loader(one), 3), islice(loader(alone), 3))
    twice = loader(replace(config, data=replace(config.data, roots=roots)))
    assert twice.fingerprint != loader(alone).fingerprint
    assert twice.catalog.shares == (RootShare(5, 10),)


def test_classes_are_the_union_of_names(config: Config, sets: Sets, make_video: MakeVideo, tmp_path: Path) -> None:
    make_video(tmp_path / "more/train/run/0.mp4", frames=9, size=(64, 48), gop=4)
    make_video(tmp_path / "more/test/sit/0.mp4", frames=9, size=(64, 48), gop=4)
    labelled = (RootConfig(root=str(tmp_path / "more")), *(config.data.roots[which] for which in (0, 2, 3)))
    config, unlabelled = replace(config, data=replace(config.data, roots=labelled)), config
    made = loader(config, labels="label")
    assert made.classes == ("jump", "run", "sit", "walk")
    for batch in made.epoch(0):
        assert batch.labels is not None
        records = [made.catalog.videos[video] for video in batch.video.tolist()]
        assert [made.classes[label] for label in batch.labels.tolist()] == [record.label for record in records]
    with pytest.raises(DataError, match=rf"48 of 63 videos have no 'label', {sets.synthetic}/videos/.* among them"):
        loader(unlabelled, labels="label")


# --- What is told


def test_a_root_that_is_not_there_is_named(config: Config, sets: Sets) -> None:
    for number, place in ((0, sets.folder / "gone"), (3, f"{config.data.roots[3].root}/gone")):
        roots = list(config.data.roots)
        roots[number] = replace(roots[number], root=str(place))
        with pytest.raises(DataError) as refused:
            loader(replace(config, data=replace(config.data, roots=tuple(roots))))
        assert str(refused.value).startswith(f"data.roots.{number}: ")
        assert str(place) in str(refused.value)
        assert "\n" not in str(refused.value)


def test_a_layout_a_fold_and_held_out_videos_belong_to_one_root(config: Config) -> None:
    classes, synthetic, *_ = config.data.roots
    roots = (replace(classes, layout="folder"), replace(synthetic, layout="ucf101"))
    with pytest.raises(DataError, match=r"^data\.roots\.1: data\.fold = 1: no list named trainlist01.txt"):
        loader(replace(config, data=replace(config.data, roots=roots)))
    found = scan(replace(config.data, roots=(replace(classes, layout="folder"), synthetic)))
    assert [part.layout for part in found.parts] == ["folder", "csv"]
    assert {video.label for video in found.parts[0].videos} == {None}
    held_out = replace(classes, root=f"{classes.root}/train", layout="classes", test_share=0.5)
    found = scan(replace(config.data, roots=(held_out, synthetic)))
    assert Counter(video.split for video in found.parts[0].videos) == {"train": 2, "test": 3}
    assert Counter(video.split for video in found.parts[1].videos) == {"train": 48}


def test_a_root_without_training_videos_is_named(config: Config, sets: Sets) -> None:
    """A root that says nothing of splits is trained on as a whole, beside others that say."""
    classes, synthetic, *_ = config.data.roots
    no_splits = replace(classes, root=str(sets.classes / "train"), layout="classes")
    made = loader(replace(config, data=replace(config.data, roots=(no_splits, synthetic))))
    assert [share.videos for share in made.catalog.shares] == [5, 48]
    listed = sets.folder / "source of prepared/none.csv"
    listed.write_text("path,split\ntest/walk/5.mp4,test\n")
    try:
        with pytest.raises(DataError, match=f"^{listed.parent}: none of its 1 videos belongs to train"):
            loader(replace(config, data=replace(config.data, roots=(RootConfig(root=str(listed)), synthetic))))
    finally:
        listed.unlink()


def test_too_many_rejected_files_are_counted_for_each_root(config: Config, sets: Sets, tmp_path: Path) -> None:
    """One of eight files is more than a tenth, and one of 70 is not."""
    root = shutil.copytree(sets.classes, tmp_path / "classes")
    (root / "train/jump/empty.mp4").touch()
    roots = (replace(config.data.roots[0], root=str(root)), *config.data.roots[1:])
    damaged = replace(config, data=replace(config.data, roots=roots))
    with pytest.raises(DataError, match=rf"^data\.root = {root}: 1 of 8 videos cannot be used"):
        loader(damaged)
    assert loader(replace(damaged, data=replace(damaged.data, max_rejected_share=0.2))).catalog.shares[0].videos == 5


def test_files_that_two_roots_hold_are_named(sets: Sets, tmp_path: Path) -> None:
    """Copies, and sets prepared from the same files; what is in one root alone is not named."""
    shutil.copytree(sets.folder / "source of prepared/train/walk", tmp_path / "mine/walk")
    shutil.copy(sets.classes / "train/jump/0.mp4", tmp_path / "mine/walk/other name.mp4")
    places = [tmp_path / "mine", sets.prepared, sets.classes, sets.to_serve]
    data = DataConfig(roots=tuple(RootConfig(root=str(place)) for place in places), cache=str(sets.folder / "cache"))
    notes = [[note for note in part.notes if "too, such as" in note] for part in scan(data).parts]
    assert [len(of_root) for of_root in notes] == [0, 1, 1, 0]
    assert notes[1][0].startswith(f"2 of its 7 videos are in {tmp_path}/mine too, such as videos/train/walk/")
    assert notes[2] == [
        f"1 of its 7 videos are in {tmp_path}/mine too, such as train/jump/0.mp4 (walk/other name.mp4 there); each "
        "root counts them as its own"
    ]
    shutil.copy(sets.classes / "train/jump/0.mp4", tmp_path / "mine/walk/once more.mp4")
    (note,) = scan(replace(data, roots=(data.roots[2], data.roots[0]))).parts[1].notes
    assert note.startswith(f"2 of its 4 videos are in {sets.classes} too, such as walk/once more.mp4 (train/jump/0.mp4")


def test_a_clip_that_fails_names_its_root(config: Config, sets: Sets, tmp_path: Path) -> None:
    root = shutil.copytree(sets.classes, tmp_path / "classes")
    roots = (replace(config.data.roots[0], root=str(root)), *config.data.roots[1:])
    config = replace(config, data=replace(config.data, roots=roots))
    made = loader(config)
    deleted(root / "train/walk/3.mp4")
    failures = [failure for batch in made.epoch(0) for failure in batch.failures]
    assert [made.catalog.videos[failure.video].path for failure in failures] == [f"{root}/train/walk/3.mp4"] * 2
    assert all(failure.reason.startswith(f"{root}/train/walk/3.mp4: ") for failure in failures)


def test_the_scan_tells_its_progress_root_by_root(config: Config, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    scan(replace(config.data, cache=str(tmp_path)), progress=lambda *step: told.append(step))
    classes, synthetic, *_ = config.data.roots
    sizes = [7, len(told) - 7]
    assert [step[:2] for step in told] == [(done, size) for size in sizes for done in range(1, size + 1)]
    assert all(note.startswith(f"{classes.root}/") for *_, note in told[:7])
    assert all(note.startswith(f"{synthetic.root}/") for *_, note in told[7:])


def test_a_json_configuration_makes_the_same_loader(config: Config) -> None:
    values = {"data": {"roots": [{"root": root.root, "weight": root.weight} for root in config.data.roots]}}
    other = from_dict({**values, "seed": 5, "clip": {"frames": 4, "stride": 1, "size": 16}})
    assert loader(other).fingerprint == loader(config).fingerprint
