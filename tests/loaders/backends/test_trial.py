"""What `auto` makes of a decoder that shows other pictures, is slow, raises, or gives nothing."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cacl
from cacl.clips import ViewPlan
from cacl.config import AugmentConfig, Config, DataConfig, LoaderConfig
from cacl.loaders import clip_loader
from cacl.loaders.backends import dali, trial, trial_memory
from cacl.loaders.backends.select import Choice, choose_backend
from cacl.loaders.backends.trial import ClipErrors, Comparison, compare, decide, view_errors
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.sampling.sampler import ClipSampler
from tests.loaders.backends import trials
from tests.loaders.backends.clips import CPU, catalog, save
from tests.loaders.backends.trials import CLIP, Clock, StandIn, WithoutVideo, later_by, try_beside_cpu

DRIVER = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (root@host)\n"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the trial, by which `cpu` takes 0.2 seconds for each batch."""
    clock = Clock()
    monkeypatch.setattr(trial, "perf_counter", clock)
    monkeypatch.setattr(trial, "ROUND_BATCHES", 4)
    real = trials.cpu_backend

    def timed(videos: Catalog) -> Any:
        backend = real(videos)
        load = backend.batches

        def batches(plans: Any) -> Any:
            for batch in load(plans):
                clock.now += 0.2
                yield batch

        backend.batches = batches
        return backend

    monkeypatch.setattr(trials, "cpu_backend", timed)
    return clock


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """A video whose neighbouring frames differ by less than another interpolation of chroma may make."""
    rng = np.random.default_rng(0)
    still = 0.4 + 0.2 * rng.uniform(size=(24, 32)).repeat(4, 0).repeat(4, 1) + np.array([0, 0.05, 0.1])[:, None, None]
    frames = np.stack([still + rng.normal(0, 0.012, still.shape[1:]) for _ in range(40)])
    return catalog(save(tmp_path_factory.mktemp("quiet") / "quiet.mp4", frames))


# ---------------------------------------------------------------------------------------------- what is right, and fast


@pytest.mark.parametrize("name", ["videos", "quiet"])
def test_a_right_and_faster_one_is_taken(clock: Clock, name: str, request: pytest.FixtureRequest) -> None:
    videos = request.getfixturevalue(name)
    comparison = try_beside_cpu(videos, StandIn(videos, clock))
    assert len(comparison.clips) == 8
    assert (comparison.dali_rate, comparison.cpu_rate) == pytest.approx((40, 20))
    assert decide(comparison) == ("dali", 'it shows the same frames as "cpu" and is faster: 40 clips/s against 20')


def test_a_slow_one_is_not_taken_and_not_waited_for(videos: Catalog, clock: Clock) -> None:
    slow = StandIn(videos, clock, seconds=5)
    name, reason = decide(try_beside_cpu(videos, slow))
    assert (name, reason) == ("cpu", '"dali" shows the same frames, and is not faster: 1 clips/s against 20')
    assert slow.delivered == 2 + trial.ROUNDS, "one batch of each round is enough to know"


def test_the_twin_of_dali_on_the_cpu_is_right(videos: Catalog) -> None:
    pytest.importorskip("nvidia.dali")
    backend = dali.DaliBackend(videos, size=CLIP.size, threads=2, prefetch=1, pipelines=2, device=CPU)
    sampler = ClipSampler(videos.videos, CLIP, AugmentConfig(), seed=3)
    plans = list(sampler.batches(0, 2, 4))
    clips, failures = compare(backend.batches(plans), trials.cpu_backend(videos), plans, videos)
    assert (len(clips), failures) == (8, ())
    assert max(clip.color for clip in clips) < trial.MAX_COLOR_ERROR
    assert max(clip.frame for clip in clips) == 0


