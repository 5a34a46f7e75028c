"""The backend that loads clip by clip in threads: PyAV and torch release the interpreter lock while they work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeAlias

import torch
from torch import Tensor

from cacl.clips import ClipBatch, ClipPlan, Failure, VideoRecord
from cacl.config import Config
from cacl.errors import DataError
from cacl.loaders.backends.buffer_pool import BufferPool
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.decode.storage import Location

LoadClip: TypeAlias = Callable[[Location, VideoRecord, ClipPlan, int, Sequence[Tensor]], None]
"""A function (location, video, plan, size, out) that loads one clip, such as `cpu.load_clip` and `reference.load_clip`.
Its plan is of a single moment. It fills `out`, one float16 [3, T, size, size] for each view, and raises DataError if
the file cannot be read."""


def build(
    load_clip: LoadClip, catalog: Catalog, config: Config, device: torch.device, threads: int
) -> ThreadPoolBackend:
    """Builds the backend of a function that loads one clip.

    Args:
        load_clip: Loads one clip.
        catalog: The videos.
        config: The size of a view, and the number of batches that are loaded ahead.
        device: Not looked at: views are made on the CPU.
        threads: The number of clips that are loaded at once.
    """
    return ThreadPoolBackend(
        load_clip, catalog, size=config.clip.size, threads=threads, prefetch=config.loader.prefetch
    )


class ThreadPoolBackend:
    """Loads the clips of a batch in parallel, and up to `prefetch` batches ahead of the one asked for.

    Args:
        load_clip: Loads one clip.
        catalog: The videos.
        size: Height and width of a view in pixels.
        threads: The number of clips that are loaded at once.
        prefetch: The number of batches that are loaded ahead.
    """

    def __init__(self, load_clip: LoadClip, catalog: Catalog, *, size: int, threads: int, prefetch: int) -> None:
        self.load_clip, self.catalog, self.size = load_clip, catalog, size
        self.threads, self.prefetch = threads, prefetch
        self.buffers = BufferPool()

    def batches(self, plans: Iterable[Sequence[ClipPlan]]) -> Iterator[ClipBatch]:
        """Loads one batch for each sequence of plans.

        Args:
            plans: The plans of each batch. They may be endless.

        Yields:
            The batches in the order of their plans, on the CPU, with the clips that load and the failures of the
            others.
        """
        # Setting the number of threads in one thread also sets the default of those that have none yet, so this thread
        # takes its own first. In the pool each computes alone: the parallelism is over clips.
        torch.get_num_threads()
        pool = ThreadPoolExecutor(self.threads, "decode", initializer=torch.set_num_threads, initargs=(1,))
        pending: deque[tuple[ClipBatch, list[Future[None]]]] = deque()
        try:
            for batch in plans:
                pending.append(self._start(pool, batch))
                if len(pending) > self.prefetch:
                    yield _wait_for(*pending.popleft())
            while pending:
                yield _wait_for(*pending.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _start(self, pool: ThreadPoolExecutor, plans: Sequence[ClipPlan]) -> tuple[ClipBatch, list[Future[None]]]:
        """Starts to load a batch. The jobs fill its views, one job a clip."""
        shape = (len(plans), 3, plans[0].length, self.size, self.size)
        batch = ClipBatch(
            views=tuple(self.buffers.tensor(*shape) for _ in plans[0].views),
            order=torch.tensor([plan.order for plan in plans], dtype=torch.uint8),
            video=torch.tensor([plan.video for plan in plans]),
            index=torch.tensor([plan.index for plan in plans]),
        )
        jobs = []
        for row, plan in enumerate(plans):
            video = self.catalog.videos[plan.video]
            out = [view[row] for view in batch.views]
            jobs.append(pool.submit(self._load_moments, self.catalog.location(video), video, plan, out))
        return batch, jobs

    def _load_moments(self, location: Location, video: VideoRecord, plan: ClipPlan, out: Sequence[Tensor]) -> None:
        """Loads all views of a clip, in one moment of the video after the other."""
        views = iter(out)
        for moment in plan.moments:
            self.load_clip(location, video, moment, self.size, list(islice(views, len(moment.views))))


def _wait_for(batch: ClipBatch, jobs: list[Future[None]]) -> ClipBatch:
    """Returns the clips that loaded, with the failures of the others. Whatever is not a DataError is raised."""
    loaded, failures = [], []
    for row, job in enumerate(jobs):
        error = job.exception()
        if error is None:
            loaded.append(row)
        elif isinstance(error, DataError):
            failures.append(Failure(int(batch.index[row]), int(batch.video[row]), str(error)))
        else:
            raise error
    if not failures:
        return batch
    return ClipBatch(
        views=tuple(view[loaded] for view in batch.views),
        order=batch.order[loaded],
        video=batch.video[loaded],
        index=batch.index[loaded],
        failures=tuple(failures),
    )
