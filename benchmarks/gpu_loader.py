"""The questions that the loader has for a GPU, answered in one run of under ten minutes, from videos it makes itself.

    python benchmarks/gpu_loader.py > benchmarks/results/gpu_loader.json

`--device cpu` is the rehearsal: what DALI can do on a CPU is done (VP9, and frames that PyAV decoded), the rest is told
as skipped. Each question has a process of its own, so that one which raises, crashes the driver or hangs costs no other
its answer; `--out FILE` is written after each. Without NVDEC (a container without the driver's video libraries), a GPU
still answers what it can, over frames that PyAV decoded. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import cycle, islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
import torch
import torch.nn.functional as F
from av.video.stream import VideoStream
from make_corpus import FRAMES, HEIGHT, RATE, WIDTH
from make_corpus import encode as encode_corpus
from torch import Tensor

from cacl import create_model
from cacl.bench import machine
from cacl.bench.contest import Contender
from cacl.bench.loader import PACKAGES, bench_loader, contenders
from cacl.clips import ClipBatch, ClipPlan, VideoRecord
from cacl.config import Config, DataConfig, override
from cacl.loaders import dali
from cacl.loaders.build import Backend, build_backend
from cacl.loaders.catalog import Catalog, scan
from cacl.loaders.prepare import prepare
from cacl.loaders.reference import decode_rgb
from cacl.loaders.sampling import TrainingPlanner
from cacl.loaders.storage import Place
from cacl.loaders.transcode import Settings
from cacl.report import Report

Answer: TypeAlias = dict[str, Any]
CPU = torch.device("cpu")
TOTAL_SECONDS, MOST_SECONDS = 570, 150
"""For all questions, and for one."""
NEAR = 3
"""Frames before and after the one asked for that a decoded frame is compared with."""
REPEATS = 3
LONG = 1200
"""Frames of the video in which late frames are asked for."""


class Skipped(Exception):
    """The question cannot be asked here, for this reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    folder: Path
    device: torch.device
    seconds: float
    """For each timing."""
    quick: bool
    config: Config
    nvdec: bool = True
    """False once it turned out not to work."""

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def threads(self) -> int:
        return self.config.loader.threads

    def catalog(self, kind: str) -> Catalog:
        return scan(replace(self.config.data, root=str(self.folder / kind)))

    def need_nvdec(self) -> None:
        if not self.cuda:
            raise Skipped("needs a GPU")
        if reason := dali.obstacle(self.device):
            raise Skipped(reason)
        if not self.nvdec:
            raise Skipped("NVDEC does not work here: see question 1")

    def source(self) -> dali.Source:
        """NVDEC where there is one, else frames that PyAV decoded."""
        if not self.cuda:
            return dali.DecodedFrames()
        works = self.nvdec and not dali.obstacle(self.device)
        return dali.CutFiles("mixed") if works else UploadedFrames()

    def dali(
        self, catalog: Catalog, source: dali.Source | None = None, *, threads: int = 0, pipelines: int = 0
    ) -> dali.DaliBackend:
        loader, size = self.config.loader, self.config.clip.size
        backend = dali.DaliBackend(
            catalog,
            size=size,
            threads=threads or loader.threads,
            prefetch=loader.prefetch,
            pipelines=pipelines or loader.pipelines,
            device=CPU,  # on a GPU without NVDEC it would refuse to be built
        )
        backend.device, backend.source = self.device, source or self.source()
        return backend

    def host(self, catalog: Catalog) -> Backend:
        return build_backend("host", catalog, self.config, self.device)

    def plans(self, catalog: Catalog, batch: int = 0) -> Iterator[list[ClipPlan]]:
        """Batches without end."""
        planner = TrainingPlanner(catalog.videos, self.config.clip, self.config.augment, self.config.seed)
        return planner.batches(0, sys.maxsize, batch or self.config.train.batch)

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()


class UploadedFrames(dali.DecodedFrames):
    """Frames that PyAV decoded, on the GPU."""

    def frames(self, *inputs: dali.Node) -> dali.Node:
        return inputs[0].gpu()


