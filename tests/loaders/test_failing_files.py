"""Files that fail while batches are made: their clips are left out and named, and no other bit changes.

Every batch is compared with those that the same backend made before the damage.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from cacl.clips import ClipBatch, ClipPlan
from cacl.config import AugmentConfig, ClipConfig, DataConfig
from cacl.loaders.backends import cpu, reference
from cacl.loaders.backends.dali import DaliBackend
from cacl.loaders.backends.dali_sources import DecodedFrames, EncodedSegments, FrameSource
from cacl.loaders.backends.select import Backend
from cacl.loaders.backends.thread_pool import ThreadPoolBackend
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.scan import scan
from cacl.loaders.prepared.prepare import prepare
from cacl.loaders.prepared.transcode import TranscodeSettings
from cacl.loaders.sampling.sampler import ClipSampler, evaluation_plans
from tests.damage import DAMAGES, deleted, overwritten, rotten, truncated

MakeVideo = Callable[..., Path]
CLIP = ClipConfig(frames=4, stride=2, size=16)
VIDEOS, BATCH = 5, 4


def threaded(load_clip: object) -> Callable[[Catalog], Backend]:
    return lambda videos: ThreadPoolBackend(load_clip, videos, size=CLIP.size, threads=2, prefetch=2)  # type: ignore


def with_dali(source: Callable[[], FrameSource]) -> Callable[[Catalog], Backend]:
    def build(videos: Catalog) -> Backend:
        pytest.importorskip("nvidia.dali")
        backend = DaliBackend(videos, size=CLIP.size, threads=2, prefetch=3, pipelines=2, device=torch.device("cpu"))
        backend.source = source()
        return backend

    return build


BACKENDS: dict[str, Callable[[Catalog], Backend]] = {
    "cpu": threaded(cpu.load_clip),
    "reference": threaded(reference.load_clip),
    "dali": with_dali(DecodedFrames),
    "dali decodes": with_dali(lambda: EncodedSegments("cpu")),
}


@pytest.fixture(scope="module")
def originals(make_video: MakeVideo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five VP9 videos, which DALI decodes on a CPU too."""
    folder = tmp_path_factory.mktemp("originals")
    for number in range(VIDEOS):
        size = (64, 48) if number % 2 else (48, 80)
        make_video(folder / f"{number}.webm", frames=12 + number, size=size, gop=4, codec="libvpx-vp9")
    return folder


@pytest.fixture
def videos(originals: Path, tmp_path: Path) -> Catalog:
    """A copy of the videos that was scanned, and is free to be damaged."""
    root = shutil.copytree(originals, tmp_path / "videos")
    return scan(DataConfig(root=str(root), cache=str(tmp_path / "cache")), min_frames=CLIP.frames)


def plans_of(videos: Catalog, steps: int, batch: int = BATCH, rank: int = 0, world: int = 1) -> list[list[ClipPlan]]:
    sampler = ClipSampler(videos.videos, CLIP, AugmentConfig(), seed=5)
    return list(sampler.batches(0, steps, batch, rank, world))


def file_of(videos: Catalog, number: int) -> Path:
    file = videos.location(videos.videos[number])
    assert isinstance(file, Path)
    return file


