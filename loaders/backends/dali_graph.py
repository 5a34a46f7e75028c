"""The graph of the DALI backend, and its output memory that torch still reads.

The same graph runs on a CPU over frames that PyAV decoded, which is how it is tested where there is no GPU.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from cacl.clips import ViewPlan
from cacl.loaders.backends.dali_sources import ClipInputs, FrameSource
from cacl.loaders.backends.dali_views import ViewMaker

if TYPE_CHECKING:
    from nvidia.dali.pipeline import Pipeline


def build_graph(
    feed: Callable[[], list[Any]],
    source: FrameSource,
    view_maker: ViewMaker,
    *,
    max_clips: int,
    views: int,
    moments: int,
    threads: int,
    prefetch: int,
    device_id: int | None,
) -> Pipeline:
    """Builds the graph that turns inputs into views.

    Args:
        feed: Called for each batch. It returns what `graph_inputs` makes of the batch, or raises StopIteration.
        source: Makes frames of the inputs.
        view_maker: Makes views of the frames.
        max_clips: The largest number of clips in a batch.
        views: The number of views of each clip.
        moments: The number of moments of a video that the views of a clip show: one, or as many as views.
        threads: The number of threads that DALI uses.
        prefetch: The number of batches that the graph makes ahead of the one asked for.
        device_id: The number of the GPU, or None for a CPU.

    Returns:
        The graph, ready to run.
    """
    from nvidia.dali import fn
    from nvidia.dali.pipeline import Pipeline

    # Operators run where their frames are; from the decoder on, that is all the difference a GPU makes.
    graph = Pipeline(batch_size=max_clips, num_threads=threads, device_id=device_id, prefetch_queue_depth=prefetch)
    layouts = [*source.layouts * moments, *[""] * view_maker.inputs_per_view * views]
    with graph:
        nodes = iter(fn.external_source(feed, num_outputs=len(layouts), layout=layouts))
        frames = [source.frames(*islice(nodes, len(source.layouts))) for _ in range(moments)]
        graph.set_outputs(*view_maker.graph_outputs(frames, list(nodes)))
    graph.build()
    return graph


def graph_inputs(clips: Sequence[ClipInputs], view_maker: ViewMaker) -> list[Any]:
    """Collects the inputs of the graph for one batch.

    Args:
        clips: The clips of the batch, at least one.
        view_maker: Makes views of the frames.

    Returns:
        The inputs of the frame source for each moment, each a list with an array per clip, followed by those of each
        view.
    """
    inputs: list[Any] = [list(column) for column in zip(*(clip.inputs for clip in clips), strict=True)]
    return inputs + [column for view in plans_by_view(clips) for column in view_maker.view_inputs(view)]


def plans_by_view(clips: Sequence[ClipInputs]) -> list[tuple[ViewPlan, ...]]:
    """Regroups the plans of the views: for each view, the plans of all clips."""
    return list(zip(*(clip.views for clip in clips), strict=True))


class Event(Protocol):
    """What is used of a torch.cuda.Event."""

    def query(self) -> bool:
        """Returns whether all work before the event is done."""
        ...

    def synchronize(self) -> None:
        """Waits until all work before the event is done."""
        ...


class BorrowedOutputs:
    """Keeps the memory that DALI lent to torch until the GPU has read it.

    DALI hands memory that nobody holds to its next batch, on a stream of its own: it knows nothing of what torch has
    been told to read and has not read yet.

    Args:
        max_batches: The largest number of batches that are held. For one more, `hold` waits.
    """

    def __init__(self, max_batches: int) -> None:
        self.max_batches, self.held = max_batches, deque[tuple[Event, object]]()

    def hold(self, outputs: object, read: Event) -> None:
        """Holds the outputs of one batch, and lets go of those that were read.

        Args:
            outputs: What the graph returned.
            read: An event that was recorded after the last operation that reads the outputs.
        """
        self.held.append((read, outputs))
        while self.held and (len(self.held) > self.max_batches or self.held[0][0].query()):
            self._release_oldest()

    def close(self) -> None:
        """Waits until all outputs were read, and lets go of them."""
        while self.held:
            self._release_oldest()

    def _release_oldest(self) -> None:
        self.held[0][0].synchronize()
        self.held.popleft()