class KeptFrames:
    """Another source, each clip of which is read once."""

    def __init__(self, source: dali.Source) -> None:
        self.source, self.layouts, self.kept = source, source.layouts, dict[int, dali.Clip]()

    def read(self, place: Place, video: VideoRecord, plan: ClipPlan) -> dali.Clip:
        if plan.index not in self.kept:
            self.kept[plan.index] = self.source.read(place, video, plan)
        return self.kept[plan.index]

    def frames(self, *inputs: dali.Node) -> dali.Node:
        return self.source.frames(*inputs)


# --- Videos


def textures(seed: int, frames: int) -> Iterator[np.ndarray]:
    """uint8 [HEIGHT, WIDTH, 3]: soft noise that moves by a few pixels a frame, so that neighbours differ."""
    draws = np.random.default_rng(seed)
    noise = draws.standard_normal((HEIGHT, WIDTH, 1)) + 0.3 * draws.standard_normal((HEIGHT, WIDTH, 3))  # little colour
    y, x = np.fft.fftfreq(HEIGHT)[:, None, None], np.fft.fftfreq(WIDTH)[:, None]
    soft = np.fft.ifft2(np.fft.fft2(noise, axes=(0, 1)) * np.exp(-400 * (x**2 + y**2)), axes=(0, 1)).real
    image = np.clip(127 + 50 * soft / soft.std(), 0, 255).astype(np.uint8)
    for number in range(frames):
        yield np.roll(image, (2 * number, 3 * number), (0, 1))


def encode(file: Path, images: Iterator[np.ndarray], codec: str, gop: int) -> None:
    options = {
        "libx264": {"preset": "veryfast", "crf": "23", "sc_threshold": "0", "bf": "0"},
        "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "crf": "24", "b": "0"},
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, RATE, options=options[codec])
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.thread_count = gop, 1
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode(None))


def videos(s: Setting) -> Answer:
    """The videos of all other questions."""
    count, frames = (3, 60) if s.quick else (2 * s.threads, FRAMES)
    few = 2 if s.quick else 6
    long = ("long.mp4", "libx264") if s.cuda else ("long.webm", "libvpx-vp9")
    with ThreadPoolExecutor(s.threads) as pool:
        jobs = [
            pool.submit(
                encode, s.folder / "long" / long[0], textures(0, 150 if s.quick else LONG), codec=long[1], gop=16
            ),
            *(
                pool.submit(encode_corpus, s.folder / kind / f"{n}.{suffix}", textures(n, frames), kind)
                for kind, suffix, some in (("h264", "mp4", count), ("xvid", "avi", few))
                for n in range(some)
            ),
            *(
                pool.submit(encode, s.folder / "vp9" / f"{n}.webm", textures(n, frames), "libvpx-vp9", gop=30)
                for n in range(few)
            ),
        ]
        for job in jobs:
            job.result()
    source = replace(s.config.data, root=str(s.folder / "h264"))
    started = time.perf_counter()
    prepare(source, s.folder / "prepared", Settings(), workers=1 if s.quick else s.threads, report=lambda *_: None)
    seconds = time.perf_counter() - started
    about = {}
    for kind in ("h264", "prepared", "xvid", "vp9", "long"):
        catalog = s.catalog(kind)
        catalog.check(0)
        video = catalog.videos[0]
        about[kind] = {
            "videos": len(catalog.videos),
            "frames": video.frames,
            "size": f"{video.width}x{video.height}",
            "codec": video.codec,
            "bytes": sum(os.stat(catalog.place(each)).st_size for each in catalog.videos),
        }
    return about | {"seconds_to_prepare": seconds}


# --- What several questions need


