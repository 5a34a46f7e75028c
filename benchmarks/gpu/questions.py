"""The questions that the loader has for a GPU."""

from __future__ import annotations

import gc
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from itertools import cycle, islice
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cacl import create_model
from cacl.benchmarks.gpu.measuring import arrays, differences, frames_shown, graph_of, milliseconds, pace
from cacl.benchmarks.gpu.setting import CPU, Answer, CachedClips, Setting, Skipped, UploadedFrames
from cacl.benchmarks.gpu.videos import encode, textures, videos
from cacl.benchmarks.harness.stats import ratios
from cacl.benchmarks.loader.command import bench_loader
from cacl.benchmarks.loader.contenders import contenders
from cacl.benchmarks.loader.run import LoaderContender
from cacl.clips import ClipBatch
from cacl.config import Config
from cacl.loaders.backends.dali_sources import DecodedFrames, EncodedSegments, FrameSource
from cacl.loaders.backends.dali_views import Node
from cacl.loaders.backends.reference import decode_rgb
from cacl.loaders.backends.select import build_backend
from cacl.reporting.console import Console

MOST_SECONDS = 150
"""For one question."""
REPEATS = 3


def attempt(question: Callable[[], Answer]) -> Answer:
    try:
        return question()
    except Skipped as reason:
        return {"skipped": str(reason)}
    except Exception as error:  # each answer stands alone
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


def exact(s: Setting) -> Answer:
    """Are the frames of encoded segments those asked for, in their order?"""
    if s.cuda:
        s.need_nvdec()
    kinds = ("prepared", "h264", "vp9") if s.cuda else ("vp9",)
    return {kind: attempt(partial(frames_shown, s, kind)) for kind in kinds}


def lifetime(s: Setting) -> Answer:
    """Does what a batch holds stay as it is while the GPU is far behind, though nobody holds the batch?"""
    catalog = s.catalog("prepared")
    plans = list(islice(s.plans(catalog, 8), 30 if s.cuda and not s.quick else 4))
    side = 8192 if s.cuda else 64
    answer: Answer = {}
    for views in ("dali", "triton"):
        at_leisure = [checksum(batch).item() for batch in s.dali(catalog, views=views).batches(plans)]
        busy, behind = torch.randn(side, side, device=s.device), []
        for batch in s.dali(catalog, views=views).batches(plans):
            for _ in range(20):  # a few tenths of a second, of which the host sees nothing
                busy = (busy @ busy).clamp(-1, 1)
            behind.append(checksum(batch))
        sums = [one.item() for one in behind]
        answer[views] = {
            "batches": len(sums),
            "wrong": [n for n, (a, b) in enumerate(zip(at_leisure, sums, strict=True)) if a != b],
        }
    return answer


def checksum(batch: ClipBatch) -> Tensor:
    return torch.stack(batch.views).double().sum()


SIZES = ((176, 128), (170, 128), (192, 144), (320, 240), (322, 242))
"""Of which the second and the last are coded as something larger: coded sizes are multiples of 16."""


def sizes(s: Setting) -> Answer:
    """How long does a clip take whose frames are coded larger than shown? DALI may make a new session for each."""
    if s.cuda:
        s.need_nvdec()
    codec = "libx264" if s.cuda else "libvpx-vp9"
    source, clips = EncodedSegments("mixed" if s.cuda else "cpu"), 2 if s.quick else 16
    answer: Answer = {}
    for size in SIZES[:2] if s.quick else SIZES:
        name = f"{size[0]}x{size[1]}"
        for number in range(clips):
            file = s.folder / "sizes" / name / f"{number}.{'mp4' if s.cuda else 'webm'}"
            encode(file, textures(number, 48, size), codec, 16, size)
        catalog = s.catalog(f"sizes/{name}")
        plans = next(s.plans(catalog, clips))
        read = [source.read(catalog.location(v), v, p).inputs for p in plans for v in [catalog.videos[p.video]]]
        run = graph_of(s, source.frames, source.layouts, clips)
        answer[name] = milliseconds(partial(run, *zip(*read, strict=True))) / clips
    return {"ms_per_clip": answer}


