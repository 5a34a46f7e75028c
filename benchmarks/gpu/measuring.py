"""How the questions measure, and compare what they are shown."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cacl.benchmarks.gpu.setting import Answer, Setting
from cacl.clips import ClipBatch, ClipPlan
from cacl.loaders.backends import dali_sources
from cacl.loaders.backends.reference import decode_rgb
from cacl.loaders.backends.select import Backend

NEAR = 3
"""Frames before and after the one asked for that a decoded frame is compared with."""


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
    """Frames that DALI decodes of encoded segments, each against PyAV's of the same number and those around it."""
    catalog = s.catalog(kind)
    source = dali_sources.EncodedSegments("mixed" if s.cuda else "cpu")
    plans = next(s.plans(catalog, 4 if s.quick else 16))
    clips = [source.read(catalog.location(v), v, p).inputs for p in plans for v in [catalog.videos[p.video]]]
    (decoded,) = graph_of(s, source.frames, source.layouts, len(plans))(*zip(*clips, strict=True))
    shifts: dict[int, int] = {}
    means, most, nearest_other = [], 0, np.inf
    for plan, frames in zip(plans, arrays(decoded), strict=True):
        video, numbers = catalog.videos[plan.video], plan.frame_numbers
        low, high = max(0, plan.start - NEAR), min(video.frames, numbers[-1] + NEAR + 1)
        around = replace(plan, start=low, stride=1, length=high - low)
        truth = decode_rgb(catalog.location(video), video, around).transpose(0, 2, 3, 1).astype(np.int16)
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
