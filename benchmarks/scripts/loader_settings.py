"""Which groups of pictures, decoding threads and prefetched batches load prepared videos fastest on this machine?

    python benchmarks/scripts/loader_settings.py VIDEOS > benchmarks/results/loader_settings.json

VIDEOS is a folder of videos, which is prepared once for each length of a group of pictures (`cacl data prepare --gop`),
in the folder for temporary files. `cacl.ClipLoader` then loads the same clips by its `cpu` backend, with each
combination of these lengths, of `loader.threads` and of `loader.prefetch`. They take turns, and ratios to the defaults
are taken within a repeat. JSON goes to stdout, and a table to stderr. All of it takes two minutes on two cores, which
should have nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import deque
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import cacl
from cacl.benchmarks.harness import machine
from cacl.benchmarks.harness.stats import Spread, ratios
from cacl.config import Config, DataConfig, LoaderConfig, from_dict
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.scan import scan
from cacl.loaders.prepared.prepare import prepare
from cacl.loaders.prepared.transcode import TranscodeSettings

CORES = os.cpu_count() or 1
PACKAGES = ("cacl", "torch", "av", "numpy", "numba")


class Settings(NamedTuple):
    """What is searched."""

    gop: int
    """The number of frames from one key frame to the next."""
    threads: int
    prefetch: int


DEFAULTS = Settings(TranscodeSettings().gop, CORES, LoaderConfig().prefetch)


class Measurement(NamedTuple):
    """What loading all clips once took."""

    clips_per_second: float
    core_ms_per_clip: float | None
    """Processor time, which other work on the same machine hardly changes."""


def prepare_sets(videos: Path, folder: Path, gops: list[int]) -> dict[int, Catalog]:
    """Prepares the videos once for each length of a group of pictures."""
    cache = str(folder / "cache")
    sets: dict[int, Catalog] = {}
    for gop in gops:
        target = folder / f"gop_{gop}"
        source = DataConfig(root=str(videos.absolute()), cache=cache)
        prepare(source, target, TranscodeSettings(gop=gop), workers=0, progress=lambda *_: None)
        sets[gop] = scan(DataConfig(root=str(target), cache=cache))
    return sets


def size_in_bytes(catalog: Catalog) -> int:
    """The size of all videos of a set."""
    return sum(os.path.getsize(catalog.location(video)) for video in catalog.videos)


def configure(settings: Settings) -> Config:
    """The configuration of a loader with these settings."""
    return from_dict({"loader": {"backend": "cpu", "threads": settings.threads, "prefetch": settings.prefetch}})


def measure(catalog: Catalog, settings: Settings, batch_size: int, steps: int) -> Measurement:
    """Loads the same clips as with any other settings."""
    loader = cacl.ClipLoader.from_config(configure(settings), catalog=catalog, batch_size=batch_size, split=None)
    deque(loader.steps(0, settings.prefetch + 2), maxlen=0)  # Its memory is there, and the files are in the page cache.
    before, start = machine.usage(), time.perf_counter()
    clips = sum(len(batch) for batch in loader.steps(0, steps))
    seconds, after = time.perf_counter() - start, machine.usage()
    core_seconds = after.since(before).processor_seconds if before and after else None
    return Measurement(clips / seconds, core_seconds and 1000 * core_seconds / clips)


def search(
    sets: dict[int, Catalog], grid: list[Settings], batch_size: int, steps: int, repeats: int
) -> list[dict[str, Any]]:
    """Measures all settings in turn, `repeats` times."""
    runs: dict[Settings, list[Measurement]] = {settings: [] for settings in grid}
    for _ in range(repeats):
        for settings in grid:
            runs[settings].append(measure(sets[settings.gop], settings, batch_size, steps))
    rates = {settings: [run.clips_per_second for run in each] for settings, each in runs.items()}
    return [
        settings._asdict()
        | {
            "clips_per_second": asdict(Spread.of(rates[settings])),
            "core_ms_per_clip": spread([run.core_ms_per_clip for run in each]),
            "ratio_to_defaults": asdict(Spread.of(ratios(rates[settings], rates[DEFAULTS]))),
        }
        for settings, each in runs.items()
    ]


def spread(values: list[float | None]) -> dict[str, float] | None:
    """The median and the range of some values; None where the system does not tell them."""
    known = [value for value in values if value is not None]
    return asdict(Spread.of(known)) if known else None


def show(rows: list[dict[str, Any]], megabytes: dict[int, float]) -> None:
    """Prints a table on stderr."""
    print(" GOP     MB  threads  prefetch  clips/s, median and range     to the defaults", file=sys.stderr)
    for row in rows:
        rate, ratio = row["clips_per_second"], row["ratio_to_defaults"]
        print(
            f"{row['gop']:4} {megabytes[row['gop']]:6.1f} {row['threads']:8} {row['prefetch']:9} "
            f"{rate['median']:8.1f} ({rate['min']:.1f} to {rate['max']:.1f})".ljust(60)
            + f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})",
            file=sys.stderr,
        )


def main() -> None:
    """Prepares and measures, and prints JSON on stdout and a table on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("--gops", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--threads", type=int, nargs="+", default=[max(1, CORES // 2), CORES, 2 * CORES])
    parser.add_argument("--prefetch", type=int, nargs="+", default=[1, 3, 6])
    parser.add_argument("--clips", type=int, default=192, help="of a measurement, rounded down to whole batches")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    searched = [Settings(*each) for each in product(given.gops, given.threads, given.prefetch)]
    grid = list(dict.fromkeys([DEFAULTS, *searched]))
    steps = given.clips // given.batch
    with tempfile.TemporaryDirectory() as folder:
        sets = prepare_sets(given.videos, Path(folder), sorted({settings.gop for settings in grid}))
        sizes = {gop: size_in_bytes(catalog) for gop, catalog in sets.items()}
        rows = search(sets, grid, given.batch, steps, given.repeats)
    result = {
        "machine": machine.describe(PACKAGES),
        "settings": {"batch_size": given.batch, "clips": steps * given.batch, "repeats": given.repeats},
        "bytes_by_gop": sizes,
        "rows": rows,
    }
    show(rows, {gop: size / 1e6 for gop, size in sizes.items()})
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
