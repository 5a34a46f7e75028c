"""Does the loader hold still over a long run, and does a large set open at once?

    python benchmarks/scripts/soak.py PREPARED > benchmarks/results/soak.json

PREPARED is a set that `cacl data prepare` made. An index of a million of its videos is written, opened, and asked for
plans. After that, the videos are linked into a set of 10,000, from which `cacl.ClipLoader` takes 20,000 clips while
memory, descriptors and threads are counted. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import threading
import time
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from cacl import ClipLoader
from cacl.benchmarks.harness import machine
from cacl.config import DataConfig
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.index_writer import IndexWriter, PreparedVideo
from cacl.loaders.catalog.layouts.listing import VideoEntry
from cacl.loaders.catalog.prepared_files import INDEX_NAME
from cacl.loaders.catalog.scan import scan

VIDEOS, CLIPS, BATCH = 10_000, 20_000, 32
SETTLED = 5_000
"""Clips after which memory must not grow any more."""
MILLION = 1_000_000
PACKAGES = ("cacl", "torch", "av", "numpy", "safetensors")


def resident_mib() -> float:
    """The resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def descriptor_count() -> int:
    """The open file descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def write_multiplied_set(source: Catalog, folder: Path, count: int, *, link: bool) -> None:
    """Writes an index of `count` videos, which are those of the source again and again under names of their own."""
    videos = [(video, source.location(video)) for video in source.videos]
    (folder / "videos").mkdir(parents=True)
    writer = IndexWriter(folder)
    for number, (video, file) in zip(range(count), cycle(videos), strict=False):
        name = f"{video.label}/{number:07}.avi"
        path = f"videos/{number:07}.mp4"
        entry = VideoEntry(name, video.label, "train")
        size = int(video.fragments.offsets[-1]) if video.fragments else 0
        writer.add(
            PreparedVideo(
                video=replace(video, path=path), entry=entry, splits={1: "train"}, size=size, source=video.content_hash
            )
        )
        if link:
            os.link(file, folder / path)
    writer.save({"layout": "classes", "rejected": [], "missing": []})


def soak(folder: Path) -> dict[str, Any]:
    """Loads CLIPS clips, and looks at the process every 25 batches."""
    loader = ClipLoader(folder, batch_size=BATCH, backend="cpu")
    seen = torch.zeros(len(loader.catalog.videos), dtype=torch.int64)
    samples: list[dict[str, float]] = []
    started, clips = time.monotonic(), 0
    for batch in loader.steps(0, CLIPS // BATCH):
        seen += torch.bincount(batch.video, minlength=len(seen))
        clips += len(batch.index)
        if clips % (BATCH * 25) == 0:
            samples.append(
                {
                    "clips": clips,
                    "resident_mib": resident_mib(),
                    "descriptors": descriptor_count(),
                    "threads": threading.active_count(),
                    "seconds": time.monotonic() - started,
                }
            )
            print(samples[-1], file=sys.stderr)
    settled = [sample for sample in samples if sample["clips"] >= SETTLED]
    return {
        "videos": len(loader.catalog.videos),
        "clips": clips,
        "clips_per_video": sorted(set(seen.tolist())),
        "growth_after_settling": settled[-1]["resident_mib"] / settled[0]["resident_mib"] - 1,
        "samples": samples,
    }


def million(source: Catalog, folder: Path) -> dict[str, Any]:
    """Writes and opens an index of MILLION videos, and plans the first clips of it."""
    write_multiplied_set(source, folder, MILLION, link=False)
    gc.collect()
    before = resident_mib()
    started = time.monotonic()
    loader = ClipLoader(folder, batch_size=1024, backend="cpu")
    fingerprint, opened = loader.catalog.fingerprint, time.monotonic()
    plans = next(loader.sampler.batches(0, 1, loader.batch_size))
    planned = time.monotonic()
    return {
        "videos": len(loader.catalog.videos),
        "index_mib": (folder / INDEX_NAME).stat().st_size / 2**20,
        "fingerprint": fingerprint[:16],
        "seconds_to_open": opened - started,
        "seconds_to_first_plans": planned - opened,
        "plans": len(plans),
        "resident_mib_grown": resident_mib() - before,
    }


def main() -> None:
    """Runs both parts, and prints JSON on stdout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path)
    source = scan(DataConfig(root=str(parser.parse_args().prepared.absolute())))
    with tempfile.TemporaryDirectory(dir=source.root, prefix=".soak") as folder:  # Links need the same file system.
        large = million(source, Path(folder) / "million")
        print(large, file=sys.stderr)
        write_multiplied_set(source, Path(folder) / "many", VIDEOS, link=True)
        result = {"machine": machine.describe(PACKAGES), "million": large, "soak": soak(Path(folder) / "many")}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
