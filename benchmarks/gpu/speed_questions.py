"""The questions how fast the loader is on a GPU, and how much memory it takes."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from itertools import cycle, islice
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from cacl import create_model
from cacl.benchmarks.gpu.environment import (
    MAX_SECONDS,
    Answer,
    CachedClips,
    Environment,
    SkippedError,
    UploadedFrames,
    answer_or_error,
)
from cacl.benchmarks.gpu.measuring import build_graph, measure_pace, median_ms
from cacl.benchmarks.gpu.videos import encode, textures
from cacl.benchmarks.harness.stats import ratios
from cacl.benchmarks.loader.command import bench_loader
from cacl.benchmarks.loader.contenders import contenders
from cacl.benchmarks.loader.run import LoaderContender
from cacl.clips import ClipBatch
from cacl.config import Config
from cacl.loaders.backends.dali_sources import DecodedFrames, EncodedSegments
from cacl.loaders.backends.dali_views import Node
from cacl.reporting.console import Console

REPEATS = 3


SIZES = ((176, 128), (170, 128), (192, 144), (320, 240), (322, 242))
"""Widths and heights. The second and the last are coded as something larger: coded sizes are multiples of 16."""


def sizes(env: Environment) -> Answer:
    """How long does a clip take whose frames are coded larger than shown? DALI may make a new session for each."""
    if env.cuda:
        env.require_nvdec()
    codec = "libx264" if env.cuda else "libvpx-vp9"
    source, clips = EncodedSegments(env.decoder), 2 if env.quick else 16
    answer: Answer = {}
    for size in SIZES[:2] if env.quick else SIZES:
        name = f"{size[0]}x{size[1]}"
        for number in range(clips):
            file = env.folder / "sizes" / name / f"{number}.{'mp4' if env.cuda else 'webm'}"
            encode(file, textures(number, 48, size), codec, 16, size)
        catalog = env.catalog(f"sizes/{name}")
        plans = next(env.plans(catalog, clips))
        read = [source.read(catalog.location(v), v, p).inputs for p in plans for v in [catalog.videos[p.video]]]
        run = build_graph(env, source.frames, source.layouts, clips)
        answer[name] = median_ms(partial(run, *zip(*read, strict=True))) / clips
    return {"ms_per_clip": answer}


def views(env: Environment) -> Answer:
    """How fast are views by DALI's operators and by our kernel, on prepared sets of 170 x 128 and of 192 x 144?

    And how fast are they of HEVC in the latter size?
    """
    runs: dict[tuple[str, Literal["dali", "triton"]], list[float]] = {
        ("prepared", "dali"): [],
        ("prepared", "triton"): [],
        ("larger", "dali"): [],
        ("larger", "triton"): [],
        ("hevc", "dali"): [],
    }
    for _ in range(1 if env.quick else REPEATS):
        for (kind, how), paces in runs.items():
            catalog = env.catalog(kind)
            ahead = 2 * env.config.loader.prefetch * env.config.loader.dali_pipelines
            paces.append(
                measure_pace(env, env.dali_backend(catalog, views=how), env.plans(catalog), ahead)["clips_per_second"]
            )
    base = runs["prepared", "dali"]
    return {
        f"{kind}, {how}": {
            "clips_per_second": statistics.median(paces),
            "each_clips_per_second": paces,
            "ratio": statistics.median(ratios(paces, base)),
        }
        for (kind, how), paces in runs.items()
    }


class TiedSegments(EncodedSegments):
    """Encoded segments whose decoder threads are tied to cores, as DALI does unless told otherwise."""

    def frames(self, *inputs: Node) -> Node:
        """The frames of a clip as a node of the graph."""
        from nvidia.dali import fn

        encoded, numbers = inputs
        return fn.decoders.video(encoded, device=self.decoder, frames=numbers, pad_mode="none", affine=True)


def affinity(env: Environment) -> Answer:
    """Is it slower when the threads of all pipelines are tied to the same cores?"""
    env.require_nvdec()
    catalog = env.catalog("prepared")
    ahead = 2 * env.config.loader.prefetch * env.config.loader.dali_pipelines
    sources = {"free": EncodedSegments("mixed"), "tied": TiedSegments("mixed")}
    runs = {name: list[float]() for name in sources}
    for _ in range(1 if env.quick else REPEATS):
        for name, source in sources.items():
            runs[name].append(
                measure_pace(env, env.dali_backend(catalog, source), env.plans(catalog), ahead)["clips_per_second"]
            )
    ratio = statistics.median(ratios(runs["tied"], runs["free"]))
    return {"each_clips_per_second": runs, "ratio_tied_to_free": ratio}


def from_the_start(env: Environment) -> Answer:
    """Does the decoder begin at frame 0 when a late frame of a whole file is asked for?"""
    from nvidia.dali import fn

    if env.cuda:
        env.require_nvdec()
    catalog = env.catalog("long")
    (video,) = catalog.videos
    source = EncodedSegments(env.decoder)
    (plan, *_) = next(env.plans(catalog))
    file = np.fromfile(catalog.location(video), np.uint8)

    def late(encoded: Node, start: Node) -> Node:
        return fn.decoders.video(
            encoded, device=source.decoder, start_frame=start, sequence_length=16, stride=1, pad_mode="none"
        )

    whole = build_graph(env, late, ("", ""), 1)
    cut = build_graph(env, source.frames, source.layouts, 1)
    starts = [round(at) for at in np.linspace(0, video.frames - 16, 4)]
    rows = []
    for start in starts:
        inputs = source.read(catalog.location(video), video, replace(plan, start=start, stride=1, length=16)).inputs
        whole_ms = median_ms(partial(whole, [file], [np.array(start, np.int32)]))
        cut_ms = median_ms(partial(cut, *([one] for one in inputs)))
        rows.append({"start": start, "whole_ms": whole_ms, "cut_ms": cut_ms})
    return {"decodes_from_frame_0": rows[-1]["whole_ms"] > 2 * rows[0]["whole_ms"], "by_start": rows}


def parallelism(env: Environment) -> Answer:
    """How fast is it, and how busy is NVDEC, by threads and pipelines?"""
    if env.cuda:
        env.require_nvdec()
    catalog = env.catalog("prepared")
    few = [(1, 1), (2, 2)]
    many = [(t, 2) for t in (1, 2, 4, 8, 16, 32)] + [(16, p) for p in (1, 3, 4, 5, 6, 7)] + [(32, 4), (32, 7)]
    rows, started = [], time.perf_counter()
    for threads, pipelines in many if env.cuda and not env.quick else few:
        if time.perf_counter() - started > MAX_SECONDS / 1.5:  # Fewer rows are better than none.
            break
        backend = env.dali_backend(catalog, threads=threads, pipelines=pipelines)
        ahead = 2 * env.config.loader.prefetch * pipelines
        measured = answer_or_error(partial(measure_pace, env, backend, env.plans(catalog), ahead))
        rows.append({"threads": threads, "pipelines": pipelines} | measured)
    return {"best": max(rows, key=lambda row: row.get("clips_per_second", 0)), "all": rows}


def memory(env: Environment) -> Answer:
    """How much GPU memory does it take, by batch size?"""
    if not env.cuda:
        raise SkippedError("needs a GPU")
    from nvidia.dali import backend as dali_library

    catalog = env.catalog("prepared")
    torch.zeros(1, device=env.device)  # The context of CUDA is not the loader's.
    rows = []
    _, total = torch.cuda.mem_get_info()
    for batch in (2, 4) if env.quick else (8, 16, 32, 64, 128):
        free, _ = torch.cuda.mem_get_info()
        batches = env.dali_backend(catalog).batches(env.plans(catalog, batch))
        for _ in islice(batches, 2 * env.config.loader.prefetch * env.config.loader.dali_pipelines):
            env.wait()
        remaining, _ = torch.cuda.mem_get_info()
        del batches
        gc.collect()
        dali_library.ReleaseUnusedMemory()  # pyright: ignore[reportAttributeAccessIssue]  # Its stubs lack it.
        torch.cuda.empty_cache()
        afterwards, _ = torch.cuda.mem_get_info()
        rows.append(
            {"batch": batch, "mib": (free - remaining) / 2**20, "mib_kept_afterwards": (free - afterwards) / 2**20}
        )
    return {"total_mib": total / 2**20, "by_batch": rows}


def training(env: Environment) -> Answer:
    """What share of training is spent waiting for data?"""
    torch.manual_seed(0)
    name, width = ("r3d18", 1.0) if env.cuda else ("r3d10", 0.125)
    model = create_model(name, width=width).to(env.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step(batch: ClipBatch) -> None:
        with torch.autocast(env.device.type, torch.bfloat16, enabled=env.cuda):
            features = [model(view.to(env.device, non_blocking=True).float()) for view in (batch.query, batch.key)]
        query, key = (F.normalize(feature.float(), dim=1) for feature in features)
        loss = -(query * key).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        env.wait()  # What follows then waits for data, and for nothing else.

    def timed(batches: Iterator[ClipBatch]) -> tuple[float, float]:
        """Clips per second, and the share of the time that was spent waiting."""
        for batch in islice(batches, 12 if env.cuda else 2):
            step(batch)
        start = now = time.perf_counter()
        waited, clips = 0.0, 0
        while now - start < env.seconds:
            batch = next(batches)
            env.wait()
            waited += time.perf_counter() - now
            step(batch)
            clips += len(batch)
            now = time.perf_counter()
        return clips / (now - start), waited / (now - start)

    catalog = env.catalog("prepared")
    same = next(env.dali_backend(catalog).batches(env.plans(catalog)))
    loaders: dict[str, Callable[[], Iterator[ClipBatch]]] = {
        "no loader, the same batch again": lambda: cycle([same]),
        "cpu": lambda: iter(env.clip_loader(catalog, "cpu")),
        "dali": lambda: env.dali_backend(catalog).batches(env.plans(catalog)),
    }
    runs = {loader: list[tuple[float, float]]() for loader in loaders}
    for _ in range(1 if env.quick else REPEATS):
        for loader, batches in loaders.items():
            runs[loader].append(timed(batches()))
    return {"model": f"{name} x {width}", "precision": "bf16" if env.cuda else "fp32"} | {
        loader: {
            "clips_per_second": statistics.median(speeds),
            "each_clips_per_second": speeds,
            "wait_share": statistics.median(shares),
        }
        for loader, each in runs.items()
        for speeds, shares in [tuple(map(list, zip(*each, strict=True)))]
    }


def augmentation(env: Environment) -> Answer:
    """What does DALI's augmentation cost alone, from uint8 frames in memory to two float16 views?"""
    catalog = env.catalog("prepared")
    source = CachedClips(UploadedFrames() if env.cuda else DecodedFrames())
    plans = list(islice(env.plans(catalog), 4))
    backend = env.dali_backend(catalog, source)
    for _ in backend.batches(plans):  # The first pass reads them.
        pass
    paces = [measure_pace(env, backend, cycle(plans), 4) for _ in range(1 if env.quick else REPEATS)]
    frames = [source.cache[plan.index].inputs[0] for plan in plans[0]]
    copied = median_ms(partial(build_graph(env, source.frames, source.layouts, len(frames)), frames))
    return {
        "ms_per_clip": statistics.median(1000 / one["clips_per_second"] for one in paces),
        "each_ms_per_clip": [1000 / one["clips_per_second"] for one in paces],
        "of_which_frames_into_the_graph_ms": copied / len(frames),
        "frames": list(frames[0].shape),
    }


def loaders(env: Environment) -> Answer:
    """How do `dali`, `cpu` and TorchCodec compare, on the same files and clips, in turn?"""

    def list_contenders(config: Config) -> list[LoaderContender]:
        known = {contender.name: contender for contender in contenders(config)}
        description = f"{type(env.source()).__name__}, and views on {env.device.type}"
        ours = replace(
            known["cacl dali"],
            prepare=lambda catalog, _: env.dali_backend(catalog),
            unavailable_reason="",
            description=description,
        )
        return [known["cacl cpu"], ours, known["TorchCodec + DataLoader"]]

    steps = 2 if env.quick else 40 if env.cuda else 12
    result = bench_loader(
        env.folder / "h264",
        env.folder / "prepared",
        env.config,
        clips=steps * env.config.train.batch_size,
        repeats=1 if env.quick else REPEATS,
        console=Console(enabled=False),
        list_contenders=list_contenders,
    )
    return {"rows": [asdict(row) for row in result.rows], "files": result.files}