def check(
    made: Sequence[ClipBatch], before: Sequence[ClipBatch], plans: Sequence[Sequence[ClipPlan]], videos: Catalog
) -> list[tuple[int, int]]:
    """Checks that each plan became the same clip as before, or a failure that names its file.

    Returns (index, video) of the failures.
    """
    failed = []
    for mine, whole, wanted in zip(made, before, plans, strict=True):
        indices = [plan.index for plan in wanted]
        rows = [indices.index(index) for index in mine.index.tolist()]
        assert rows == sorted(set(rows))
        for name in ("order", "video", "index"):
            assert torch.equal(getattr(mine, name), getattr(whole, name)[rows]), name
        assert len(mine.views) == len(whole.views)
        for mine_view, view in zip(mine.views, whole.views, strict=True):
            assert mine_view.shape == (len(rows), *view.shape[1:])
            assert mine_view.dtype == view.dtype
            assert torch.equal(mine_view, view[rows])
        others = [(plan.index, plan.video) for slot, plan in enumerate(wanted) if slot not in rows]
        assert [(failure.index, failure.video) for failure in mine.failures] == others
        for failure in mine.failures:
            assert failure.reason.startswith(f"{videos.location(videos.videos[failure.video])}: ")
            assert "\n" not in failure.reason
        failed += others
    return failed


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, damage) for name in ("cpu", "dali decodes") for damage in DAMAGES),
        *((name, damage) for name in ("reference", "dali") for damage in ("deleted", "overwritten")),
    ],
)
def test_other_clips_keep_their_bits(videos: Catalog, name: str, damage: str) -> None:
    """Two files of five fail, so that there are batches with no failure, with one and with two."""
    backend, plans = BACKENDS[name](videos), plans_of(videos, steps=10)
    before = list(backend.batches(plans))
    for number in (1, 3):
        DAMAGES[damage](file_of(videos, number))
    failed = check(list(backend.batches(plans)), before, plans, videos)
    assert failed == [(plan.index, plan.video) for batch in plans for plan in batch if plan.video in (1, 3)]
    assert {len(batch.failures) for batch in backend.batches(plans)} >= {1, 2}


@pytest.mark.parametrize("name", BACKENDS)
def test_batches_in_which_all_fail(videos: Catalog, name: str) -> None:
    """They stand at the start, in the middle and at the end, also with one view, and after another batch size."""
    backend, two = BACKENDS[name](videos), plans_of(videos, steps=12, batch=2)
    one = list(evaluation_plans(videos.videos, range(VIDEOS), 3, CLIP, AugmentConfig()))
    by_video = sorted((plan for batch in two for plan in batch), key=lambda plan: plan.video)
    plans = [by_video[:3], by_video[3:5], *two, one[:2], one[2:7], one[7:9], one[12:], one[12:13]]
    before = list(backend.batches(plans))
    for number in (0, 4):
        overwritten(file_of(videos, number))
    made = list(backend.batches(plans))
    check(made, before, plans, videos)
    assert [len(batch) for batch in made][:2] == [0, 0]
    assert [len(batch) for batch in made][-2:] == [0, 0]
    assert sum(len(batch) for batch in made) == sum(p.video not in (0, 4) for batch in plans for p in batch)

    for number in (1, 2, 3):
        deleted(file_of(videos, number))
    made = list(backend.batches(plans))
    check(made, before, plans, videos)
    assert not any(len(batch) for batch in made)


@pytest.mark.parametrize("name", BACKENDS)
def test_files_that_vanish_and_come_back_meanwhile(videos: Catalog, tmp_path: Path, name: str) -> None:
    """Batches are made ahead, so which clip is the first to fail is open, but nothing else may change."""
    backend, plans = BACKENDS[name](videos), plans_of(videos, steps=16)
    before, file = list(backend.batches(plans)), file_of(videos, 2)

    def eventful() -> Iterator[list[ClipPlan]]:
        for number, batch in enumerate(plans):
            if number == 5:
                file.rename(tmp_path / "away")
            if number == 11:
                (tmp_path / "away").rename(file)
            yield batch

    failed = check(list(backend.batches(eventful())), before, plans, videos)
    assert {video for _, video in failed} == {2}
    gone = {p.index for batch in plans[5:8] for p in batch if p.video == 2}  # at most 4 batches are read ahead
    assert gone <= {index for index, _ in failed}
    assert min(index for index, _ in failed) >= 0
    assert not {p.index for batch in plans[12:] for p in batch} & {index for index, _ in failed}


