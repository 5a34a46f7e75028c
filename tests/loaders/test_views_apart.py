"""Views at different moments of a video: each shows the frames that its plan says, from whatever is read and decodes.

Every frame spells its number. Videos begin at numbers of their own, so that a frame tells its video, too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

import cacl
from cacl.clips import ClipBatch, ClipPlan
from cacl.config import AugmentConfig, ClipConfig, Config, DataConfig, LoaderConfig
from cacl.loaders.backends.dali import DaliBackend
from cacl.loaders.backends.dali_sources import EncodedSegments
from cacl.loaders.prepared.prepare import prepare
from cacl.loaders.prepared.transcode import TranscodeSettings
from tests.damage import DAMAGES
from tests.loaders.decode.web_server import Server

MakeVideo = Callable[..., Path]
CLIP = ClipConfig(frames=4, stride=2, size=32, max_frames_apart=14)
WHOLE_FRAME = AugmentConfig(crop=(1.0, 1.0), flip_prob=0.0, color_jitter_prob=0.0, grayscale_prob=0.0)
VIDEOS, LENGTHS = 5, (30, 7, 41, 24, 50)
"""The second video has room for one clip."""
FIRST = tuple(sum(LENGTHS[:number]) for number in range(VIDEOS))

BACKENDS = {
    "cpu": LoaderConfig(backend="cpu", threads=2),
    "reference": LoaderConfig(backend="reference", threads=2),
    "dali": LoaderConfig(backend="dali", threads=2),
    "dali, views by the kernel": LoaderConfig(backend="dali", threads=2, dali_views="triton"),
}


@pytest.fixture(scope="module")
def sets(make_video: MakeVideo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos in VP9, which DALI decodes on a CPU too, and the prepared set of them."""
    folder = tmp_path_factory.mktemp("apart")
    for number, (first, frames) in enumerate(zip(FIRST, LENGTHS, strict=True)):
        name = folder / "raw" / f"{number}.webm"
        make_video(name, frames=frames, size=(64, 64), gop=6, codec="libvpx-vp9", first=first)
    source = DataConfig(root=str(folder / "raw"), cache=str(folder / "cache"))
    settings = TranscodeSettings(short_side=64, gop=6)
    prepare(source, folder / "prepared", settings, workers=1, progress=lambda *_: None)
    return folder


def config(root: Path | str, cache: Path, backend: str = "cpu", apart: int = CLIP.max_frames_apart) -> Config:
    return Config(
        data=DataConfig(root=str(root), cache=str(cache)),
        clip=replace(CLIP, max_frames_apart=apart),
        augment=WHOLE_FRAME,
        loader=BACKENDS[backend],
        seed=5,
    )


def make_loader(config: Config, **options: object) -> cacl.ClipLoader:
    if config.loader.backend == "dali":
        pytest.importorskip("nvidia.dali")
    return cacl.ClipLoader.from_config(config, **{"batch_size": 4, **options})  # type: ignore[arg-type]


