"""Compares loaders on the same videos, clips, crops and colours, with the same cores (`cacl bench-loader`).

Files come from the page cache, into which the warm-up reads them.
"""

from __future__ import annotations

import logging
import os
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cacl.benchmarks.harness import machine
from cacl.benchmarks.harness.comparison import CHECK, Step, compare
from cacl.benchmarks.loader.contenders import BASELINE, contenders
from cacl.benchmarks.loader.run import LoaderContender, LoaderResult, LoaderRun, VideoSet
from cacl.benchmarks.loader.stages import Stages, time_stages
from cacl.benchmarks.rivals import loaders
from cacl.config import Config
from cacl.errors import CaclError, UsageError
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.scan import scan
from cacl.reporting.console import Console, log_catalog

log = logging.getLogger(__name__)

PACKAGES = ("cacl", "torch", "torchvision", "av", "pillow", "torchcodec", "decord2", "nvidia-dali-cuda130")
"""Packages whose versions a result names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderBenchmark:
    """The result of the benchmark. It names no folder and no machine."""

    rows: tuple[LoaderResult, ...]
    stages: dict[str, Stages]
    """The stages of `cacl cpu`, by kind of files."""
    files: dict[str, dict[str, Any]]
    """What the videos are like, by kind of files."""
    settings: dict[str, Any]
    machine: dict[str, Any]

    def check(self) -> None:
        """Tells whether the results count.

        Raises:
            CaclError: Our own loader was refused or failed.
        """
        for row in self.rows:
            if row.contender == BASELINE and row.reason:
                raise CaclError(f"{row.contender}, {row.files} videos: {row.reason}; no figure counts without it")

    def to_json(self) -> dict[str, Any]:
        """The result for programs."""
        return asdict(self)


def bench_loader(
    raw: Path,
    prepared: Path | None,
    config: Config,
    *,
    clips: int,
    repeats: int,
    console: Console,
    list_contenders: Callable[[Config], Sequence[LoaderContender]] = contenders,
) -> LoaderBenchmark:
    """Times loaders on the videos of one folder, and on the same videos as `cacl data prepare` made them.

    Args:
        raw: Folder of videos.
        prepared: The prepared set of the same videos, if that is to be measured too.
        config: What clips and batches are like.
        clips: Clips in a measurement, rounded down to whole batches of `train.batch_size`.
        repeats: Measurements of each loader, after a warm-up of as many clips.
        console: Shows the progress.
        list_contenders: Names the loaders to compare.

    Raises:
        UsageError: The folders do not hold the same videos, there are too few clips, or there are no repeats.
        DataError: Too many videos cannot be used, or the reference cannot load one.
    """
    batch_size = config.train.batch_size
    _check_usage(config, clips, repeats)
    sets = {
        files: VideoSet(files, catalog, config, clips // batch_size)
        for files, catalog in _catalogs(raw, prepared, config, console).items()
    }
    runs = [LoaderRun(each, sets[files]) for each in list_contenders(config) for files in each.files if files in sets]
    for run in runs:
        run.load_reference()
    compare(runs, repeats, _tell_progress(console))
    baseline_set = list(sets.values())[-1]  # Prepared videos, or raw ones where there are no others.
    baseline = next((run for run in runs if run.contender.name == BASELINE and run.videos is baseline_set), None)
    return LoaderBenchmark(
        rows=tuple(run.result(baseline) for run in runs),
        stages={files: time_stages(videos) for files, videos in sets.items()},
        files={files: _describe_videos(videos.catalog) for files, videos in sets.items()},
        settings={
            "clip": asdict(config.clip),
            "augment": asdict(config.augment),
            "seed": config.seed,
            "batch_size": batch_size,
            "clips": clips // batch_size * batch_size,
            "repeats": repeats,
            "threads": loaders.worker_count(config),
            "prefetch": config.loader.prefetch,
        },
        machine=machine.describe(PACKAGES)
        | {"gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None},
    )


def _check_usage(config: Config, clips: int, repeats: int) -> None:
    batch_size = config.train.batch_size
    if clips < batch_size:
        raise UsageError(
            f"--clips {clips}: a batch is {batch_size}; give at least as many, or set train.batch_size lower"
        )
    if repeats < 1:
        raise UsageError(f"--repeats {repeats}: give at least 1")
    if config.data.roots:
        raise UsageError("data.roots: loaders are compared on one folder, which the argument names; set it to []")
    if any(config.augment.resize) or config.augment.color_arithmetic != "linear":
        raise UsageError(
            "augment.resize and augment.color_arithmetic: the other loaders make only the views of the default"
        )


def _tell_progress(console: Console) -> Callable[[Step], None]:
    """Moves a progress bar, and logs where the warm-up and each repeat begin."""
    logged = {CHECK}

    def tell(step: Step) -> None:
        if step.phase not in logged:
            logged.add(step.phase)
            log.info(step.phase)
        console.progress("comparing loaders", step.done, step.total, f"{step.contender}, {step.phase}")

    return tell


def _catalogs(raw: Path, prepared: Path | None, config: Config, console: Console) -> dict[str, Catalog]:
    """Scans the folders, by kind of files. Their videos come in the same order, so that the same plans are drawn."""

    def scanned(root: Path) -> Catalog:
        data = replace(config.data, root=str(root))
        catalog = scan(data, min_frames=config.clip.min_frames, progress=partial(console.progress, "scanning"))
        log_catalog(catalog)
        catalog.check(data.max_rejected_share)
        return catalog

    source = scanned(raw)
    if prepared is None:
        return {"raw": source}
    target = scanned(prepared)
    originals = {f"videos/{video.path}.mp4": video for video in source.videos}
    expected = {path: video.frames for path, video in originals.items()}
    found = {video.path: video.frames for video in target.videos}
    if expected != found:
        differing = sorted(path for path, _ in expected.items() ^ found.items())
        raise UsageError(
            f"--prepared {prepared}: does not hold the videos of {raw} ({differing[0]} is not in both, or not of the "
            f"same length); make it with `cacl data prepare {raw} {prepared}`"
        )
    return {"raw": replace(source, videos=tuple(originals[path] for path in found)), "prepared": target}


def _describe_videos(catalog: Catalog) -> dict[str, Any]:
    videos = catalog.videos
    lengths = [video.frames for video in videos]
    return {
        "videos": len(videos),
        "bytes": sum(os.stat(catalog.location(video)).st_size for video in videos),
        "codecs": dict(Counter(video.codec for video in videos)),
        "sizes": dict(Counter(f"{video.width}x{video.height}" for video in videos).most_common(8)),
        "frames": {"total": sum(lengths), "median": statistics.median(lengths)},
        "frames_between_seek_points": statistics.mean(video.frames / len(video.decoding_starts()) for video in videos),
    }
