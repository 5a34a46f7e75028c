"""Loaders side by side: the same videos, clips, crops and colours, the same cores, in turn (`cacl bench-loader`).

Files come from the page cache, into which the warm-up reads them.
"""

from __future__ import annotations

import json
import os
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cacl.benchmarks.harness import contest, machine
from cacl.benchmarks.harness.contest import Contender, Decodes, Figures, Row, Run, Stages, Videos, entries, stages
from cacl.benchmarks.harness.stats import machine_line, number, ratios, show_table, table
from cacl.benchmarks.rivals import loaders
from cacl.benchmarks.rivals.loaders import Rival
from cacl.config import Config
from cacl.errors import CaclError, UsageError
from cacl.loaders.backends import dali
from cacl.loaders.backends.select import Backend, build_backend
from cacl.loaders.backends.thread_pool import LoadClip, ThreadPoolBackend
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.scan import scan
from cacl.reporting import charts
from cacl.reporting.console import Console, log_catalog

BASELINE = "cacl cpu"
PACKAGES = ("cacl", "torch", "torchvision", "av", "pillow", "torchcodec", "decord2", "nvidia-dali-cuda130")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Names no folder and no machine."""

    rows: tuple[Row, ...]
    stages: dict[str, Stages]
    """Of `cacl cpu`; by kind of files, as the next."""
    files: dict[str, dict[str, Any]]
    settings: dict[str, Any]
    machine: dict[str, Any]

    def check(self) -> None:
        """Raises CaclError if a loader of ours was refused."""
        for row in self.rows:
            if row.loader == BASELINE and row.reason:
                raise CaclError(f"{row.loader}, {row.files} videos: {row.reason}; no figure counts without it")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def contenders(config: Config) -> list[Contender]:
    """Ours, the ceiling of `cpu`, and the rivals."""
    cuda = torch.device("cuda")
    decoders: list[tuple[str, loaders.Decode, Decodes, str]] = [
        ("PyAV", loaders.pyav_frames, "stretch", ""),
        ("TorchCodec", loaders.torchcodec_frames, "unknown", loaders.unavailable_reason("torchcodec", "torchcodec")),
        ("decord2", loaders.decord_frames, "unknown", loaders.unavailable_reason("decord", "decord2")),
    ]
    return [
        Contender(
            name=BASELINE,
            how="threads; the planes of the decoder to views by one matrix",
            build=partial(_backend, "cpu", torch.device("cpu")),
        ),
        Contender(
            name="cpu, decode only",
            how="the same up to the decoder: the frames are dropped",
            build=partial(_part_of_host, contest.decode_only),
            tolerance=None,
        ),
        Contender(
            name="cpu, planes only",
            how="the same without views: what decoding costs whoever looks at the pixels",
            build=partial(_part_of_host, contest.planes_only),
            tolerance=None,
        ),
        Contender(
            name="cacl dali",
            how="NVDEC, and views on the GPU",
            build=partial(_backend, "dali", cuda),
            decodes="unknown",
            unavailable_reason=dali.unavailable_reason(cuda) or "",
        ),
        *(
            Contender(
                name=f"{name} + DataLoader",
                how="tuned: needed frames, torchvision v2 on bytes, the colours of a view in one product",
                build=partial(Rival, partial(loaders.tuned, decode)),
                decodes=decodes,
                unavailable_reason=unavailable_reason,
            )
            for name, decode, decodes, unavailable_reason in decoders
        ),
        Contender(
            name="PyAV + ColorJitter",
            how="the same with torchvision's ColorJitter and RandomGrayscale, in a DataLoader",
            build=partial(Rival, partial(loaders.usual, loaders.pyav_frames)),
            own_colors=True,
        ),
        Contender(
            name="authors' way",
            how="the whole file to PIL images, these one by one to four stacks, in a DataLoader",
            build=partial(Rival, loaders.authors),
            files=("raw",),
            decodes="file",
        ),
    ]


def _backend(name: str, device: torch.device, catalog: Catalog, config: Config) -> Backend:
    return build_backend(name, catalog, config, device)


def _part_of_host(load_clip: LoadClip, catalog: Catalog, config: Config) -> Backend:
    threads, prefetch = loaders.cores(config), config.loader.prefetch
    return ThreadPoolBackend(load_clip, catalog, size=config.clip.size, threads=threads, prefetch=prefetch)


def bench_loader(
    raw: Path,
    prepared: Path | None,
    config: Config,
    *,
    clips: int,
    repeats: int,
    report: Console,
    entrants: Callable[[Config], Sequence[Contender]] = contenders,
) -> Result:
    """Times loaders on the videos under `raw`, and on the same ones as `cacl data prepare` made them.

    Each delivers `clips` clips in whole batches of `train.batch_size`: once to warm up, then in each of the repeats, in turn
    with the others.

    Raises UsageError if the folders do not hold the same videos or there are too few clips, DataError for bad videos.
    """
    batch = config.train.batch_size
    if clips < batch:
        raise UsageError(f"--clips {clips}: a batch is {batch}; give at least so many, or set train.batch_size lower")
    if repeats < 1:
        raise UsageError(f"--repeats {repeats}: give at least 1")
    if any(config.augment.resize) or config.augment.arithmetic != "linear":
        raise UsageError("augment.resize and augment.arithmetic: the other loaders make only the views of the default")
    kinds = {
        files: Videos(files, catalog, config, clips // batch)
        for files, catalog in _catalogs(raw, prepared, config, report).items()
    }
    runs = [Run(entrant, kinds[files]) for entrant in entrants(config) for files in entrant.files if files in kinds]
    for done, run in enumerate(runs):
        report.progress("checking", done, len(runs), run.row.loader)
        run.check()
    for repeat in range(repeats + 1):
        report.say(f"repeat {repeat} of {repeats}" if repeat else "warm-up")
        for done, run in enumerate(runs, repeat * len(runs)):
            report.progress("measuring", done, (repeats + 1) * len(runs), run.row.loader)
            run.measure()
    return Result(
        rows=_compared([run.finish() for run in runs], list(kinds)[-1]),
        stages={files: stages(videos) for files, videos in kinds.items()},
        files={files: _about(videos.catalog) for files, videos in kinds.items()},
        settings={
            "clip": asdict(config.clip),
            "augment": asdict(config.augment),
            "seed": config.seed,
            "batch": batch,
            "clips": clips // batch * batch,
            "repeats": repeats,
            "threads": loaders.cores(config),
            "prefetch": config.loader.prefetch,
        },
        machine=machine.describe(PACKAGES)
        | {"gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None},
    )


def _catalogs(raw: Path, prepared: Path | None, config: Config, report: Console) -> dict[str, Catalog]:
    """By kind of files; the same videos in the same order, so that the same plans are drawn."""

    def opened(root: Path) -> Catalog:
        data = replace(config.data, root=str(root))
        catalog = scan(data, min_frames=config.clip.min_frames, progress=partial(report.progress, "scanning"))
        log_catalog(catalog)
        catalog.check(data.max_rejected)
        return catalog

    source = opened(raw)
    if prepared is None:
        return {"raw": source}
    target = opened(prepared)
    originals = {f"videos/{video.path}.mp4": video for video in source.videos}
    wanted = {path: video.frames for path, video in originals.items()}
    found = {video.path: video.frames for video in target.videos}
    if wanted != found:
        differing = sorted(path for path, _ in wanted.items() ^ found.items())
        raise UsageError(
            f"--prepared {prepared}: does not hold the videos of {raw} ({differing[0]} is not in both, or not of the "
            f"same length); make it with `cacl data prepare {raw} {prepared}`"
        )
    return {"raw": replace(source, videos=tuple(originals[path] for path in found)), "prepared": target}


def _about(catalog: Catalog) -> dict[str, Any]:
    videos = catalog.videos
    lengths = [video.frames for video in videos]
    return {
        "videos": len(videos),
        "bytes": sum(os.stat(catalog.location(video)).st_size for video in videos),
        "codecs": dict(Counter(video.codec for video in videos)),
        "sizes": dict(Counter(f"{video.width}x{video.height}" for video in videos).most_common(8)),
        "frames": {"total": sum(lengths), "median": statistics.median(lengths)},
        "frames_from_entry_to_entry": statistics.mean(video.frames / len(entries(video)) for video in videos),
    }


def _compared(rows: Sequence[Row], files: str) -> tuple[Row, ...]:
    """With ratios to our own on these files, if that has figures."""
    ours = next((row.figures for row in rows if (row.loader, row.files) == (BASELINE, files)), None)
    for row in rows:
        if ours and row.figures:
            row.ratio = statistics.median(ratios(row.figures.each_clips_per_second, ours.each_clips_per_second))
    return tuple(rows)


# --- For people


COLUMNS: dict[str, Callable[[Figures], str]] = {
    "clips/s": lambda figures: number(figures.clips_per_second.median),
    "min..max": lambda figures: f"{number(figures.clips_per_second.min)}..{number(figures.clips_per_second.max)}",
    "decoded\nframes/s": lambda figures: number(figures.decoded_frames_per_second),
    "cores": lambda figures: number(figures.cores),
    "core ms\nper clip": lambda figures: number(figures.core_ms_per_clip),
    "first\nbatch s": lambda figures: number(figures.first_batch_seconds),
    "wait for a\nbatch p50 ms": lambda figures: number(figures.wait_ms_p50),
    "\np99 ms": lambda figures: number(figures.wait_ms_p99),
    "KiB read\nper clip": lambda figures: number(figures.bytes_read_per_clip and figures.bytes_read_per_clip / 1024),
}


def show(result: Result) -> None:
    """The figures, on stdout."""
    shown = table()
    for name in ("loader", "files", "ratio", *COLUMNS):
        shown.add_column(name, justify="left" if name in ("loader", "files") else "right", no_wrap=True)
    for row in result.rows:
        cells = [number(row.ratio), *(cell(row.figures) for cell in COLUMNS.values())] if row.figures else ["-"]
        shown.add_row(row.loader, row.files, *cells)
    show_table(shown)
    for loader, how in {row.loader: row.how for row in result.rows}.items():
        print(f"{loader}: {how}")
    for row in result.rows:
        if row.reason:
            print(f"{row.loader}, {row.files}: {row.reason}")
    dropped = sum(row.figures.dropped_clips for row in result.rows if row.figures)
    print(f"{dropped} clips dropped")
    for files, stages_ms in result.stages.items():
        parts = ", ".join(f"{name} {number(ms)}" for name, ms in asdict(stages_ms).items() if ms is not None)
        print(f"{BASELINE}, {files}, ms per clip in one thread: {parts}")
    for line in (*_files(result), *_setting(result), _machine(result)):
        print(line)


def save(result: Result, folder: Path) -> None:
    """Writes bench_loader.json and, for people, bench_loader.png."""
    kinds = list(result.files)
    bars = []
    for row in result.rows:
        if row.reason.startswith("skipped"):
            continue
        values = asdict(row.figures.clips_per_second) if row.figures else {}
        bars.append(charts.Bar(row.loader, kinds.index(row.files), **values, note=row.reason))
    (folder / "bench_loader.json").write_text(json.dumps(result.to_json(), indent=2) + "\n")
    charts.draw(
        folder / "bench_loader.png",
        title="Clips per second, ready to train on",
        subtitle=_setting(result),
        series=_files(result),
        bars=bars,
        footnotes=[_machine(result)],
    )


def _files(result: Result) -> list[str]:
    return [
        f"{files}: {about['videos']} videos, {', '.join(about['codecs'])}, {', '.join(about['sizes'])}, "
        f"{about['bytes'] / about['videos'] / 1024:.0f} KiB and {about['frames']['median']:.0f} frames each, "
        f"decoding can begin every {about['frames_from_entry_to_entry']:.0f} frames"
        for files, about in result.files.items()
    ]


def _setting(result: Result) -> list[str]:
    settings, clip = result.settings, result.settings["clip"]
    return [
        f"two views of {clip['frames']} frames of {clip['size']} x {clip['size']} in batches of {settings['batch']}; "
        f"{settings['threads']} threads or workers",
        f"median of {settings['repeats']} repeats in turn, each of {settings['clips']} clips; the range is from the "
        "slowest to the fastest",
    ]


def _machine(result: Result) -> str:
    return machine_line(result.machine, PACKAGES[1:])
