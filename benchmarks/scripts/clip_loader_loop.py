"""How fast is a short loop around `cacl.ClipLoader`, beside one around torch's DataLoader with PyAV?

    python benchmarks/scripts/clip_loader_loop.py RAW PREPARED > benchmarks/results/clip_loader_loop.json

RAW is what `make_corpus.py` made, and PREPARED what `cacl data prepare` made of it. Both loops are written as their
users would write them, for two views of 16 x 112 x 112 at stride 2: each draws clips of its own, with the same
augmentation. All loops have as many threads or workers as there are cores. They take turns, and ratios are taken within
a repeat. Before that, ClipLoader has to give the same clips when it is resumed, and on 2 and 3 ranks. A table goes to
stderr.

The videos have no key frame after the first, so that the DataLoader decodes from the start of the file, and a seek
would save nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision.transforms import v2

import cacl
from cacl.benchmarks.harness import machine
from cacl.benchmarks.harness.stats import Spread, median_ratio
from cacl.clips import ClipBatch
from cacl.loaders.sampling.augmentation import color_matrix

FRAMES, STRIDE, SIZE = 16, 2, 112
CROP = 0.875
"""The side of the square crop, as a share of the short side of the frame."""
BASELINE = "DataLoader, PyAV, ColorJitter, raw"
PACKAGES = ("cacl", "torch", "torchvision", "av", "numpy", "numba")


# --- The loop around ClipLoader ---


def clip_loader(root: Path, batch_size: int, rank: int = 0, world_size: int = 1) -> cacl.ClipLoader:
    """Makes the loader. Its augmentation is the default one."""
    return cacl.ClipLoader(
        root, frames=FRAMES, stride=STRIDE, size=SIZE, batch_size=batch_size, views=2, rank=rank, world_size=world_size
    )


def clip_loader_loop(loader: cacl.ClipLoader, steps: int) -> int:
    """Takes some batches, and returns the number of clips."""
    clips = 0
    for batch in loader.steps(0, steps):
        query, key = batch.views
        assert query.shape[1:] == key.shape[1:] == (3, FRAMES, SIZE, SIZE)
        clips += len(batch)
    return clips


# --- The loop around DataLoader ---


class Clips(Dataset[tuple[Tensor, Tensor]]):
    """Two views of a random clip of each file, float16 [3, T, H, W], with colours by `recolor`."""

    def __init__(self, root: Path, recolor: Callable[[Tensor], Tensor]) -> None:
        self.files = sorted(file for file in root.rglob("*") if file.suffix in (".avi", ".mp4"))
        self.recolor = recolor

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        images = random_clip(self.files[index])
        side = round(CROP * min(images.shape[2:]))
        crop = v2.Compose([v2.RandomCrop(side), v2.Resize((SIZE, SIZE)), v2.RandomHorizontalFlip()])
        return self.recolor(crop(images)), self.recolor(crop(images))


def random_clip(file: Path) -> Tensor:
    """Decodes a file up to the last frame of a random clip: uint8 [T, 3, H, W], channels last in memory."""
    span = (FRAMES - 1) * STRIDE + 1
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        start = random.randrange(stream.frames - span + 1)
        frames = islice(container.decode(stream), start, start + span, STRIDE)
        # By default PyAV has swscale start threads for each frame, which takes many times as long as the conversion.
        images = np.stack([frame.to_ndarray(format="rgb24", threads=1) for frame in frames])
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def color_jitter(images: Tensor) -> Tensor:
    """Draws and applies colours with torchvision: uint8 [T, 3, H, W] -> float16 [3, T, H, W]."""
    jitter = v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8)
    colors = v2.Compose([jitter, v2.RandomGrayscale(0.2), v2.ToDtype(torch.float16, scale=True)])
    return colors(images).transpose(0, 1)


def matrix_jitter(images: Tensor) -> Tensor:
    """Draws the same colours and applies them as one matrix: uint8 [T, 3, H, W] -> float16 [3, T, H, W]."""
    factors = {name: random.uniform(0.6, 1.4) for name in ("brightness", "contrast", "saturation")}
    factors = factors | {"hue": random.uniform(-0.1, 0.1)} if random.random() < 0.8 else {}
    if random.random() < 0.2:
        factors["saturation"] = 0.0
    matrix, planes = torch.from_numpy(color_matrix(**factors)), images.transpose(0, 1)
    mixed = torch.addmm(matrix[:, 3:], matrix[:, :3] / 255, planes.reshape(3, -1).float())
    return mixed.half().view(planes.shape)


def data_loader(dataset: Clips, batch_size: int, steps: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """Makes the loader. Its workers stay from one measurement to the next."""
    sampler = RandomSampler(dataset, num_samples=steps * batch_size)  # It draws anew when each file has come once.
    workers = os.cpu_count() or 1
    return DataLoader(dataset, batch_size, sampler=sampler, num_workers=workers, persistent_workers=True)


def data_loader_loop(loader: DataLoader[tuple[Tensor, Tensor]]) -> int:
    """Takes all batches, and returns the number of clips."""
    clips = 0
    for query, key in loader:
        assert query.shape[1:] == key.shape[1:] == (3, FRAMES, SIZE, SIZE)
        clips += len(query)
    return clips


# --- What ClipLoader promises ---


def contents(batches: Iterable[ClipBatch]) -> Iterator[tuple[int, int, str]]:
    """Yields the number of each clip, that of its video, and a digest of its order and of the pixels of its views."""
    for batch in batches:
        for row, (index, video) in enumerate(zip(batch.index.tolist(), batch.video.tolist(), strict=True)):
            parts = [part[row].numpy().tobytes() for part in (batch.order, *batch.views)]
            yield index, video, hashlib.sha256(b"".join(parts)).hexdigest()


def check(root: Path, batch_size: int) -> None:
    """Compares three batches with those of a loader that is resumed after the first, and with those of 2 and 3 ranks.

    Raises:
        SystemExit: They differ.
    """
    steps = 3
    whole = list(contents(clip_loader(root, batch_size).steps(0, steps)))
    stopped, resumed = clip_loader(root, batch_size), clip_loader(root, batch_size)
    parts = list(contents(islice(stopped, 1)))
    resumed.load_state_dict(stopped.state_dict())
    if parts + list(contents(islice(resumed, steps - 1))) != whole:
        sys.exit(f"{root}: a loader that is resumed gives other clips")
    for world_size in (2, 3):
        ranks = [clip_loader(root, batch_size, rank, world_size) for rank in range(world_size)]
        if sorted(clip for loader in ranks for clip in contents(loader.steps(0, steps))) != whole:
            sys.exit(f"{root}: {world_size} ranks give other clips than one")


# --- The measurement ---


class Measurement(NamedTuple):
    """What one loop took for all of its clips."""

    clips_per_second: float
    core_ms_per_clip: float | None
    """Processor time with that of worker processes, which other work on the same machine hardly changes."""


def measure(loop: Callable[[], int]) -> Measurement:
    """Runs a loop once."""
    before, start = machine.usage(), time.perf_counter()
    clips = loop()
    seconds, after = time.perf_counter() - start, machine.usage()
    core_seconds = after.since(before).processor_seconds if before and after else None
    return Measurement(clips / seconds, core_seconds and 1000 * core_seconds / clips)


def spread(values: Iterable[float | None]) -> dict[str, Any] | None:
    """The median, the range and each of some values; None where one of them is not known."""
    known = [value for value in values if value is not None]
    return asdict(Spread.of(known)) | {"each": known} if known else None


def compare(loops: dict[str, Callable[[], int]], repeats: int) -> dict[str, Any]:
    """Runs the loops in turn, once to warm up and then `repeats` times."""
    runs: dict[str, list[Measurement]] = {name: [] for name in loops}
    for repeat in range(repeats + 1):
        for name, loop in loops.items():
            measured = measure(loop)
            if repeat:
                runs[name].append(measured)
    rates = {name: [run.clips_per_second for run in each] for name, each in runs.items()}
    return {
        name: {
            "clips_per_second": spread(rates[name]),
            "core_ms_per_clip": spread(run.core_ms_per_clip for run in each),
            "ratio": median_ratio(rates[name], rates[BASELINE]),
        }
        for name, each in runs.items()
    }


def main() -> None:
    """Checks and measures, and prints JSON on stdout and a table on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("--clips", type=int, default=256, help="of a measurement, rounded down to whole batches")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    steps = given.clips // given.batch
    for root in (given.raw, given.prepared):
        check(root, given.batch)
    theirs = {BASELINE: color_jitter, "DataLoader, PyAV, colours as one matrix, raw": matrix_jitter}
    loops: dict[str, Callable[[], int]] = {
        name: partial(data_loader_loop, data_loader(Clips(given.raw, recolor), given.batch, steps))
        for name, recolor in theirs.items()
    }
    for files, root in (("raw", given.raw), ("prepared", given.prepared)):
        loops[f"ClipLoader, {files}"] = partial(clip_loader_loop, clip_loader(root, given.batch), steps)
    result = {
        "machine": machine.describe(PACKAGES),
        "settings": {"frames": FRAMES, "stride": STRIDE, "size": SIZE, "views": 2, "batch_size": given.batch}
        | {"clips": steps * given.batch, "repeats": given.repeats, "threads": os.cpu_count()},
        "loops": compare(loops, given.repeats),
    }
    for name, found in result["loops"].items():
        rate = found["clips_per_second"]
        line = f"{rate['median']:6.1f} clips/s ({rate['min']:.1f} to {rate['max']:.1f}), ratio {found['ratio']:.2f}"
        print(f"{name:45} {line}", file=sys.stderr)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
