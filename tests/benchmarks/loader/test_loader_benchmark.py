"""The loader benchmark: contenders that are wrong, and clips that do not come."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from cacl.benchmarks.loader.command import LoaderBenchmark, bench_loader
from cacl.benchmarks.loader.contenders import BASELINE
from cacl.benchmarks.loader.run import TOLERANCE, LoaderContender
from cacl.benchmarks.rivals import loaders
from cacl.clips import ClipBatch, ClipPlan
from cacl.config import Config
from cacl.config import load as load_config
from cacl.errors import CaclError
from cacl.loaders.backends.select import Backend, build_backend
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.scan import scan
from cacl.loaders.sampling.sampler import ClipSampler
from cacl.reporting.console import Console
from tests.benchmarks.loader.small import FRAMES, SMALL, make_videos


@pytest.fixture(scope="session")
def raw(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    make_videos(make_video, root)
    return root


class _Bent:
    """The cpu backend with something wrong about its plans or its batches."""

    def __init__(
        self,
        catalog: Catalog,
        config: Config,
        plan: Callable[[ClipPlan], ClipPlan] = lambda plan: plan,
        batch: Callable[[ClipBatch], ClipBatch] = lambda batch: batch,
    ) -> None:
        self.cpu, self.plan, self.batch = _cpu(catalog, config), plan, batch

    def batches(self, plans: Iterable[Sequence[ClipPlan]]) -> Iterator[ClipBatch]:
        for batch in self.cpu.batches([[self.plan(plan) for plan in batch] for batch in plans]):
            yield self.batch(batch)


def _cpu(catalog: Catalog, config: Config) -> Backend:
    return build_backend("cpu", catalog, config, torch.device("cpu"))


def _earlier(plan: ClipPlan) -> ClipPlan:
    return replace(plan, start=max(plan.start - 1, 0))


def _brighter(batch: ClipBatch) -> ClipBatch:
    return replace(batch, views=tuple(view * 0.9 for view in batch.views))


def _half(batch: ClipBatch) -> ClipBatch:
    return replace(batch, views=tuple(view[:1] for view in batch.views), index=batch.index[:1])


def _broken(batch: ClipBatch) -> ClipBatch:
    raise RuntimeError("Caught in a worker\nout of luck")


def _same_moment(plan: ClipPlan) -> ClipPlan:
    return replace(plan, view_starts=(plan.start, plan.start))


def _bench(raw: Path, *contenders: LoaderContender, overrides: Sequence[str] = ()) -> LoaderBenchmark:
    config = load_config(overrides=[*SMALL, *overrides])
    with Console(enabled=False) as console:
        return bench_loader(
            raw, None, config, clips=4, repeats=1, console=console, list_contenders=lambda _: contenders
        )


OURS = LoaderContender(name=BASELINE, description="as it is", prepare=_cpu)


def test_a_contender_that_is_wrong_gets_no_figure(raw: Path) -> None:
    result = _bench(
        raw,
        OURS,
        LoaderContender(name="late", description="", prepare=partial(_Bent, plan=_earlier)),
        LoaderContender(name="dark", description="", prepare=partial(_Bent, batch=_brighter)),
        LoaderContender(name="broken", description="", prepare=partial(_Bent, batch=_broken)),
        LoaderContender(name="missing", description="", prepare=_cpu, unavailable_reason="it is not installed"),
    )
    ours, late, dark, broken, missing = result.rows
    assert ours.stats
    assert ours.ratio == 1
    assert [row.stats for row in (late, dark, broken, missing)] == [None] * 4
    assert late.reason.startswith("refused: shows earlier frames than asked for in ")
    assert dark.reason.startswith("refused: is ")
    assert "of 255 away from the reference in" in dark.reason
    assert dark.reason.endswith(", and 3 is allowed")
    assert broken.reason == "fails: out of luck"
    assert missing.reason == "skipped: it is not installed"
    result.check()


def test_clips_that_do_not_come_are_counted(raw: Path) -> None:
    """Of those that nobody looks at while they are timed."""
    (row,) = _bench(
        raw, LoaderContender(name="lossy", description="", prepare=partial(_Bent, batch=_half), tolerance=None)
    ).rows
    assert row.stats
    assert row.stats.dropped_clips == 2


def test_without_ours_there_is_nothing_to_compare_with(raw: Path) -> None:
    wrong = replace(OURS, prepare=partial(_Bent, plan=_earlier))
    result = _bench(raw, wrong, replace(OURS, name="another"))
    assert result.rows[1].stats
    assert result.rows[1].ratio is None
    with pytest.raises(CaclError, match="cacl cpu, raw videos: refused"):
        result.check()


def test_views_at_different_moments_are_measured(raw: Path) -> None:
    """Both clips are decoded and both count. Of 24 frames from which a clip spans 7, one begins at one of 18."""
    wrong = LoaderContender(name="wrong", description="", prepare=partial(_Bent, plan=_same_moment))
    ours, wrong = _bench(raw, OURS, wrong, overrides=["clip.max_frames_apart=17"]).rows
    assert wrong.reason.startswith("refused: ")
    assert ours.reason == ""
    assert ours.stats
    speed = ours.stats.clips_per_second.median
    assert ours.stats.returned_frames_per_second == pytest.approx(2 * 4 * speed)
    assert ours.stats.decoded_frames_per_second
    assert 2 * 7 <= ours.stats.decoded_frames_per_second / speed <= 2 * 24


@pytest.mark.parametrize("load", [partial(loaders.tuned_views, loaders.pyav_frames), loaders.official_release_views])
def test_rivals_follow_plans_of_two_moments(raw: Path, load: loaders.Load) -> None:
    config = load_config(overrides=[*SMALL, "clip.max_frames_apart=17"])
    catalog = scan(replace(config.data, root=str(raw)))
    plans = [ClipSampler(catalog.videos, config.clip, config.augment, 0).plan(index) for index in range(6)]
    assert all(plan.view_starts[0] != plan.view_starts[1] for plan in plans[:2])
    reference = build_backend("reference", catalog, config, torch.device("cpu"))
    (true,) = reference.batches([plans])
    for row, plan in enumerate(plans):
        video = catalog.videos[plan.video]
        views = load(str(catalog.location(video)), video, plan, config)
        expected = [view[row].float() for view in true.views]
        if len(views) == 4:
            expected += [view[:, list(plan.order)] for view in expected]
        for mine, theirs in zip(views, expected, strict=True):
            assert 255 * (mine.float().clamp(0, 1) - theirs.clamp(0, 1)).abs().mean() < TOLERANCE


def test_videos_without_motion_are_no_reason_to_refuse(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(tmp_path / "still.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "30"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for _ in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode())
    (row,) = _bench(tmp_path, replace(OURS, tolerance=255.0)).rows
    assert row.reason == ""