def shown(view: Tensor) -> list[list[int]]:
    """Returns the numbers that the frames of a view [B, 3, T, H, W] spell, of each clip."""
    columns = torch.arange(1, 16, 2) * view.shape[-1] // 16
    bits = view[:, 1, :, view.shape[-2] // 4, columns] > 0.5  # [B, T, 8]
    return (bits * 2 ** torch.arange(8)).sum(-1).tolist()


def expected(plans: Iterator[ClipPlan] | list[ClipPlan], view: int) -> list[list[int]]:
    """Returns the numbers of the frames that a view of these clips has to show."""
    return [
        [FIRST[plan.video] + plan.view_starts[view] + frame * plan.stride for frame in range(plan.length)]
        for plan in plans
    ]


@pytest.mark.parametrize("read", ["raw", "prepared"])
def test_each_view_shows_the_frames_from_its_own_start(sets: Path, tmp_path: Path, read: str) -> None:
    check_frames(make_loader(config(sets / read, tmp_path), views=3))


@pytest.mark.parametrize("read", ["raw", "prepared"])
@pytest.mark.parametrize("backend", ["reference", "dali", "dali, views by the kernel"])
def test_other_backends_show_the_same_frames(sets: Path, tmp_path: Path, backend: str, read: str) -> None:
    check_frames(make_loader(config(sets / read, tmp_path, backend), views=3))


@pytest.mark.parametrize("backend", ["cpu", "dali"])
def test_a_served_set_shows_the_same_frames(sets: Path, tmp_path: Path, server: Server, backend: str) -> None:
    shutil.copytree(sets / "prepared", server.folder / "set")
    check_frames(make_loader(config(server.root, tmp_path, backend), views=3))


def check_frames(made: cacl.ClipLoader) -> None:
    """Checks the frames of all three views of some clips, whose starts lie on both sides of the first one's."""
    plans = [made.sampler.plan(index) for index in range(20)]
    distances = {plan.view_starts[1] - plan.start for plan in plans if plan.video != 1}
    assert min(distances) < -7, "a key that ends before its query begins"
    assert max(distances) > 7
    assert all(plan.view_starts == (0, 0, 0) for plan in plans if plan.video == 1)
    batches = list(made.steps(0, 5))
    assert [len(batch.views) for batch in batches] == [3] * 5
    for view in range(3):
        numbers = [clip for batch in batches for clip in shown(batch.views[view])]
        assert numbers == expected(plans, view)
    assert [clip for batch in batches for clip in shown(batch.query)] == [
        [FIRST[plan.video] + number for number in plan.frame_numbers] for plan in plans
    ]
    orders = [tuple(order) for batch in batches for order in batch.order.tolist()]
    assert orders == [plan.order for plan in plans]


def test_a_prepared_set_has_the_plans_of_its_originals(sets: Path, tmp_path: Path) -> None:
    raw, prepared = (make_loader(config(sets / read, tmp_path)) for read in ("raw", "prepared"))
    for index in range(50):
        one, other = raw.sampler.plan(index), prepared.sampler.plan(index)
        assert (one.video, one.start, one.view_starts) == (other.video, other.start, other.view_starts)


@pytest.mark.parametrize("backend", ["dali", "dali, views by the kernel"])
def test_frames_that_dali_decodes(sets: Path, tmp_path: Path, backend: str) -> None:
    """The graph is as on a GPU. Batches of other numbers of views and moments come between."""
    made = make_loader(config(sets / "raw", tmp_path, backend))
    assert isinstance(made.backend, DaliBackend)
    made.backend.source = EncodedSegments("cpu")
    plans = [made.sampler.plan(index) for index in range(16)]
    alone = [replace(plan, view_starts=()) for plan in plans[4:8]]
    single = [replace(plan, views=plan.views[:1], view_starts=plan.view_starts[:1]) for plan in plans[8:12]]
    batches = list(made.backend.batches([plans[:4], alone, single, plans[12:]]))
    assert [len(batch.views) for batch in batches] == [2, 2, 1, 2]
    for view in (0, 1):
        assert shown(batches[0].views[view]) == expected(plans[:4], view)
        assert shown(batches[1].views[view]) == expected(plans[4:8], 0)
        assert shown(batches[3].views[view]) == expected(plans[12:], view)
    assert shown(batches[2].query) == expected(plans[8:12], 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_distance_changes_no_bit(sets: Path, tmp_path: Path, backend: str) -> None:
    """The first view is the same bit for bit, as is all of a clip whose views happen to start at the same frame."""
    plain, apart = (make_loader(config(sets / "raw", tmp_path, backend, distance)) for distance in (0, 1))
    same = 0
    for one, other in zip(plain.steps(0, 5), apart.steps(0, 5), strict=True):
        assert torch.equal(one.query, other.query)
        assert torch.equal(one.order, other.order)
        for row, index in enumerate(one.index.tolist()):
            first, second = apart.sampler.plan(index).view_starts
            assert torch.equal(one.key[row], other.key[row]) == (first == second)
            same += first == second
    assert 0 < same < 20


# --- Where it stands, and who loads it


def assert_same(one: ClipBatch, other: ClipBatch) -> None:
    assert one.index.tolist() == other.index.tolist()
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(one.views, other.views, strict=True))


@pytest.mark.parametrize("delivered", [1, 3])
def test_a_restored_loader_goes_on_with_the_same_bits(sets: Path, tmp_path: Path, delivered: int) -> None:
    settings = config(sets / "prepared", tmp_path)
    whole, stopped, again = make_loader(settings), make_loader(settings), make_loader(settings)
    for _ in islice(stopped, delivered):
        pass
    again.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    for mine, theirs in zip(islice(again, 4), islice(whole, delivered, delivered + 4), strict=True):
        assert_same(mine, theirs)


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_divide_the_clips_of_one(sets: Path, tmp_path: Path, world_size: int) -> None:
    settings = config(sets / "raw", tmp_path)
    alone = [
        clip for batch in make_loader(settings).steps(0, 5) for clip in zip(batch.index, *batch.views, strict=True)
    ]
    ranks = [make_loader(settings, rank=rank, world_size=world_size).steps(0, 5) for rank in range(world_size)]
    together = [
        clip
        for batches in zip(*ranks, strict=True)
        for batch in batches
        for clip in zip(batch.index, *batch.views, strict=True)
    ]
    assert len(together) == len(alone) == 20
    for mine, theirs in zip(together, alone, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_a_path_makes_the_same_loader_as_a_configuration(
    sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = cacl.ClipLoader(
        sets / "raw", frames=4, stride=2, size=32, batch_size=4, max_frames_apart=14, seed=5, backend="cpu"
    )
    same = make_loader(replace(config(sets / "raw", tmp_path), augment=AugmentConfig()))
    assert made.fingerprint == same.fingerprint
    assert_same(next(iter(made)), next(iter(same)))


# --- Files that fail


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("damaged", ["of the query", "of the key", "of both"])
def test_a_clip_fails_once_whichever_moment_is_damaged(sets: Path, tmp_path: Path, backend: str, damaged: str) -> None:
    """One bit of the fragment where the query begins changes, or of that where the key does, or of both."""
    root = shutil.copytree(sets / "prepared", tmp_path / "set")
    made = make_loader(config(root, tmp_path, backend))
    videos = made.catalog.videos
    plans = [made.sampler.plan(index) for index in range(20)]
    whole = list(made.steps(0, 5))
    clip = next(plan for plan in plans if abs(plan.view_starts[1] - plan.start) > 12)  # They share no fragment.
    moments = {"of the query": clip.moments[:1], "of the key": clip.moments[1:], "of both": clip.moments}[damaged]
    fragments = videos[clip.video].fragments
    assert fragments is not None
    file = Path(root) / videos[clip.video].path
    content, lost = bytearray(file.read_bytes()), set()
    for moment in moments:
        position = fragments.position_of(moment.start)
        content[int(fragments.offsets[position + 1]) - 1] ^= 1
        lost.add(position)
    file.write_bytes(content)

    def fails(plan: ClipPlan) -> bool:
        needed = {
            fragments.position_of(number)
            for moment in plan.moments
            for number in range(moment.start, moment.frame_numbers[-1] + 1)
        }
        return plan.video == clip.video and bool(needed & lost)

    failing = [plan.index for plan in plans if fails(plan)]
    assert clip.index in failing
    after = list(made.steps(0, 5))
    failures = [failure for batch in after for failure in batch.failures]
    assert [failure.index for failure in failures] == failing
    assert all(failure.reason.startswith(f"{file}: is damaged at byte ") for failure in failures)
    for mine, before in zip(after, whole, strict=True):
        kept = [row for row, index in enumerate(before.index.tolist()) if index not in failing]
        assert mine.index.tolist() == before.index[kept].tolist()
        assert all(torch.equal(view, other[kept]) for view, other in zip(mine.views, before.views, strict=True))


def test_a_clip_on_which_dali_fails_fails_once(sets: Path, tmp_path: Path) -> None:
    """Its graph dies on the noise, and the other clips of the batch are made again."""
    root = shutil.copytree(sets / "raw", tmp_path / "raw")
    made = make_loader(config(root, tmp_path / "cache", "dali"))
    assert isinstance(made.backend, DaliBackend)
    made.backend.source = EncodedSegments("cpu")
    plans = [made.sampler.plan(index) for index in range(20)]
    DAMAGES["overwritten"](root / "2.webm")
    batches = list(made.steps(0, 5))
    failures = [failure.index for batch in batches for failure in batch.failures]
    assert failures == [plan.index for plan in plans if plan.video == 2]
    for view in (0, 1):
        numbers = [clip for batch in batches for clip in shown(batch.views[view])]
        assert numbers == expected([plan for plan in plans if plan.video != 2], view)