def test_errors_count_in_the_colours_of_the_video() -> None:
    """A view that triples the contrast triples what a decoder rounds, too."""
    color = np.hstack([3 * np.eye(3), np.zeros((3, 1))]).astype(np.float32)
    view = ViewPlan(top=0, left=0, side=8, flip=False, color=color)
    frames = torch.rand(3, 7, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    errors = view_errors(frames[:, ::2] + 3 * 2 / 255, frames, 2, view)
    assert errors == pytest.approx((2, 0), abs=1e-4)


# ------------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize("name", ["videos", "quiet"])
@pytest.mark.parametrize(
    "lie",
    [
        {"plan": later_by(1)},
        {"plan": later_by(5)},
        {"view": trials.frozen},
        {"view": trials.one_frame_twice},
        {"view": trials.two_frames_swapped},
    ],
    ids=["next frame", "another start", "frozen", "one frame twice", "two frames swapped"],
)
def test_other_frames_are_noticed(clock: Clock, name: str, lie: dict[str, Any], request: pytest.FixtureRequest) -> None:
    videos = request.getfixturevalue(name)
    comparison = try_beside_cpu(videos, StandIn(videos, clock, **lie))
    choice = decide(comparison)
    assert choice.name == "cpu"
    assert ".mp4" in choice.reason
    assert all(clip.frame > trial.MAX_FRAME_ERROR for clip in comparison.clips)
    if name == "quiet":
        assert max(clip.color for clip in comparison.clips) < trial.MAX_COLOR_ERROR, "only the search can notice it"
        assert choice.reason.startswith('"dali" shows other frames of ')


@pytest.mark.parametrize("view", [trials.blue_for_red, trials.not_a_number, torch.zeros_like, lambda v: v + 5 / 255])
def test_other_colors_are_noticed(videos: Catalog, clock: Clock, view: Any) -> None:
    name, reason = decide(try_beside_cpu(videos, StandIn(videos, clock, view=view)))
    assert name == "cpu"
    assert reason.startswith('"dali" shows other pictures of ')


@pytest.mark.parametrize("batch", [0, 1, 4])
def test_an_error_is_the_reason(videos: Catalog, clock: Clock, batch: int) -> None:
    choice = decide(try_beside_cpu(videos, StandIn(videos, clock, fails_at=batch)))
    assert choice == ("cpu", '"dali" fails here: CUDA error 801')


@pytest.mark.parametrize("says_so", [True, False])
def test_a_file_of_which_nothing_comes_is_named(videos: Catalog, clock: Clock, says_so: bool) -> None:
    name, reason = decide(try_beside_cpu(videos, WithoutVideo(StandIn(videos, clock), 1, says_so=says_so)))
    said = "file: NVDEC gave nothing" if says_so else f"{videos.videos[1].path}: its clip is missing"
    assert (name, reason) == ("cpu", f'"dali" does not load what "cpu" loads: {said}')


def test_what_cpu_cannot_load_either_is_left_out(videos: Catalog, clock: Clock, tmp_path: Path) -> None:
    gone = replace(videos, videos=(videos.videos[0], replace(videos.videos[1], path=str(tmp_path / "gone.mp4"))))
    assert decide(try_beside_cpu(gone, StandIn(gone, clock))).name == "dali"
    nothing = replace(gone, videos=gone.videos[1:])
    assert "none of the first clips loads" in decide(try_beside_cpu(nothing, StandIn(nothing, clock))).reason


def test_the_bounds_are_the_bounds() -> None:
    def choice(color: float = 0, frame: float = 0, rate: float = 2) -> str:
        return decide(Comparison("", (ClipErrors("a", 0, 0), ClipErrors("b", color, frame)), (), rate, 1)).name

    assert choice(trial.MAX_COLOR_ERROR, trial.MAX_FRAME_ERROR) == "dali"
    assert choice(color=trial.MAX_COLOR_ERROR + 0.01) == choice(frame=trial.MAX_FRAME_ERROR + 0.01) == "cpu"
    assert choice(rate=1) == "cpu"


# ------------------------------------------------------------------------------------------------- what is remembered


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    (tmp_path / "version").write_text(DRIVER.format("570.86.15"))
    monkeypatch.setattr(trial_memory, "DRIVER_VERSION_FILE", tmp_path / "version")
    return Config(clip=CLIP, data=DataConfig(cache=str(tmp_path / "cache")), loader=LoaderConfig(threads=2))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Choice]:
    """The choices that a trial will make. It takes one each time that it is measured."""
    choices: list[Choice] = []
    monkeypatch.setattr(trial, "measure", lambda *_: None)
    monkeypatch.setattr(trial, "decide", lambda _: choices.pop(0))
    return choices


def choose(videos: Catalog, config: Config, **other: int) -> Choice:
    return trial.choose(videos, config, CPU, **({"views": 2, "batch_size": 4, "world_size": 1} | other))


def test_a_second_start_does_not_measure(videos: Catalog, config: Config, measured: list[Choice]) -> None:
    measured += [Choice("dali", "it is faster")]
    assert choose(videos, config) == ("dali", "it is faster")
    name, reason = choose(videos, replace(config, seed=7))
    assert name == "dali"
    (file,) = Path(config.data.cache).iterdir()
    assert reason == f"it is faster (measured before; to measure again, delete {file})"
    assert json.loads(file.read_text())["holds_for"]["driver"] == "570.86.15"


