"""Backends that work clip by clip in threads: PyAV and torch let go of the interpreter while they work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from cacl.clips import ClipBatch, ClipPlan, Failure, VideoRecord
from cacl.errors import DataError
from cacl.loaders.backends.buffer_pool import BufferPool
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.decode.storage import Location

LoadClip = Callable[[Location, VideoRecord, ClipPlan, int, Sequence[Tensor]], None]
"""(file, record, plan, size, out): fills out, one float16 [3, T, size, size] per view."""


class ThreadPoolBackend:
    """Decodes the clips of a batch in parallel, and up to `prefetch` batches ahead of the one asked for."""

    def __init__(self, load_clip: LoadClip, catalog: Catalog, *, size: int, threads: int, prefetch: int) -> None:
        self.load_clip, self.catalog, self.size = load_clip, catalog, size
        self.threads, self.prefetch = threads, prefetch
        self.buffers = BufferPool()

    def batches(self, plans: Iterable[Sequence[ClipPlan]]) -> Iterator[ClipBatch]:
        """One batch for each sequence of plans, in order, with the clips that load."""
        # Setting the number of threads in one thread also sets the default of those that have none yet, so this thread
        # takes its own first. In the pool each computes alone: the parallelism is over clips.
        torch.get_num_threads()
        pool = ThreadPoolExecutor(self.threads, "decode", initializer=torch.set_num_threads, initargs=(1,))
        pending: deque[tuple[ClipBatch, list[Future[None]]]] = deque()
        try:
            for batch in plans:
                pending.append(self._start(pool, batch))
                if len(pending) > self.prefetch:
                    yield _finished(*pending.popleft())
            while pending:
                yield _finished(*pending.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _start(self, pool: ThreadPoolExecutor, plans: Sequence[ClipPlan]) -> tuple[ClipBatch, list[Future[None]]]:
        shape = (len(plans), 3, plans[0].length, self.size, self.size)
        batch = ClipBatch(
            views=tuple(self.buffers.tensor(*shape) for _ in plans[0].views),
            order=torch.tensor([plan.order for plan in plans], dtype=torch.uint8),
            video=torch.tensor([plan.video for plan in plans]),
            index=torch.tensor([plan.index for plan in plans]),
        )
        jobs = []
        for slot, plan in enumerate(plans):
            video = self.catalog.videos[plan.video]
            out = [view[slot] for view in batch.views]
            jobs.append(pool.submit(self.load_clip, self.catalog.location(video), video, plan, self.size, out))
        return batch, jobs


def _finished(batch: ClipBatch, jobs: list[Future[None]]) -> ClipBatch:
    """The clips that loaded, with the failures of the others; whatever is not a DataError is raised."""
    loaded, failures = [], []
    for slot, job in enumerate(jobs):
        error = job.exception()
        if error is None:
            loaded.append(slot)
        elif isinstance(error, DataError):
            failures.append(Failure(int(batch.index[slot]), int(batch.video[slot]), str(error)))
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
