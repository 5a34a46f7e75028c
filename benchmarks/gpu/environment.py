"""What the questions to a GPU share: the machine, the videos, the loaders."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch

from cacl import ClipLoader
from cacl.clips import ClipPlan, VideoRecord
from cacl.config import Config, override
from cacl.loaders.backends.dali import DaliBackend, unavailable_reason
from cacl.loaders.backends.dali_sources import ClipInputs, DecodedFrames, EncodedSegments, FrameSource
from cacl.loaders.backends.dali_views import Node
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.scan import scan
from cacl.loaders.decode.storage import Location

Answer: TypeAlias = dict[str, Any]
CPU = torch.device("cpu")
MAX_SECONDS = 150
"""The time that one question may take."""


class SkippedError(Exception):
    """The question cannot be asked here, for the reason that the message tells."""


def answer_or_error(question: Callable[[], Answer]) -> Answer:
    """Asks a question. An error takes the place of the answer: each answer stands alone."""
    try:
        return question()
    except SkippedError as reason:
        return {"skipped": str(reason)}
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Where the questions are asked, and how much time they have."""

    folder: Path
    """The folder of the videos."""
    device: torch.device
    seconds: float
    """Seconds of each timing."""
    quick: bool
    """Whether only few small clips are used, to see whether everything runs."""
    config: Config
    nvdec: bool = True
    """False once it turned out that NVDEC does not work."""

    @property
    def cuda(self) -> bool:
        """Whether there is a GPU."""
        return self.device.type == "cuda"

    @property
    def threads(self) -> int:
        """Threads of a loader."""
        return self.config.loader.threads

    def catalog(self, kind: str) -> Catalog:
        """The videos of one kind, such as `prepared`."""
        return scan(replace(self.config.data, root=str(self.folder / kind)))

    def require_nvdec(self) -> None:
        """Skips the question where NVDEC cannot be used.

        Raises:
            SkippedError: It cannot be used.
        """
        if not self.cuda:
            raise SkippedError("needs a GPU")
        if reason := unavailable_reason(self.device):
            raise SkippedError(reason)
        if not self.nvdec:
            raise SkippedError("NVDEC does not work here: see `exact`")

    def source(self) -> FrameSource:
        """NVDEC where there is one, otherwise frames that PyAV decoded."""
        if not self.cuda:
            return DecodedFrames()
        works = self.nvdec and not unavailable_reason(self.device)
        return EncodedSegments("mixed") if works else UploadedFrames()

    @property
    def decoder(self) -> Literal["cpu", "mixed"]:
        """The device of DALI's decoder: NVDEC on a GPU."""
        return "mixed" if self.cuda else "cpu"

    def dali_backend(
        self,
        catalog: Catalog,
        source: FrameSource | None = None,
        *,
        threads: int = 0,
        pipelines: int = 0,
        views: Literal["dali", "triton"] = "dali",
    ) -> DaliBackend:
        """The `dali` backend, with other frames, threads and pipelines if they are given.

        It works on a CPU, too, where `ClipLoader` would refuse it.
        """
        loader, size = self.config.loader, self.config.clip.size
        backend = DaliBackend(
            catalog,
            size=size,
            threads=threads or loader.threads,
            prefetch=loader.prefetch,
            pipelines=pipelines or loader.dali_pipelines,
            device=CPU,  # On a GPU without NVDEC it would refuse to be built.
            views=views,
        )
        backend.device, backend.source = self.device, source or self.source()
        return backend

    def clip_loader(self, catalog: Catalog, backend: str) -> ClipLoader:
        """The loader with a backend that makes views on the CPU."""
        return ClipLoader.from_config(override(self.config, [f"loader.backend={backend}"]), catalog=catalog, split=None)

    def plans(self, catalog: Catalog, batch_size: int = 0) -> Iterator[list[ClipPlan]]:
        """Plans the batches of `clip_loader`, without end, for backends and parts of them that are put together here.

        They are of the size that the configuration names unless another one is given.
        """
        return self.clip_loader(catalog, "cpu").sampler.stretch(0, None, batch_size or self.config.train.batch_size)

    def wait(self) -> None:
        """Waits until the GPU has done what it was asked for."""
        if self.cuda:
            torch.cuda.synchronize()


class UploadedFrames(DecodedFrames):
    """Frames that PyAV decoded, uploaded to the GPU."""

    def frames(self, *inputs: Node) -> Node:
        """The frames of a clip as a node of the graph."""
        return inputs[0].gpu()


class CachedClips:
    """A frame source that reads each clip once and then keeps it."""

    def __init__(self, source: FrameSource) -> None:
        self.source, self.layouts, self.cache = source, source.layouts, dict[int, ClipInputs]()

    def read(self, location: Location, video: VideoRecord, plan: ClipPlan) -> ClipInputs:
        """The inputs of a clip, from the cache if it was read before."""
        if plan.index not in self.cache:
            self.cache[plan.index] = self.source.read(location, video, plan)
        return self.cache[plan.index]

    def frames(self, *inputs: Node) -> Node:
        """The frames of a clip as a node of the graph."""
        return self.source.frames(*inputs)
