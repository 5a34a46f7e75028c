"""The questions whether what the loader shows on a GPU is right."""

from __future__ import annotations

from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from cacl.benchmarks.gpu.environment import Answer, Environment, UploadedFrames, answer_or_error
from cacl.benchmarks.gpu.measuring import (
    build_graph,
    compare_frames,
    measure_pace,
    to_arrays,
    view_differences,
)
from cacl.benchmarks.gpu.videos import encode, textures
from cacl.clips import ClipBatch
from cacl.loaders.backends.dali_sources import EncodedSegments, FrameSource
from cacl.loaders.backends.dali_views import Node
from cacl.loaders.backends.reference import decode_rgb


def exact(env: Environment) -> Answer:
    """Are the frames of encoded segments those asked for, in their order?"""
    if env.cuda:
        env.require_nvdec()
    kinds = ("prepared", "hevc", "h264", "vp9") if env.cuda else ("vp9",)
    return {kind: answer_or_error(partial(compare_frames, env, kind)) for kind in kinds}


def lifetime(env: Environment) -> Answer:
    """Does what a batch holds stay as it is while the GPU is far behind, though nobody holds the batch?"""
    catalog = env.catalog("prepared")
    plans = list(islice(env.plans(catalog, 8), 30 if env.cuda and not env.quick else 4))
    side = 8192 if env.cuda else 64
    answer: Answer = {}
    for views in ("dali", "triton"):
        at_leisure = [_checksum(batch).item() for batch in env.dali_backend(catalog, views=views).batches(plans)]
        busy, behind = torch.randn(side, side, device=env.device), []
        for batch in env.dali_backend(catalog, views=views).batches(plans):
            for _ in range(20):  # It takes a few tenths of a second, of which the CPU sees nothing.
                busy = (busy @ busy).clamp(-1, 1)
            behind.append(_checksum(batch))
        sums = [one.item() for one in behind]
        answer[views] = {
            "batches": len(sums),
            "wrong": [n for n, (a, b) in enumerate(zip(at_leisure, sums, strict=True)) if a != b],
        }
    return answer


def _checksum(batch: ClipBatch) -> Tensor:
    return torch.stack(batch.views).double().sum()


def colors(env: Environment, before: tuple[int, int] | None = None) -> Answer:
    """Are videos shown in their colours, however small the rest of the last block is?"""
    if env.cuda:
        env.require_nvdec()
    source = EncodedSegments(env.decoder)
    run = build_graph(env, source.frames, source.layouts, 1)
    answer: Answer = {}
    for size in ([before] if before else []) + [(128, 228), (228, 128), (170, 128)]:
        name = f"{size[0]}x{size[1]}"
        file = env.folder / "colors" / name / ("0.mp4" if env.cuda else "0.webm")
        encode(file, textures(1, 48, size), "libx264" if env.cuda else "libvpx-vp9", 16, size)
        catalog = env.catalog(f"colors/{name}")
        (plan,) = next(env.plans(catalog, 1))
        (video,) = catalog.videos
        (shown,) = to_arrays(run(*([one] for one in source.read(catalog.location(video), video, plan).inputs))[0])
        true = decode_rgb(catalog.location(video), video, plan).transpose(0, 2, 3, 1)
        apart = np.abs(shown.astype(np.int16) - true)
        answer[name] = {"mean": float(apart.mean()), "max": int(apart.max())}
    return {"difference": answer}


def colors_after_another_size(env: Environment) -> Answer:
    """The same after 128 x 240, whose NVDEC session has its chroma planes elsewhere: does 128 x 228 get that?"""
    return colors(env, before=(128, 240))


def xvid(env: Environment) -> Answer:
    """Do XviD files in AVI load as they are?"""
    env.require_nvdec()
    catalog = env.catalog("xvid")
    batch = next(iter(env.dali_backend(catalog).batches(env.plans(catalog, len(catalog.videos)))))
    loads = {"loaded": len(batch), "failures": [failure.reason for failure in batch.failures]}
    return loads | {
        "frames": answer_or_error(partial(compare_frames, env, "xvid")),
        "pace": answer_or_error(
            partial(measure_pace, env, env.dali_backend(catalog), env.plans(catalog), env.config.loader.prefetch)
        ),
    }


def strided_slices(env: Environment) -> Answer:
    """Are strided slices of large tensors right in a DALI graph?"""
    slices = {"[::2]": slice(None, None, 2), "[::-1]": slice(None, None, -1), "[1::3]": slice(1, None, 3)}

    def outputs(frames: Node) -> tuple[Node, ...]:
        frames = frames.gpu() if env.cuda else frames
        return tuple(frames[which] for which in slices.values())

    rng = np.random.default_rng(0)
    answer: Answer = {}
    for shape in ((4, 8, 8, 3), (16, 128, 170, 3), (32, 240, 320, 3)):
        batch = [rng.integers(0, 256, shape, np.uint8) for _ in range(4)]
        made = build_graph(env, outputs, ("FHWC",), len(batch))(batch)
        wrong = {
            name: float(np.mean([np.mean(x[which] != y) for x, y in zip(batch, to_arrays(output), strict=True)]))
            for (name, which), output in zip(slices.items(), made, strict=True)
        }
        answer["x".join(map(str, shape))] = wrong
    right = not any(share for wrong in answer.values() for share in wrong.values())
    return {"right": right, "wrong_share": answer}


def pixels(env: Environment) -> Answer:
    """How far are the views from those of `reference` and `cpu`, for the same plans?"""
    cases: list[tuple[str, FrameSource]] = [("prepared", env.source())]
    if not env.cuda:
        cases.append(("vp9", EncodedSegments("cpu")))
    elif isinstance(env.source(), EncodedSegments):
        cases += [("h264", env.source()), ("prepared", UploadedFrames())]
    answer: Answer = {}
    for kind, source in cases:
        catalog = env.catalog(kind)
        plans = list(islice(env.plans(catalog), 2))
        answer[f"{kind}, {type(source).__name__}"] = {
            name: view_differences(
                env.dali_backend(catalog, source).batches(plans),
                env.clip_loader(catalog, name).steps(0, len(plans)),
            )
            for name in ("reference", "cpu")
        }
    return answer