def graph_of(
    s: Setting, outputs: Callable[..., Any], layouts: Sequence[str], batch: int
) -> Callable[..., tuple[Any, ...]]:
    """A function of one batch per layout, run through a DALI graph at once, without anything ahead of it."""
    from nvidia.dali import fn
    from nvidia.dali.pipeline import Pipeline

    names = [f"input_{n}" for n in range(len(layouts))]
    graph = Pipeline(batch_size=batch, num_threads=s.threads, device_id=s.device.index, prefetch_queue_depth=1)
    with graph:
        made = outputs(
            *(fn.external_source(name=name, layout=layout) for name, layout in zip(names, layouts, strict=True))
        )
        graph.set_outputs(*(made if isinstance(made, tuple) else (made,)))
    graph.build()

    def run(*batches: Sequence[np.ndarray]) -> tuple[Any, ...]:
        result = graph.run(**dict(zip(names, map(list, batches), strict=True)))
        s.wait()
        return result

    return run


def arrays(output: Any) -> list[np.ndarray]:
    here = output.as_cpu()
    return [np.array(here[n]) for n in range(len(here))]


def milliseconds(action: Callable[[], object], times: int = 5) -> float:
    """The median, after a first time."""
    action()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken)


@contextmanager
def utilisation() -> Iterator[Answer]:
    """Fills in the mean NVDEC and SM utilisation meanwhile, in percent; None where nvidia-smi does not tell."""
    shares: Answer = {"nvdec_percent": None, "sm_percent": None}
    query = "--query-gpu=utilization.decoder,utilization.gpu"
    try:
        sampler = subprocess.Popen(
            ["nvidia-smi", query, "--format=csv,noheader,nounits", "-lms", "200"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    except OSError:
        yield shares
        return
    try:
        yield shares
    finally:
        sampler.terminate()
        samples = [line.split(",") for line in sampler.communicate()[0].splitlines()]
        for column, name in enumerate(shares):
            told = [int(s[column]) for s in samples if len(s) == len(shares) and s[column].strip().isdigit()]
            shares[name] = statistics.mean(told) if told else None


def pace(s: Setting, backend: Backend, plans: Iterable[Sequence[ClipPlan]], ahead: int) -> Answer:
    """Clips per second and the waits for batches, once the `ahead` batches made in advance are used up."""
    batches = backend.batches(plans)
    start = time.perf_counter()
    next(batches)
    s.wait()
    first, failures = time.perf_counter() - start, 0
    for _ in islice(batches, ahead):
        s.wait()
    waits, clips = [], 0
    with utilisation() as shares:
        start = asked = time.perf_counter()
        while asked - start < s.seconds:
            batch = next(batches)
            s.wait()
            now = time.perf_counter()
            waits.append(1000 * (now - asked))
            asked, clips, failures = now, clips + len(batch), failures + len(batch.failures)
    return {
        "clips_per_second": clips / (asked - start),
        "first_batch_seconds": first,
        "wait_ms_p50": float(np.percentile(waits, 50)),
        "wait_ms_p99": float(np.percentile(waits, 99)),
        "batches": len(waits),
        "failures": failures,
        **shares,
    }


def frames_shown(s: Setting, kind: str) -> Answer:
    """Frames that DALI decodes of cut files, each against PyAV's of the same number and those around it."""
    catalog = s.catalog(kind)
    source = dali.CutFiles("mixed" if s.cuda else "cpu")
    plans = next(s.plans(catalog, 4 if s.quick else 16))
    clips = [source.read(catalog.place(v), v, p).inputs for p in plans for v in [catalog.videos[p.video]]]
    (decoded,) = graph_of(s, source.frames, source.layouts, len(plans))(*zip(*clips, strict=True))
    shifts: dict[int, int] = {}
    means, most, nearest_other = [], 0, np.inf
    for plan, frames in zip(plans, arrays(decoded), strict=True):
        video, numbers = catalog.videos[plan.video], plan.frame_numbers
        low, high = max(0, plan.start - NEAR), min(video.frames, numbers[-1] + NEAR + 1)
        around = replace(plan, start=low, stride=1, length=high - low)
        truth = decode_rgb(catalog.place(video), video, around).transpose(0, 2, 3, 1).astype(np.int16)
        for frame, number in zip(frames, numbers, strict=True):
            near = range(max(low, number - NEAR), min(high, number + NEAR + 1))
            distance = {other - number: np.abs(truth[other - low] - frame).mean() for other in near}
            shift = min(distance, key=distance.__getitem__)
            shifts[shift] = shifts.get(shift, 0) + 1
            means.append(distance.pop(0))
            most = max(most, int(np.abs(truth[number - low] - frame).max()))
            nearest_other = min(nearest_other, *distance.values())
    return {
        "exact": list(shifts) == [0],
        "frames": len(means),
        "frames_by_shift": shifts,
        "difference": {"mean": float(np.mean(means)), "worst_frame": float(max(means)), "max": most},
        "nearest_other_frame": float(nearest_other),
    }


def differences(ours: Iterable[ClipBatch], theirs: Iterable[ClipBatch]) -> Answer:
    """In levels of 255. Without what leaves the range of RGB, which not all keep."""

    def values(batch: ClipBatch) -> Tensor:
        return 255 * torch.stack(batch.views).cpu().float().clamp(0, 1)

    apart = torch.cat([(values(a) - values(b)).abs().ravel() for a, b in zip(ours, theirs, strict=True)]).numpy()
    return {"mean": float(apart.mean()), "p99": float(np.percentile(apart, 99)), "max": float(apart.max())}


# --- Questions


def exact(s: Setting) -> Answer:
    """1. Are the frames of cut files those asked for, in their order?"""
    if s.cuda:
        s.need_nvdec()
    kinds = ("prepared", "h264", "vp9") if s.cuda else ("vp9",)
    return {kind: attempt(partial(frames_shown, s, kind)) for kind in kinds}


def from_the_start(s: Setting) -> Answer:
    """2. Does the decoder begin at frame 0 when a late frame of a whole file is asked for?"""
    from nvidia.dali import fn

    if s.cuda:
        s.need_nvdec()
    catalog = s.catalog("long")
    (video,) = catalog.videos
    source = dali.CutFiles("mixed" if s.cuda else "cpu")
    (plan, *_) = next(s.plans(catalog))
    file = np.fromfile(catalog.place(video), np.uint8)

    def late(encoded: dali.Node, start: dali.Node) -> dali.Node:
        return fn.decoders.video(
            encoded, device=source.decoder, start_frame=start, sequence_length=16, stride=1, pad_mode="none"
        )

    whole = graph_of(s, late, ("", ""), 1)
    cut = graph_of(s, source.frames, source.layouts, 1)
    starts = [round(at) for at in np.linspace(0, video.frames - 16, 4)]
    rows = []
    for start in starts:
        inputs = source.read(catalog.place(video), video, replace(plan, start=start, stride=1, length=16)).inputs
        whole_ms = milliseconds(partial(whole, [file], [np.array(start, np.int32)]))
        cut_ms = milliseconds(partial(cut, *([one] for one in inputs)))
        rows.append({"start": start, "whole_ms": whole_ms, "cut_ms": cut_ms})
    return {"decodes_from_frame_0": rows[-1]["whole_ms"] > 2 * rows[0]["whole_ms"], "by_start": rows}


def parallelism(s: Setting) -> Answer:
    """3. How fast is it, and how busy is NVDEC, by threads and pipelines?"""
    if s.cuda:
        s.need_nvdec()
    catalog = s.catalog("prepared")
    few = [(1, 1), (2, 2)]
    many = [(t, 2) for t in (1, 2, 4, 8, 16, 32)] + [(16, p) for p in (1, 3, 4, 5, 6, 7)] + [(32, 4), (32, 7)]
    rows, started = [], time.perf_counter()
    for threads, pipelines in many if s.cuda and not s.quick else few:
        if time.perf_counter() - started > MOST_SECONDS / 1.5:  # rather fewer rows than none
            break
        backend = s.dali(catalog, threads=threads, pipelines=pipelines)
        ahead = 2 * s.config.loader.prefetch * pipelines
        measured = attempt(partial(pace, s, backend, s.plans(catalog), ahead))
        rows.append({"threads": threads, "pipelines": pipelines} | measured)
    return {"best": max(rows, key=lambda row: row.get("clips_per_second", 0)), "all": rows}


def memory(s: Setting) -> Answer:
    """4. How much GPU memory does it take, by batch size?"""
    if not s.cuda:
        raise Skipped("needs a GPU")
    from nvidia.dali import backend as dali_library

    catalog = s.catalog("prepared")
    torch.zeros(1, device=s.device)  # the context is not the loader's
    rows = []
    _, total = torch.cuda.mem_get_info()
    for batch in (2, 4) if s.quick else (8, 16, 32, 64, 128):
        free, _ = torch.cuda.mem_get_info()
        batches = s.dali(catalog).batches(s.plans(catalog, batch))
        for _ in islice(batches, 2 * s.config.loader.prefetch * s.config.loader.pipelines):
            s.wait()
        left, _ = torch.cuda.mem_get_info()
        del batches
        gc.collect()
        dali_library.ReleaseUnusedMemory()  # pyright: ignore[reportAttributeAccessIssue]  # its stubs lack it
        torch.cuda.empty_cache()
        back, _ = torch.cuda.mem_get_info()
        rows.append({"batch": batch, "mib": (free - left) / 2**20, "mib_kept_afterwards": (free - back) / 2**20})
    return {"total_mib": total / 2**20, "by_batch": rows}


def xvid(s: Setting) -> Answer:
    """5. Do XviD files in AVI load as they are?"""
    s.need_nvdec()
    catalog = s.catalog("xvid")
    batch = next(iter(s.dali(catalog).batches(s.plans(catalog, len(catalog.videos)))))
    loads = {"loaded": len(batch), "failures": [failure.reason for failure in batch.failures]}
    return loads | {
        "frames": attempt(partial(frames_shown, s, "xvid")),
        "pace": attempt(partial(pace, s, s.dali(catalog), s.plans(catalog), s.config.loader.prefetch)),
    }


def strided_slices(s: Setting) -> Answer:
    """6. Are strided slices of large tensors right in a DALI graph?"""
    slices = {"[::2]": slice(None, None, 2), "[::-1]": slice(None, None, -1), "[1::3]": slice(1, None, 3)}

    def outputs(frames: dali.Node) -> tuple[dali.Node, ...]:
        frames = frames.gpu() if s.cuda else frames
        return tuple(frames[which] for which in slices.values())

    draws = np.random.default_rng(0)
    answer: Answer = {}
    for shape in ((4, 8, 8, 3), (16, 128, 170, 3), (32, 240, 320, 3)):
        batch = [draws.integers(0, 256, shape, np.uint8) for _ in range(4)]
        made = graph_of(s, outputs, ("FHWC",), len(batch))(batch)
        wrong = {
            name: float(np.mean([np.mean(x[which] != y) for x, y in zip(batch, arrays(output), strict=True)]))
            for (name, which), output in zip(slices.items(), made, strict=True)
        }
        answer["x".join(map(str, shape))] = wrong
    right = not any(share for wrong in answer.values() for share in wrong.values())
    return {"right": right, "wrong_share": answer}


def pixels(s: Setting) -> Answer:
    """7. How far are the views from those of `reference` and `host`, for the same plans?"""
    cases: list[tuple[str, dali.Source]] = [("prepared", s.source())]
    if not s.cuda:
        cases.append(("vp9", dali.CutFiles("cpu")))
    elif isinstance(s.source(), dali.CutFiles):
        cases += [("h264", s.source()), ("prepared", UploadedFrames())]
    answer: Answer = {}
    for kind, source in cases:
        catalog = s.catalog(kind)
        plans = list(islice(s.plans(catalog), 2))
        answer[f"{kind}, {type(source).__name__}"] = {
            name: differences(
                s.dali(catalog, source).batches(plans), build_backend(name, catalog, s.config, CPU).batches(plans)
            )
            for name in ("reference", "host")
        }
    return answer


def training(s: Setting) -> Answer:
    """8. What share of training is spent waiting for data?"""
    torch.manual_seed(0)
    name, width = ("r3d18", 1.0) if s.cuda else ("r3d10", 0.125)
    model = create_model(name, width=width).to(s.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step(batch: ClipBatch) -> None:
        with torch.autocast(s.device.type, torch.bfloat16, enabled=s.cuda):
            features = [model(view.to(s.device, non_blocking=True).float()) for view in (batch.query, batch.key)]
        query, key = (F.normalize(feature.float(), dim=1) for feature in features)
        loss = -(query * key).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        s.wait()  # so that what follows is waiting for data, and for nothing else

    def timed(batches: Iterator[ClipBatch]) -> tuple[float, float]:
        """Clips per second and share of waiting."""
        for batch in islice(batches, 12 if s.cuda else 2):
            step(batch)
        start = now = time.perf_counter()
        waited, clips = 0.0, 0
        while now - start < s.seconds:
            batch = next(batches)
            s.wait()
            waited += time.perf_counter() - now
            step(batch)
            clips += len(batch)
            now = time.perf_counter()
        return clips / (now - start), waited / (now - start)

    catalog = s.catalog("prepared")
    same = next(s.dali(catalog).batches(s.plans(catalog)))
    loaders: dict[str, Callable[[], Iterator[ClipBatch]]] = {
        "no loader, the same batch again": lambda: cycle([same]),
        "host": lambda: s.host(catalog).batches(s.plans(catalog)),
        "dali": lambda: s.dali(catalog).batches(s.plans(catalog)),
    }
    runs = {loader: list[tuple[float, float]]() for loader in loaders}
    for _ in range(1 if s.quick else REPEATS):
        for loader, batches in loaders.items():
            runs[loader].append(timed(batches()))
    return {"model": f"{name} x {width}", "precision": "bf16" if s.cuda else "fp32"} | {
        loader: {
            "clips_per_second": statistics.median(speeds),
            "each_clips_per_second": speeds,
            "wait_share": statistics.median(shares),
        }
        for loader, each in runs.items()
        for speeds, shares in [tuple(map(list, zip(*each, strict=True)))]
    }


def augmentation(s: Setting) -> Answer:
    """9. What does DALI's augmentation cost alone, from uint8 frames in memory to two float16 views?"""
    catalog = s.catalog("prepared")
    source = KeptFrames(UploadedFrames() if s.cuda else dali.DecodedFrames())
    plans = list(islice(s.plans(catalog), 4))
    backend = s.dali(catalog, source)
    for _ in backend.batches(plans):  # which reads them
        pass
    paces = [pace(s, backend, cycle(plans), 4) for _ in range(1 if s.quick else REPEATS)]
    frames = [source.kept[plan.index].inputs[0] for plan in plans[0]]
    copied = milliseconds(partial(graph_of(s, source.frames, source.layouts, len(frames)), frames))
    return {
        "ms_per_clip": statistics.median(1000 / one["clips_per_second"] for one in paces),
        "each_ms_per_clip": [1000 / one["clips_per_second"] for one in paces],
        "of_which_frames_into_the_graph_ms": copied / len(frames),
        "frames": list(frames[0].shape),
    }


def loaders(s: Setting) -> Answer:
    """How do `dali`, `host` and TorchCodec compare, on the same files and clips, in turn?"""

    def entrants(config: Config) -> list[Contender]:
        known = {contender.name: contender for contender in contenders(config)}
        how = f"{type(s.source()).__name__}, and views on {s.device.type}"
        ours = replace(known["cacl dali"], build=lambda catalog, _: s.dali(catalog), obstacle="", how=how)
        return [known["cacl host"], ours, known["TorchCodec + DataLoader"]]

    steps = 2 if s.quick else 40 if s.cuda else 12
    result = bench_loader(
        s.folder / "h264",
        s.folder / "prepared",
        s.config,
        clips=steps * s.config.train.batch,
        repeats=REPEATS,
        report=Report(enabled=False),
        entrants=entrants,
    )
    return {"rows": [asdict(row) for row in result.rows], "files": result.files}


QUESTIONS: dict[str, Callable[[Setting], Answer]] = {
    "videos": videos,
    "1": exact,
    "2": from_the_start,
    "3": parallelism,
    "4": memory,
    "5": xvid,
    "6": strided_slices,
    "7": pixels,
    "8": training,
    "9": augmentation,
    "loaders": loaders,
}


# --- Asking them


def attempt(question: Callable[[], Answer]) -> Answer:
    try:
        return question()
    except Skipped as reason:
        return {"skipped": str(reason)}
    except Exception as error:  # each answer stands alone
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


def _answer(connection: Connection[Any, Any], name: str, s: Setting) -> None:
    os.dup2(2, 1)  # stdout is for the answers
    connection.send(attempt(partial(QUESTIONS[name], s)))


def ask(name: str, s: Setting, limit: float) -> Answer:
    """In a process of its own, which is ended after so many seconds."""
    # CUDA and threads do not outlive a fork: this process has imported torch, and never computes with it.
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(theirs, name, s))
    started = time.perf_counter()
    process.start()
    theirs.close()
    try:
        answer = ours.recv() if ours.poll(max(0, limit)) else {"error": f"took more than {limit:.0f} seconds"}
    except EOFError:
        process.join()
        answer = {"error": f"the process ended with {process.exitcode}"}
    # A driver that hangs while it is unloaded has answered all the same.
    process.join(5)
    process.kill()
    process.join()
    return {"question": (QUESTIONS[name].__doc__ or "").strip(), "seconds": time.perf_counter() - started} | answer


def gpu() -> str | None:
    """Name, driver and memory."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def without_folders(text: str) -> str:
    """Absolute paths cut down to the name of the file."""
    return re.sub(r"(?<![\w/.])/(?:[^\s/:'\"\\]+/)+", "", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=2.5, help="for each timing")
    parser.add_argument("--quick", action="store_true", help="few small clips: does it run at all?")
    parser.add_argument("--out", type=Path, help="written after each question")
    asked = parser.parse_args()
    cuda, quick = asked.device == "cuda", asked.quick
    seconds = min(asked.seconds, 0.3) if quick else asked.seconds
    batch = 4 if quick else 32 if cuda else 8
    small = ["clip.frames=8", "clip.size=64", "loader.prefetch=2"] if quick else []
    threads = min(16, len(os.sched_getaffinity(0)))
    config = override(Config(), [f"train.batch={batch}", f"loader.threads={threads}", *small])
    result: Answer = {
        "machine": machine.describe(PACKAGES) | {"cuda": torch.version.cuda, "gpu": gpu()},
        "settings": {"device": asked.device, "seconds": seconds, "quick": quick, "batch": batch}
        | {"clip": asdict(config.clip), "loader": asdict(config.loader)},
        "questions": {},
    }
    text = ""
    deadline = time.monotonic() + TOTAL_SECONDS
    with tempfile.TemporaryDirectory(prefix="gpu_loader") as folder:
        s = Setting(
            folder=Path(folder),
            device=torch.device("cuda", 0) if cuda else CPU,
            seconds=seconds,
            quick=quick,
            config=replace(config, data=DataConfig(cache=f"{folder}/cache")),
        )
        for name in QUESTIONS:
            answer = ask(name, s, min(MOST_SECONDS, deadline - time.monotonic()))
            result["questions"][name] = json.loads(without_folders(json.dumps(answer)))
            if name == "1" and cuda and "exact" not in answer.get("prepared", {}):
                s = replace(s, nvdec=False)  # the questions that need it not still have their answer
            print(f"{name}: {json.dumps(result['questions'][name])[:200]}", file=sys.stderr)
            text = json.dumps(result, indent=1)
            if asked.out:
                asked.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
