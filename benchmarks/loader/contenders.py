"""The loaders that `cacl bench-loader` compares: ours, parts of ours, and rivals."""

from __future__ import annotations

from functools import partial

import torch

from cacl.benchmarks.loader.run import DecodedPart, LoaderContender
from cacl.benchmarks.loader.stages import decode_only
from cacl.benchmarks.rivals import loaders
from cacl.benchmarks.rivals.loaders import DataLoaderBackend
from cacl.benchmarks.rivals.packages import unavailable_reason
from cacl.config import Config
from cacl.loaders.backends import dali
from cacl.loaders.backends.select import Backend, build_backend
from cacl.loaders.backends.thread_pool import LoadClip, ThreadPoolBackend
from cacl.loaders.catalog.catalog import Catalog

BASELINE = "cacl cpu"
"""The contender that ratios are relative to, and whose refusal is an error."""
OFFICIAL = "official release"
"""The contender that loads as the release of Guo et al. (CVPR 2022) does."""


def contenders(config: Config) -> list[LoaderContender]:
    """Our backends, the `cpu` backend without its later stages as a ceiling, and the rivals."""
    return [*_ours(), *_rivals()]


def _ours() -> list[LoaderContender]:
    cuda = torch.device("cuda")
    return [
        LoaderContender(
            name=BASELINE,
            description="decodes YUV planes in threads, and makes views of them in one compiled pass",
            prepare=partial(_backend, "cpu", torch.device("cpu")),
        ),
        LoaderContender(
            name="cpu, decode only",
            description="as cacl cpu, but the decoded frames are dropped",
            prepare=partial(_part_of_cpu, decode_only),
            tolerance=None,
        ),
        LoaderContender(
            name="cacl dali",
            description="NVDEC, and views on the GPU",
            prepare=partial(_backend, "dali", cuda),
            decodes="unknown",
            unavailable_reason=dali.unavailable_reason(cuda) or "",
        ),
    ]


def _rivals() -> list[LoaderContender]:
    decoders: list[tuple[str, loaders.Decode, DecodedPart, str]] = [
        ("PyAV", loaders.pyav_frames, "from seek point", ""),
        ("TorchCodec", loaders.torchcodec_frames, "unknown", unavailable_reason("torchcodec", "torchcodec")),
        ("decord2", loaders.decord_frames, "unknown", unavailable_reason("decord", "decord2")),
    ]
    return [
        *(
            LoaderContender(
                name=f"{name} + DataLoader",
                description="tuned: only the needed frames, torchvision v2 on bytes, the colours as one matrix product",
                prepare=partial(DataLoaderBackend, partial(loaders.tuned_views, decode)),
                decodes=decodes,
                unavailable_reason=reason,
            )
            for name, decode, decodes, reason in decoders
        ),
        LoaderContender(
            name="PyAV + ColorJitter",
            description="as PyAV + DataLoader, but colours by torchvision's ColorJitter and RandomGrayscale",
            prepare=partial(DataLoaderBackend, partial(loaders.color_jitter_views, loaders.pyav_frames)),
            own_colors=True,
        ),
        LoaderContender(
            name=OFFICIAL,
            description="decodes the whole file to PIL images, and transforms them one by one into four stacks",
            prepare=partial(DataLoaderBackend, loaders.official_release_views),
            files=("raw",),
            decodes="whole file",
        ),
    ]


def _backend(name: str, device: torch.device, catalog: Catalog, config: Config) -> Backend:
    return build_backend(name, catalog, config, device)


def _part_of_cpu(load_clip: LoadClip, catalog: Catalog, config: Config) -> Backend:
    threads, prefetch = loaders.worker_count(config), config.loader.prefetch
    return ThreadPoolBackend(load_clip, catalog, size=config.clip.size, threads=threads, prefetch=prefetch)
