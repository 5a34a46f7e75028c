"""The input side of the DALI backend: batches whose files are read ahead of the graph, and the queues they wait in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from itertools import cycle, islice
from typing import NamedTuple

from cacl.clips import ClipPlan, Failure
from cacl.loaders.backends.dali_sources import ClipInputs


class PendingBatch(NamedTuple):
    """A batch whose files were read, on its way to the graph."""

    plans: Sequence[ClipPlan]
    outcomes: list[ClipInputs | Failure]
    """What became of each plan so far."""

    @property
    def clips(self) -> list[ClipInputs]:
        """The clips that were read, in the order of their plans."""
        return [outcome for outcome in self.outcomes if isinstance(outcome, ClipInputs)]

    @property
    def failures(self) -> list[Failure]:
        """The other clips, in the order of their plans."""
        return [outcome for outcome in self.outcomes if isinstance(outcome, Failure)]

    @property
    def plans_of_clips(self) -> list[ClipPlan]:
        """The plans of the clips that were read, in their order."""
        return [p for p, outcome in zip(self.plans, self.outcomes, strict=True) if isinstance(outcome, ClipInputs)]


def read_ahead(
    batches: Iterable[Sequence[ClipPlan]], read: Callable[[ClipPlan], ClipInputs | Failure], pool: Executor
) -> Iterator[PendingBatch]:
    """Reads the clips of each batch in threads.

    Args:
        batches: The plans of each batch.
        read: Reads one clip. It is called in the threads of the pool.
        pool: The threads.

    Yields:
        Each batch once its files are read, while those of the next one are being read.
    """
    ahead = None
    for plans in batches:
        begun = plans, [pool.submit(read, plan) for plan in plans]
        if ahead:
            yield _wait_for(*ahead)
        ahead = begun
    if ahead:
        yield _wait_for(*ahead)


def _wait_for(plans: Sequence[ClipPlan], jobs: Sequence[Future[ClipInputs | Failure]]) -> PendingBatch:
    return PendingBatch(plans, [job.result() for job in jobs])


def distribute(batches: Iterator[PendingBatch], pipelines: int) -> list[Iterator[PendingBatch]]:
    """Hands the batches to several pipelines in turn.

    Args:
        batches: All batches, in their order.
        pipelines: How many pipelines take turns.

    Returns:
        For each pipeline, the iterator over its batches. Each of them may run ahead of the others.
    """
    waiting = [deque[PendingBatch]() for _ in range(pipelines)]
    turns = cycle(waiting)

    def batches_of(own: deque[PendingBatch]) -> Iterator[PendingBatch]:
        while True:
            while not own:
                batch = next(batches, None)
                if batch is None:
                    return
                next(turns).append(batch)
            yield own.popleft()

    return [batches_of(own) for own in waiting]


class BatchQueue:
    """The batches of one pipeline in their order: first those that are ready for the graph, then those to come.

    Args:
        upcoming: The batches. Taking one waits until its files are read.
    """

    def __init__(self, upcoming: Iterator[PendingBatch]) -> None:
        self.upcoming, self.ready = upcoming, deque[PendingBatch]()

    def fill(self, count: int) -> None:
        """Waits until `count` batches are ready, or all that are left.

        Args:
            count: The number of batches that shall be ready.
        """
        self.ready.extend(islice(self.upcoming, max(0, count - len(self.ready))))

    def first(self) -> PendingBatch | None:
        """Waits for the first batch and leaves it in the queue.

        Returns:
            The first batch, or None where no batch is left.
        """
        self.fill(1)
        return self.ready[0] if self.ready else None
