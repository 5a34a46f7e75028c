"""The backend of NVIDIA GPUs: DALI decodes with NVDEC, and the views are made on the GPU.

`dali_sources` says what is read of a file, `dali_reading` reads it ahead of the graph, `dali_graph` is the graph, and
`dali_views` makes the views. Nothing is drawn at random here: every number of a view comes from its plan.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from itertools import cycle
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cacl.clips import ClipBatch, ClipPlan, Failure
from cacl.config import Config
from cacl.errors import CaclError, ConfigError, DataError
from cacl.loaders.backends.dali_graph import BorrowedOutputs, build_graph, graph_inputs, plans_by_view
from cacl.loaders.backends.dali_reading import BatchQueue, PendingBatch, distribute, read_ahead
from cacl.loaders.backends.dali_sources import ClipInputs, DecodedFrames, EncodedSegments, FrameSource
from cacl.loaders.backends.dali_views import DaliViews, KernelViews, ViewMaker
from cacl.loaders.catalog.catalog import Catalog


def unavailable_reason(device: torch.device) -> str | None:
    """Says why the backend cannot run on a device. It does not import DALI, which takes long.

    Args:
        device: Where the views shall be made.

    Returns:
        The reason in words, or None if the backend can run.
    """
    if not (find_spec("nvidia") and find_spec("nvidia.dali")):
        return "nvidia.dali is not installed (pip install nvidia-dali-cuda130, Linux only)"
    if device.type == "cpu":
        return None
    if device.type != "cuda" or not torch.cuda.is_available():
        return f"there is no CUDA device (asked for: {device})"
    try:
        ctypes.CDLL("libnvcuvid.so.1")
    except OSError:
        return "NVIDIA's video decoder libnvcuvid.so.1 is missing (a container needs NVIDIA_DRIVER_CAPABILITIES=all)"
    return None


def build(catalog: Catalog, config: Config, device: torch.device, threads: int) -> DaliBackend:
    """Builds this backend.

    Args:
        catalog: The videos.
        config: The size of a view, and the section `loader`.
        device: Where the views are made.
        threads: The number of threads that read files.

    Raises:
        ConfigError: The backend cannot run here.
    """
    loader = config.loader
    return DaliBackend(
        catalog,
        size=config.clip.size,
        threads=threads,
        prefetch=loader.prefetch,
        pipelines=loader.dali_pipelines,
        device=device,
        views=loader.dali_views,
    )


class DaliBackend:
    """Loads clips that DALI decodes on a device, in several pipelines that take turns.

    Args:
        catalog: The videos.
        size: Height and width of a view in pixels.
        threads: The number of threads of all pipelines together. As many again read files for them.
        prefetch: The number of batches that each pipeline has ahead of the one asked for.
        pipelines: The number of pipelines. One does not keep all decoders of a GPU busy.
        device: Where clips are decoded and views are made.
        views: What makes the views: DALI's operators (`dali`) or the kernel of this project (`triton`).

    Raises:
        ConfigError: DALI cannot run here.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        size: int,
        threads: int,
        prefetch: int,
        pipelines: int,
        device: torch.device,
        views: Literal["dali", "triton"] = "dali",
    ) -> None:
        if reason := unavailable_reason(device):
            raise ConfigError(f'loader.backend = "dali" cannot run: {reason}')
        try:
            import nvidia.dali  # noqa: F401
        except ImportError as error:
            raise ConfigError(f'loader.backend = "dali" cannot run: nvidia.dali is damaged ({error})') from None
        if device.type == "cuda" and device.index is None:  # DALI wants a number.
            device = torch.device("cuda", torch.cuda.current_device())
        self.catalog, self.size, self.device = catalog, size, device
        self.threads, self.prefetch, self.pipelines = threads, prefetch, pipelines
        self.source: FrameSource = EncodedSegments("mixed") if device.type == "cuda" else DecodedFrames()
        self.view_maker: ViewMaker = DaliViews(size) if views == "dali" else KernelViews(size)

    def batches(self, plans: Iterable[Sequence[ClipPlan]]) -> Iterator[ClipBatch]:
        """Loads one batch for each sequence of plans.

        Args:
            plans: The plans of each batch, in any number.

        Yields:
            The batches in the order of their plans, with the clips that load. Their views, float16 [B, 3, T, H, W], are
            on the device, and the other tensors on the CPU.

        Raises:
            ConfigError: A plan asks for what this backend cannot do.
            CaclError: DALI fails for a reason that is no fault of a file.
        """
        pool = ThreadPoolExecutor(self.threads, "read")
        try:
            per_pipeline = distribute(read_ahead(plans, self._read, pool), self.pipelines)
            running = [self._run_pipeline(BatchQueue(own), self.prefetch) for own in per_pipeline]
            for batches in cycle(running):
                batch = next(batches, None)
                if batch is None:
                    return
                yield batch
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, plan: ClipPlan) -> ClipInputs | Failure:
        if plan.needs_pillow:
            raise ConfigError('"dali" does neither augment.resize nor augment.color_arithmetic = "pillow": "cpu" does')
        video = self.catalog.videos[plan.video]
        try:
            location = self.catalog.location(video)
            return ClipInputs.join(self.source.read(location, video, moment) for moment in plan.moments)
        except DataError as error:
            return Failure(plan.index, plan.video, str(error))

    def _run_pipeline(self, queue: BatchQueue, prefetch: int) -> Iterator[ClipBatch]:
        """Makes all batches of the queue, with a new graph whenever the last one has ended."""
        while first := queue.first():
            if first.clips:
                yield from self._run_graph(first, queue, prefetch)
            else:  # DALI takes no empty batch.
                yield self._clip_batch(queue.ready.popleft(), ())

    def _run_graph(self, first: PendingBatch, queue: BatchQueue, prefetch: int) -> Iterator[ClipBatch]:
        """Makes the batches of the queue, up to one that has no clip or does not fit a graph made for the first one.

        If the graph dies, the clips that it fails on become failures, and the batches that were in it go back to the
        head of the queue, for the next graph.
        """
        max_clips, views, moments = len(first.plans), len(first.plans[0].views), len(first.plans[0].moments)
        in_flight: deque[PendingBatch] = deque()  # The oldest comes first.

        def feed() -> list[Any]:
            clips = queue.ready[0].clips if queue.ready else []
            if not 0 < len(clips) <= max_clips:
                raise StopIteration
            if (len(clips[0].views), len(clips[0].inputs)) != (views, moments * len(self.source.layouts)):
                raise StopIteration
            in_flight.append(queue.ready.popleft())
            return graph_inputs(clips, self.view_maker)

        threads = max(1, self.threads // self.pipelines)
        graph = build_graph(
            feed,
            self.source,
            self.view_maker,
            max_clips=max_clips,
            views=views,
            moments=moments,
            threads=threads,
            prefetch=prefetch,
            device_id=self.device.index,
        )
        borrowed = BorrowedOutputs(prefetch)
        wanted = prefetch  # DALI asks for this many batches at first, and for one each time after that.
        try:
            while True:
                queue.fill(wanted)
                wanted = 1
                try:
                    # This has not yet run on a GPU. On torch's own stream DALI's memory is ready for torch, without the
                    # CPU waiting for either of them.
                    outputs = graph.run(torch.cuda.current_stream(self.device) if self.device.type == "cuda" else None)
                except StopIteration:
                    return
                except RuntimeError as error:
                    self._mark_failing_clips(in_flight, error)
                    queue.ready.extendleft(reversed(in_flight))
                    return
                batch = in_flight.popleft()
                tensors = self.view_maker.to_tensors(outputs, plans_by_view(batch.clips))
                if self.device.type == "cuda":
                    borrowed.hold(outputs, torch.cuda.current_stream(self.device).record_event())
                yield self._clip_batch(batch, tensors)
        finally:
            borrowed.close()

    def _clip_batch(self, batch: PendingBatch, views: Sequence[Tensor]) -> ClipBatch:
        """Turns the views upright and puts them into a batch. `views` is empty where no clip was read."""
        turns = [clip.quarter_turns for clip in batch.clips]
        for clip, view in np.argwhere(turns):
            views[view][clip] = torch.rot90(views[view][clip], turns[clip][view], (-2, -1))
        length, view_count, loaded = batch.plans[0].length, len(batch.plans[0].views), batch.plans_of_clips
        empty = torch.empty(0, 3, length, self.size, self.size, dtype=torch.float16, device=self.device)
        return ClipBatch(
            views=tuple(views) or (empty,) * view_count,
            order=torch.tensor([plan.order for plan in loaded], dtype=torch.uint8).view(len(loaded), length),
            video=torch.tensor([plan.video for plan in loaded], dtype=torch.int64),
            index=torch.tensor([plan.index for plan in loaded], dtype=torch.int64),
            failures=tuple(batch.failures),
        )

    def _mark_failing_clips(self, batches: Iterable[PendingBatch], error: RuntimeError) -> None:
        """Turns the clips on which a graph died into failures. DALI does not say which, so each is run alone.

        Raises CaclError if the graph dies on none of them alone.
        """
        message = str(error).partition("encountered:")[2] or str(error)
        reason = message.strip().partition("\n")[0]
        clips = [
            (batch, slot)
            for batch in batches
            for slot, outcome in enumerate(batch.outcomes)
            if isinstance(outcome, ClipInputs)
        ]
        if len(clips) == 1:
            ((batch, slot),) = clips
            plan = batch.plans[slot]
            file = self.catalog.location(self.catalog.videos[plan.video])
            reason = f'{file}: DALI fails on it ({reason}); "cpu" may read it'
            batch.outcomes[slot] = Failure(plan.index, plan.video, reason)
            return
        alone = [PendingBatch([batch.plans[slot]], [batch.outcomes[slot]]) for batch, slot in clips]
        deque(self._run_pipeline(BatchQueue(iter(alone)), prefetch=1), maxlen=0)
        for (batch, slot), one in zip(clips, alone, strict=True):
            (batch.outcomes[slot],) = one.outcomes
        if all(one.clips for one in alone):
            raise CaclError(f"DALI fails on a batch, though on none of its clips alone: {reason}")
