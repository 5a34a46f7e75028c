"""How the questions measure, and how they compare what a loader shows."""

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

from cacl.benchmarks.gpu.environment import Answer, Environment
from cacl.clips import ClipBatch, ClipPlan
from cacl.loaders.backends import dali_sources
from cacl.loaders.backends.reference import decode_rgb
from cacl.loaders.backends.select import Backend

NEIGHBOURS = 3
"""Frames before and after the one asked for that a decoded frame is compared with."""


def build_graph(
    env: Environment, outputs: Callable[..., Any], layouts: Sequence[str], batch: int
) -> Callable[..., tuple[Any, ...]]:
    """Builds a DALI graph.

    Args:
        env: Where it runs.
        outputs: Makes the outputs of the graph from one node per layout.
        layouts: The layouts of the inputs.
        batch: Samples of a batch.

    Returns:
        A function of one batch per layout, which runs them through the graph at once, with nothing prefetched.
    """
    from nvidia.dali import fn
    from nvidia.dali.pipeline import Pipeline

    names = [f"input_{n}" for n in range(len(layouts))]
    graph = Pipeline(batch_size=batch, num_threads=env.threads, device_id=env.device.index, prefetch_queue_depth=1)
    with graph:
        made = outputs(
            *(fn.external_source(name=name, layout=layout) for name, layout in zip(names, layouts, strict=True))
        )
        graph.set_outputs(*(made if isinstance(made, tuple) else (made,)))
    graph.build()

    def run(*batches: Sequence[np.ndarray]) -> tuple[Any, ...]:
        result = graph.run(**dict(zip(names, map(list, batches), strict=True)))
        env.wait()
        return result

    return run


def to_arrays(output: Any) -> list[np.ndarray]:
    """The samples of an output of a graph."""
    samples = output.as_cpu()
    return [np.array(samples[n]) for n in range(len(samples))]


def median_ms(action: Callable[[], object], times: int = 5) -> float:
    """The median time of an action in milliseconds, after a warm-up."""
    action()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken)


@contextmanager
def gpu_utilisation() -> Iterator[Answer]:
    """Measures the utilisation of the GPU while the block runs.

    Yields:
        What is filled in at the end: the mean utilisation of NVDEC and of the SMs in percent, None where nvidia-smi
        does not tell.
    """
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
            values = [int(row[column]) for row in samples if len(row) == len(shares) and row[column].strip().isdigit()]
            shares[name] = statistics.mean(values) if values else None


def measure_pace(env: Environment, backend: Backend, plans: Iterable[Sequence[ClipPlan]], ahead: int) -> Answer:
    """Measures clips per second and the waits for batches.

    Args:
        env: Where it runs.
        backend: The loader.
        plans: The clips, without end.
        ahead: How many batches are made in advance. They are used up before the measurement begins.
    """
    batches = backend.batches(plans)
    start = time.perf_counter()
    next(batches)
    env.wait()
    first, failures = time.perf_counter() - start, 0
    for _ in islice(batches, ahead):
        env.wait()
    waits, clips = [], 0
    with gpu_utilisation() as shares:
        start = before = time.perf_counter()
        while before - start < env.seconds:
            batch = next(batches)
            env.wait()
            now = time.perf_counter()
            waits.append(1000 * (now - before))
            before, clips, failures = now, clips + len(batch), failures + len(batch.failures)
    return {
        "clips_per_second": clips / (before - start),
        "first_batch_seconds": first,
        "wait_ms_p50": float(np.percentile(waits, 50)),
        "wait_ms_p99": float(np.percentile(waits, 99)),
        "batches": len(waits),
        "failures": failures,
        **shares,
    }


def compare_frames(env: Environment, kind: str) -> Answer:
    """Compares each frame that DALI decodes of encoded segments with PyAV's of the same number and those around it."""
    catalog = env.catalog(kind)
    source = dali_sources.EncodedSegments(env.decoder)
    plans = next(env.plans(catalog, 4 if env.quick else 16))
    clips = [source.read(catalog.location(v), v, p).inputs for p in plans for v in [catalog.videos[p.video]]]
    (decoded,) = build_graph(env, source.frames, source.layouts, len(plans))(*zip(*clips, strict=True))
    shifts: dict[int, int] = {}
    means, most, nearest_other = [], 0, np.inf
    for plan, frames in zip(plans, to_arrays(decoded), strict=True):
        video, numbers = catalog.videos[plan.video], plan.frame_numbers
        low, high = max(0, plan.start - NEIGHBOURS), min(video.frames, numbers[-1] + NEIGHBOURS + 1)
        around = replace(plan, start=low, stride=1, length=high - low)
        truth = decode_rgb(catalog.location(video), video, around).transpose(0, 2, 3, 1).astype(np.int16)
        for frame, number in zip(frames, numbers, strict=True):
            near = range(max(low, number - NEIGHBOURS), min(high, number + NEIGHBOURS + 1))
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


def view_differences(ours: Iterable[ClipBatch], theirs: Iterable[ClipBatch]) -> Answer:
    """Differences of views in levels of 255. Values outside the range of RGB are clipped: not all loaders keep them."""

    def values(batch: ClipBatch) -> Tensor:
        return 255 * torch.stack(batch.views).cpu().float().clamp(0, 1)

    apart = torch.cat([(values(a) - values(b)).abs().ravel() for a, b in zip(ours, theirs, strict=True)]).numpy()
    return {"mean": float(apart.mean()), "p99": float(np.percentile(apart, 99)), "max": float(apart.max())}