def colors(s: Setting, before: tuple[int, int] | None = None) -> Answer:
    """Are videos shown in their colours, however small the rest of the last block is?"""
    if s.cuda:
        s.need_nvdec()
    source = EncodedSegments("mixed" if s.cuda else "cpu")
    run = graph_of(s, source.frames, source.layouts, 1)
    answer: Answer = {}
    for size in ([before] if before else []) + [(128, 228), (228, 128), (170, 128)]:
        name = f"{size[0]}x{size[1]}"
        file = s.folder / "colors" / name / ("0.mp4" if s.cuda else "0.webm")
        encode(file, textures(1, 48, size), "libx264" if s.cuda else "libvpx-vp9", 16, size)
        catalog = s.catalog(f"colors/{name}")
        (plan,) = next(s.plans(catalog, 1))
        (video,) = catalog.videos
        (shown,) = arrays(run(*([one] for one in source.read(catalog.location(video), video, plan).inputs))[0])
        true = decode_rgb(catalog.location(video), video, plan).transpose(0, 2, 3, 1)
        apart = np.abs(shown.astype(np.int16) - true)
        answer[name] = {"mean": float(apart.mean()), "max": int(apart.max())}
    return {"difference": answer}


def colors_after_another_size(s: Setting) -> Answer:
    """The same after 128 x 240, whose NVDEC session has its chroma planes elsewhere: does 128 x 228 get that?"""
    return colors(s, before=(128, 240))


def views(s: Setting) -> Answer:
    """How fast are views by DALI's operators and by our kernel, on prepared sets of 170 x 128 and of 192 x 144?"""
    runs: dict[tuple[str, Literal["dali", "triton"]], list[float]] = {
        ("prepared", "dali"): [],
        ("prepared", "triton"): [],
        ("larger", "dali"): [],
        ("larger", "triton"): [],
    }
    for _ in range(1 if s.quick else REPEATS):
        for (kind, how), paces in runs.items():
            catalog = s.catalog(kind)
            ahead = 2 * s.config.loader.prefetch * s.config.loader.dali_pipelines
            paces.append(pace(s, s.dali(catalog, views=how), s.plans(catalog), ahead)["clips_per_second"])
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
    """With decoder threads tied to cores, as DALI does unless told otherwise."""

    def frames(self, *inputs: Node) -> Node:
        from nvidia.dali import fn

        encoded, numbers = inputs
        return fn.decoders.video(encoded, device=self.decoder, frames=numbers, pad_mode="none", affine=True)


def affinity(s: Setting) -> Answer:
    """Is it slower when the threads of all pipelines are tied to the same cores?"""
    s.need_nvdec()
    catalog = s.catalog("prepared")
    ahead = 2 * s.config.loader.prefetch * s.config.loader.dali_pipelines
    sources = {"free": EncodedSegments("mixed"), "tied": TiedSegments("mixed")}
    runs = {name: list[float]() for name in sources}
    for _ in range(1 if s.quick else REPEATS):
        for name, source in sources.items():
            runs[name].append(pace(s, s.dali(catalog, source), s.plans(catalog), ahead)["clips_per_second"])
    ratio = statistics.median(ratios(runs["tied"], runs["free"]))
    return {"each_clips_per_second": runs, "ratio_tied_to_free": ratio}


def from_the_start(s: Setting) -> Answer:
    """Does the decoder begin at frame 0 when a late frame of a whole file is asked for?"""
    from nvidia.dali import fn

    if s.cuda:
        s.need_nvdec()
    catalog = s.catalog("long")
    (video,) = catalog.videos
    source = EncodedSegments("mixed" if s.cuda else "cpu")
    (plan, *_) = next(s.plans(catalog))
    file = np.fromfile(catalog.location(video), np.uint8)

    def late(encoded: Node, start: Node) -> Node:
        return fn.decoders.video(
            encoded, device=source.decoder, start_frame=start, sequence_length=16, stride=1, pad_mode="none"
        )

    whole = graph_of(s, late, ("", ""), 1)
    cut = graph_of(s, source.frames, source.layouts, 1)
    starts = [round(at) for at in np.linspace(0, video.frames - 16, 4)]
    rows = []
    for start in starts:
        inputs = source.read(catalog.location(video), video, replace(plan, start=start, stride=1, length=16)).inputs
        whole_ms = milliseconds(partial(whole, [file], [np.array(start, np.int32)]))
        cut_ms = milliseconds(partial(cut, *([one] for one in inputs)))
        rows.append({"start": start, "whole_ms": whole_ms, "cut_ms": cut_ms})
    return {"decodes_from_frame_0": rows[-1]["whole_ms"] > 2 * rows[0]["whole_ms"], "by_start": rows}