def test_anything_else_that_it_depends_on_is_measured(
    videos: Catalog, config: Config, measured: list[Choice], monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[Callable[[], Choice]] = [
        lambda: choose(videos, config),
        lambda: choose(videos, config, views=1),
        lambda: choose(videos, config, batch_size=8),
        lambda: choose(replace(videos, videos=videos.videos[:2]), config),
        lambda: choose(videos, replace(config, clip=replace(CLIP, stride=3))),
        lambda: choose(videos, replace(config, augment=replace(config.augment, flip_prob=0.0))),
        lambda: choose(videos, replace(config, loader=replace(config.loader, threads=1))),
    ]
    for number, start in enumerate(starts):
        measured += [Choice("cpu", str(number))]
        assert start() == ("cpu", str(number))
        assert start().reason.startswith(f"{number} (measured before;")
    for name in ("driver_version", "dali_version"):
        monkeypatch.setattr(trial_memory, name, lambda: "2.5")
        measured += [Choice("cpu", name)]
        assert starts[0]() == ("cpu", name)
    assert not measured


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: "{",
        lambda text: "[]",
        lambda text: '{"backend": "dali"}',
        lambda text: text.replace('"dali"', '"gpu"'),
        lambda text: text.replace('"driver": "', '"driver": "1'),
    ],
    ids=["empty", "cut off", "list", "a part", "another backend", "another driver"],
)
def test_a_damaged_file_is_ignored_and_named(
    videos: Catalog,
    config: Config,
    measured: list[Choice],
    damage: Callable[[str], str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    measured += [Choice("dali", "first"), Choice("cpu", "second")]
    choose(videos, config)
    (file,) = Path(config.data.cache).iterdir()
    text = file.read_text()
    assert damage(text) != text
    file.write_text(damage(text))
    assert choose(videos, config) == ("cpu", "second")
    assert [record.message.partition(":")[0] for record in caplog.records if record.levelno == logging.WARNING] == [
        str(file)
    ]
    assert choose(videos, config).reason.startswith("second (measured before;")


def test_nothing_is_kept_where_the_driver_has_no_version_or_the_folder_is_none(
    videos: Catalog, config: Config, measured: list[Choice], tmp_path: Path
) -> None:
    measured += [Choice("cpu", "first"), Choice("cpu", "second"), Choice("cpu", "third")]
    (tmp_path / "cache").touch()
    assert choose(videos, config).reason == "first"
    (tmp_path / "version").unlink()
    (tmp_path / "cache").unlink()
    assert choose(videos, config).reason == "second"
    assert choose(videos, config).reason == "third"
    assert not (tmp_path / "cache").exists()


# ------------------------------------------------------------------------------------------------------ who asks for it


def test_auto_leaves_it_to_a_trial_where_both_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dali, "unavailable_reason", lambda device: None)
    cuda = torch.device("cuda")
    assert choose_backend(LoaderConfig(), cuda) is None
    for name in ("cpu", "dali", "reference"):
        named = LoaderConfig(backend=name)  # pyright: ignore[reportArgumentType]
        assert choose_backend(named, cuda) == (name, "as configured")


def test_a_loader_tries_and_says_what_came_of_it(
    videos: Catalog, config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The real backends are tried on the CPU, where DALI makes the views of frames that PyAV decoded."""
    pytest.importorskip("nvidia.dali")
    monkeypatch.setattr(trial, "ROUND_BATCHES", 2)
    monkeypatch.setattr(clip_loader, "choose_backend", lambda *_: None)
    for remembered in (False, True):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            loader = cacl.ClipLoader.from_config(config, catalog=videos, batch_size=4, split=None)
            (batch,) = loader.steps(0, 1)
        assert len(batch) == 4
        assert "the same frames" in loader.choice.reason
        assert ("measured before" in loader.choice.reason) == remembered
        said = [record.message for record in caplog.records if record.message.startswith("loader: ")]
        assert said[-1] == f"loader: {loader.choice.name}, {loader.choice.reason}"
        assert len(said) == 1 + (not remembered)


def test_what_dali_refuses_is_the_reason(videos: Catalog, config: Config) -> None:
    pytest.importorskip("nvidia.dali")
    official = replace(config, augment=replace(config.augment, color_arithmetic="pillow", color_jitter_prob=1.0))
    name, reason = choose(videos, official)
    assert name == "cpu"
    assert "augment.color_arithmetic" in reason