@pytest.mark.parametrize(("name", "world"), [("cpu", 1), ("cpu", 2), ("cpu", 3), ("cpu", 4), ("dali decodes", 3)])
def test_each_epoch_has_each_video_once_on_any_number_of_ranks(videos: Catalog, name: str, world: int) -> None:
    """Each video is loaded or fails, and from any batch on the same happens again."""
    batch, epochs = 12, 12
    steps = epochs * VIDEOS // batch  # 5
    backend = BACKENDS[name](videos)
    overwritten(file_of(videos, 1))
    deleted(file_of(videos, 4))
    stream: dict[int, tuple[int, str]] = {}
    for rank in range(world):
        shares = plans_of(videos, steps, batch, rank, world)
        made = list(backend.batches(shares))
        for loaded, plans in zip(made, shares, strict=True):
            rows = zip(loaded.index.tolist(), loaded.video.tolist(), strict=True)
            seen = [(index, video, "loaded") for index, video in rows]
            seen += [(failure.index, failure.video, "failed") for failure in loaded.failures]
            assert sorted(index for index, *_ in seen) == [plan.index for plan in plans]
            stream |= {index: (video, outcome) for index, video, outcome in seen}
        for start in range(steps):
            again = list(backend.batches(shares[start:]))
            assert [b.index.tolist() for b in again] == [b.index.tolist() for b in made[start:]]
            assert [b.failures for b in again] == [b.failures for b in made[start:]]
            assert all(torch.equal(a.query, b.query) for a, b in zip(again, made[start:], strict=True))
    assert sorted(stream) == list(range(steps * batch))
    for epoch in range(epochs):
        visited = [stream[epoch * VIDEOS + position] for position in range(VIDEOS)]
        assert sorted(visited) == [(v, "failed" if v in (1, 4) else "loaded") for v in range(VIDEOS)]


@pytest.fixture(scope="module")
def prepared_originals(make_video: MakeVideo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    for number in range(VIDEOS):
        make_video(folder / f"source/{number}.mp4", frames=24 + number, size=(64, 48), gop=6)
    source, settings = DataConfig(root=str(folder / "source")), TranscodeSettings(short_side=48)
    prepare(source, folder / "set", settings, workers=1, progress=lambda *_: None)
    return folder / "set"


@pytest.mark.parametrize("name", ["cpu", "reference", "dali"])
@pytest.mark.parametrize("happens", [deleted, truncated, rotten])
def test_prepared_videos(prepared_originals: Path, tmp_path: Path, name: str, happens: Callable[[Path], None]) -> None:
    """Where one bit of its last group changed, or its end is missing, the rest of a video is still used."""
    root = shutil.copytree(prepared_originals, tmp_path / "set")
    videos = scan(DataConfig(root=str(root)), min_frames=CLIP.frames)
    backend, plans = BACKENDS[name](videos), plans_of(videos, steps=15)
    before = list(backend.batches(plans))
    for number in (0, 3):
        happens(file_of(videos, number))
    failed = check(list(backend.batches(plans)), before, plans, videos)

    def is_lost(plan: ClipPlan) -> bool:
        fragments = videos.videos[plan.video].fragments
        assert fragments is not None
        end = int(fragments.offsets[-1])
        intact = {"deleted": 0, "truncated": end // 2, "rotten": end - 1}[happens.__name__]
        first_lost = fragments.first_frames[np.searchsorted(fragments.offsets[1:], intact, "right")]
        return plan.video in (0, 3) and plan.frame_numbers[-1] >= first_lost

    assert failed == [(plan.index, plan.video) for batch in plans for plan in batch if is_lost(plan)]
    assert failed


def test_what_is_no_fault_of_a_file_is_an_error(videos: Catalog) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(threaded(broken)(videos).batches(plans_of(videos, 2)))


def test_dali_reads_no_file_again_when_its_graph_dies(videos: Catalog) -> None:
    """The clips that were in the graph with the bad one come out, though by then the files are gone."""
    backend, plans = BACKENDS["dali decodes"](videos), plans_of(videos, 4)
    before = list(backend.batches(plans))
    overwritten(file_of(videos, 1))

    def last_sight() -> Iterator[list[ClipPlan]]:
        yield from plans[:3]
        for number in (0, 2, 3, 4):
            deleted(file_of(videos, number))
        yield plans[3]

    made = list(backend.batches(last_sight()))
    check(made, before, plans, videos)
    assert {failure.video for batch in made[:2] for failure in batch.failures} == {1}
    assert len(made[3]) == 0