def parallelism(s: Setting) -> Answer:
    """How fast is it, and how busy is NVDEC, by threads and pipelines?"""
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
    """How much GPU memory does it take, by batch size?"""
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
        for _ in islice(batches, 2 * s.config.loader.prefetch * s.config.loader.dali_pipelines):
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
    """Do XviD files in AVI load as they are?"""
    s.need_nvdec()
    catalog = s.catalog("xvid")
    batch = next(iter(s.dali(catalog).batches(s.plans(catalog, len(catalog.videos)))))
    loads = {"loaded": len(batch), "failures": [failure.reason for failure in batch.failures]}
    return loads | {
        "frames": attempt(partial(frames_shown, s, "xvid")),
        "pace": attempt(partial(pace, s, s.dali(catalog), s.plans(catalog), s.config.loader.prefetch)),
    }


def strided_slices(s: Setting) -> Answer:
    """Are strided slices of large tensors right in a DALI graph?"""
    slices = {"[::2]": slice(None, None, 2), "[::-1]": slice(None, None, -1), "[1::3]": slice(1, None, 3)}

    def outputs(frames: Node) -> tuple[Node, ...]:
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
    """How far are the views from those of `reference` and `cpu`, for the same plans?"""
    cases: list[tuple[str, FrameSource]] = [("prepared", s.source())]
    if not s.cuda:
        cases.append(("vp9", EncodedSegments("cpu")))
    elif isinstance(s.source(), EncodedSegments):
        cases += [("h264", s.source()), ("prepared", UploadedFrames())]
    answer: Answer = {}
    for kind, source in cases:
        catalog = s.catalog(kind)
        plans = list(islice(s.plans(catalog), 2))
        answer[f"{kind}, {type(source).__name__}"] = {
            name: differences(
                s.dali(catalog, source).batches(plans), build_backend(name, catalog, s.config, CPU).batches(plans)
            )
            for name in ("reference", "cpu")
        }
    return answer


def training(s: Setting) -> Answer:
    """What share of training is spent waiting for data?"""
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
        "cpu": lambda: s.host(catalog).batches(s.plans(catalog)),
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
    """What does DALI's augmentation cost alone, from uint8 frames in memory to two float16 views?"""
    catalog = s.catalog("prepared")
    source = CachedClips(UploadedFrames() if s.cuda else DecodedFrames())
    plans = list(islice(s.plans(catalog), 4))
    backend = s.dali(catalog, source)
    for _ in backend.batches(plans):  # which reads them
        pass
    paces = [pace(s, backend, cycle(plans), 4) for _ in range(1 if s.quick else REPEATS)]
    frames = [source.cache[plan.index].inputs[0] for plan in plans[0]]
    copied = milliseconds(partial(graph_of(s, source.frames, source.layouts, len(frames)), frames))
    return {
        "ms_per_clip": statistics.median(1000 / one["clips_per_second"] for one in paces),
        "each_ms_per_clip": [1000 / one["clips_per_second"] for one in paces],
        "of_which_frames_into_the_graph_ms": copied / len(frames),
        "frames": list(frames[0].shape),
    }


def loaders(s: Setting) -> Answer:
    """How do `dali`, `cpu` and TorchCodec compare, on the same files and clips, in turn?"""

    def list_contenders(config: Config) -> list[LoaderContender]:
        known = {contender.name: contender for contender in contenders(config)}
        description = f"{type(s.source()).__name__}, and views on {s.device.type}"
        ours = replace(
            known["cacl dali"],
            prepare=lambda catalog, _: s.dali(catalog),
            unavailable_reason="",
            description=description,
        )
        return [known["cacl cpu"], ours, known["TorchCodec + DataLoader"]]

    steps = 2 if s.quick else 40 if s.cuda else 12
    result = bench_loader(
        s.folder / "h264",
        s.folder / "prepared",
        s.config,
        clips=steps * s.config.train.batch_size,
        repeats=REPEATS,
        console=Console(enabled=False),
        list_contenders=list_contenders,
    )
    return {"rows": [asdict(row) for row in result.rows], "files": result.files}


QUESTIONS: dict[str, Callable[[Setting], Answer]] = {
    question.__name__: question
    for question in (
        videos,
        exact,
        lifetime,
        sizes,
        views,
        colors,
        colors_after_another_size,
        loaders,
        training,
        affinity,
        parallelism,
        pixels,
        augmentation,
        memory,
        xvid,
        from_the_start,
        strided_slices,
    )
}
"""What decides most first: there may not be time for all."""
