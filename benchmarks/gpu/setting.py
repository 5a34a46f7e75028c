"""What the questions to a GPU have in common: the machine, the videos, the loaders."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch

from cacl.clips import ClipPlan, VideoRecord
from cacl.config import Config
from cacl.loaders.backends.dali import DaliBackend, unavailable_reason
from cacl.loaders.backends.dali_sources import ClipInputs, DecodedFrames, EncodedSegments, FrameSource
from cacl.loaders.backends.dali_views import Node
from cacl.loaders.backends.select import Backend, build_backend
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.scan import scan
from cacl.loaders.decode.storage import Location
from cacl.loaders.sampling.sampler import ClipSampler

Answer: TypeAlias = dict[str, Any]
CPU = torch.device("cpu")


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
        if reason := unavailable_reason(self.device):
            raise Skipped(reason)
        if not self.nvdec:
            raise Skipped("NVDEC does not work here: see `exact`")

    def source(self) -> FrameSource:
        """NVDEC where there is one, else frames that PyAV decoded."""
        if not self.cuda:
            return DecodedFrames()
        works = self.nvdec and not unavailable_reason(self.device)
        return EncodedSegments("mixed") if works else UploadedFrames()

    def dali(
        self,
        catalog: Catalog,
        source: FrameSource | None = None,
        *,
        threads: int = 0,
        pipelines: int = 0,
        views: Literal["dali", "triton"] = "dali",
    ) -> DaliBackend:
        loader, size = self.config.loader, self.config.clip.size
        backend = DaliBackend(
            catalog,
            size=size,
            threads=threads or loader.threads,
            prefetch=loader.prefetch,
            pipelines=pipelines or loader.dali_pipelines,
            device=CPU,  # on a GPU without NVDEC it would refuse to be built
            views=views,
        )
        backend.device, backend.source = self.device, source or self.source()
        return backend

    def host(self, catalog: Catalog) -> Backend:
        return build_backend("cpu", catalog, self.config, self.device)

    def plans(self, catalog: Catalog, batch: int = 0) -> Iterator[list[ClipPlan]]:
        """Batches without end."""
        sampler = ClipSampler(catalog.videos, self.config.clip, self.config.augment, self.config.seed)
        return sampler.batches(0, sys.maxsize, batch or self.config.train.batch_size)

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()


class UploadedFrames(DecodedFrames):
    """Frames that PyAV decoded, on the GPU."""

    def frames(self, *inputs: Node) -> Node:
        return inputs[0].gpu()


class CachedClips:
    """A frame source that reads each clip once and then keeps it."""

    def __init__(self, source: FrameSource) -> None:
        self.source, self.layouts, self.cache = source, source.layouts, dict[int, ClipInputs]()

    def read(self, location: Location, video: VideoRecord, plan: ClipPlan) -> ClipInputs:
        if plan.index not in self.cache:
            self.cache[plan.index] = self.source.read(location, video, plan)
        return self.cache[plan.index]

    def frames(self, *inputs: Node) -> Node:
        return self.source.frames(*inputs)
