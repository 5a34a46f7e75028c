"""The backend of NVIDIA GPUs: DALI decodes with NVDEC, and the views are made on the GPU (`views`).

The same graph runs on a CPU over frames that PyAV decoded, which is how it is tested where there is no GPU. Nothing is
drawn here: every number of a view comes from its plan.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from cacl.clips import ClipBatch, ClipPlan, Failure, VideoRecord, ViewPlan
from cacl.errors import CaclError, ConfigError, DataError
from cacl.loaders.backends.dali_views import DaliViews, KernelViews, Node, Views
from cacl.loaders.backends.reference import decode_rgb
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.decode.remux import remux_clip
from cacl.loaders.decode.storage import Location
from cacl.loaders.decode.yuv import yuv_to_rgb_matrix

if TYPE_CHECKING:
    from nvidia.dali.pipeline import Pipeline

BT601 = 5
"""Matrix coefficients as in ITU-T H.273."""


def unavailable_reason(device: torch.device) -> str | None:
    """Why the backend cannot run on this device, in words; None if it can. Importing DALI itself is left for later."""
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


class Clip(NamedTuple):
    """A sample as the graph takes it."""

    inputs: tuple[np.ndarray, ...]
    """What the source makes the frames of."""
    views: tuple[ViewPlan, ...]
    """For the frames as the source makes them."""
    turns: tuple[int, ...]
    """Counter-clockwise quarter turns that bring each view upright afterwards."""


class Source(Protocol):
    """Where the graph has its frames from."""

    layouts: tuple[str, ...]
    """DALI's layout of each input of a clip."""

    def read(self, location: Location, video: VideoRecord, plan: ClipPlan) -> Clip:
        """Runs in threads, ahead of the graph. Raises DataError naming the file."""
        ...

    def frames(self, *inputs: Node) -> Node:
        """The part of the graph that makes uint8 RGB frames, FHWC, of the inputs."""
        ...


class DecodedFrames:
    """Frames that PyAV decoded, upright: for CPUs, where DALI has no decoder for H.264 and most others."""

    layouts: tuple[str, ...] = ("FHWC",)

    def read(self, location: Location, video: VideoRecord, plan: ClipPlan) -> Clip:
        frames = decode_rgb(location, video, plan).transpose(0, 2, 3, 1)
        return Clip((np.ascontiguousarray(frames),), plan.views, (0,) * len(plan.views))

    def frames(self, *inputs: Node) -> Node:
        return inputs[0]


class CutFiles:
    """The needed stretch of each file, decoded by DALI: `mixed` is NVDEC, `cpu` knows VP8, VP9 and MJPEG only."""

    layouts: tuple[str, ...] = ("", "")

    def __init__(self, decoder: Literal["cpu", "mixed"]) -> None:
        self.decoder = decoder

    def read(self, location: Location, video: VideoRecord, plan: ClipPlan) -> Clip:
        data, offset, colorspace = remux_clip(location, video, plan.start, plan.frame_numbers[-1])
        numbers = np.array(plan.frame_numbers, np.int32) - plan.start + offset
        views = [sideways(with_true_colors(view, colorspace), video) for view in plan.views]
        return Clip((np.frombuffer(data, np.uint8), numbers), *zip(*views, strict=True))

    def frames(self, *inputs: Node) -> Node:
        from nvidia.dali import fn

        # Not yet run on a GPU with device "mixed". Frames are asked for by number, since with start_frame and
        # sequence_length DALI returns fewer frames than asked for where a file is too short; so it is an error.
        # affine=True would tie the threads of every pipeline to the same cores.
        encoded, numbers = inputs
        return fn.decoders.video(encoded, device=self.decoder, frames=numbers, pad_mode="none", affine=False)


def with_true_colors(view: ViewPlan, colorspace: int) -> ViewPlan:
    """DALI takes every YUV for BT.601. Another standard differs by one more matrix, up to clamping in between."""
    from_bt601 = yuv_to_rgb_matrix(colorspace, False)[:, :3] @ np.linalg.inv(yuv_to_rgb_matrix(BT601, False)[:, :3])
    color = np.column_stack([view.color[:, :3] @ from_bt601, view.color[:, 3]])
    return replace(view, color=color.astype(np.float32))


def sideways(view: ViewPlan, video: VideoRecord) -> tuple[ViewPlan, int]:
    """The same view of a frame as it is decoded, and the counter-clockwise quarter turns it then needs.

    Mirroring a turned picture is turning the mirrored picture the other way round, and the mirror comes first here.
    """
    turns = video.rotation // 90
    bottom, right = video.height - view.top - view.side, video.width - view.left - view.side
    top, left = [(view.top, view.left), (view.left, bottom), (bottom, right), (right, view.top)][turns]
    if video.mirrored:
        left = (video.height if turns % 2 else video.width) - left - view.side
    return replace(view, top=top, left=left, flip=view.flip != video.mirrored), -turns if view.flip else turns


def _by_view(clips: Sequence[Clip]) -> list[tuple[ViewPlan, ...]]:
    return list(zip(*(clip.views for clip in clips), strict=True))


class Reading(NamedTuple):
    """A batch on its way to the graph."""

    plans: Sequence[ClipPlan]
    outcomes: list[Clip | Failure]
    """What became of each plan so far."""

    @property
    def clips(self) -> list[Clip]:
        return [outcome for outcome in self.outcomes if isinstance(outcome, Clip)]


def _finished(plans: Sequence[ClipPlan], jobs: Sequence[Future[Clip | Failure]]) -> Reading:
    return Reading(plans, [job.result() for job in jobs])


def _dealt(readings: Iterator[Reading], hands: int) -> list[Iterator[Reading]]:
    """The batches in turn to so many iterators, each of which may run ahead of the others."""
    waiting = [deque[Reading]() for _ in range(hands)]
    turns = cycle(waiting)

    def of(hand: deque[Reading]) -> Iterator[Reading]:
        while True:
            while not hand:
                reading = next(readings, None)
                if reading is None:
                    return
                next(turns).append(reading)
            yield hand.popleft()

    return [of(hand) for hand in waiting]


class _Line:
    """Batches in their order: `read` are those whose files were read, and stand before those still coming."""

    def __init__(self, coming: Iterator[Reading]) -> None:
        self.coming, self.read = coming, deque[Reading]()

    def fill(self, count: int) -> None:
        """Waits until so many are read, or all."""
        self.read.extend(islice(self.coming, max(0, count - len(self.read))))

    def first(self) -> Reading | None:
        self.fill(1)
        return self.read[0] if self.read else None


class Event(Protocol):
    """A torch.cuda.Event."""

    def query(self) -> bool: ...

    def synchronize(self) -> None: ...


class Lent:
    """What DALI lent to torch, held until the GPU has read it.

    DALI hands memory that nobody holds to its next batch, on a stream of its own: it knows nothing of what torch has
    been told to read and has not read yet.
    """

    def __init__(self, most: int) -> None:
        """most: batches that are held; for one more, `hold` waits."""
        self.most, self.held = most, deque[tuple[Event, object]]()

    def hold(self, outputs: object, read: Event) -> None:
        """read: recorded after the last operation that reads the outputs."""
        self.held.append((read, outputs))
        while self.held and (len(self.held) > self.most or self.held[0][0].query()):
            self._let_go()

    def close(self) -> None:
        """Waits for all of them."""
        while self.held:
            self._let_go()

    def _let_go(self) -> None:
        self.held[0][0].synchronize()
        self.held.popleft()


class DaliBackend:
    """Clips decoded by DALI on a device, in several pipelines that take turns.

    pipelines: one does not keep all decoders of a GPU busy. prefetch: batches that each has ahead of the one asked for.
    threads: of all pipelines together, and as many again that read files for them. views: as LoaderConfig has them.

    Raises ConfigError if DALI cannot run here.
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
        if device.type == "cuda" and device.index is None:  # DALI wants a number
            device = torch.device("cuda", torch.cuda.current_device())
        self.catalog, self.size, self.device = catalog, size, device
        self.threads, self.prefetch, self.pipelines = threads, prefetch, pipelines
        self.source: Source = CutFiles("mixed") if device.type == "cuda" else DecodedFrames()
        self.views: Views = DaliViews(size) if views == "dali" else KernelViews(size)

    def batches(self, plans: Iterable[Sequence[ClipPlan]]) -> Iterator[ClipBatch]:
        """One batch for each sequence of plans, in order, with the clips that load: the views on the device, the rest
        on the CPU."""
        pool = ThreadPoolExecutor(self.threads, "read")
        try:
            dealt = _dealt(self._reading(plans, pool), self.pipelines)
            made = [self._made(_Line(readings), self.prefetch) for readings in dealt]
            for batches in cycle(made):
                batch = next(batches, None)
                if batch is None:
                    return
                yield batch
        finally:
            pool.shutdown(cancel_futures=True)

    def _reading(self, batches: Iterable[Sequence[ClipPlan]], pool: Executor) -> Iterator[Reading]:
        """The batches, each when its files are read, while those of the next one are being read."""
        ahead = None
        for plans in batches:
            begun = plans, [pool.submit(self._read, plan) for plan in plans]
            if ahead:
                yield _finished(*ahead)
            ahead = begun
        if ahead:
            yield _finished(*ahead)

    def _read(self, plan: ClipPlan) -> Clip | Failure:
        if plan.needs_pillow:
            raise ConfigError('"dali" does neither augment.resize nor augment.arithmetic = "pillow": "cpu" does')
        video = self.catalog.videos[plan.video]
        try:
            return self.source.read(self.catalog.location(video), video, plan)
        except DataError as error:
            return Failure(plan.index, plan.video, str(error))

    def _made(self, line: _Line, prefetch: int) -> Iterator[ClipBatch]:
        while first := line.first():
            if first.clips:
                yield from self._through_graph(first, line, prefetch)
            else:  # DALI takes no empty batch
                yield self._batch(line.read.popleft(), ())

    def _through_graph(self, first: Reading, line: _Line, prefetch: int) -> Iterator[ClipBatch]:
        """The batches in the line, up to one that has no clip or does not fit a graph made for the first one.

        If the graph dies, the clips that it fails on become failures, and the batches inside it stand in the line
        again, for the next graph.
        """
        most, views = len(first.plans), len(first.plans[0].views)
        inside: deque[Reading] = deque()  # oldest first

        def feed() -> list[Any]:
            clips = line.read[0].clips if line.read else []
            if not 0 < len(clips) <= most or len(clips[0].views) != views:
                raise StopIteration
            inside.append(line.read.popleft())
            return self._inputs(clips)

        graph, lent = self._graph(feed, most, views, prefetch), Lent(prefetch)
        wanted = prefetch  # DALI asks for so many at first, and for one each time after that
        try:
            while True:
                line.fill(wanted)
                wanted = 1
                try:
                    # Not yet run on a GPU. On torch's own stream DALI's memory is ready for torch, without either of
                    # them waiting on the host.
                    outputs = graph.run(torch.cuda.current_stream(self.device) if self.device.type == "cuda" else None)
                except StopIteration:
                    return
                except RuntimeError as error:
                    self._blame(inside, error)
                    line.read.extendleft(reversed(inside))
                    return
                batch = inside.popleft()
                tensors = self.views.tensors(outputs, _by_view(batch.clips))
                if self.device.type == "cuda":
                    lent.hold(outputs, torch.cuda.current_stream(self.device).record_event())
                yield self._batch(batch, tensors)
        finally:
            lent.close()

    def _batch(self, reading: Reading, views: Sequence[Tensor]) -> ClipBatch:
        """views: of the clips that were read, before they are turned upright; of no clips, none."""
        turns = [clip.turns for clip in reading.clips]
        for clip, view in np.argwhere(turns):
            views[view][clip] = torch.rot90(views[view][clip], turns[clip][view], (-2, -1))
        length, shown = reading.plans[0].length, len(reading.plans[0].views)
        empty = torch.empty(0, 3, length, self.size, self.size, dtype=torch.float16, device=self.device)
        loaded = [p for p, outcome in zip(reading.plans, reading.outcomes, strict=True) if isinstance(outcome, Clip)]
        return ClipBatch(
            views=tuple(views) or (empty,) * shown,
            order=torch.tensor([plan.order for plan in loaded], dtype=torch.uint8).view(len(loaded), length),
            video=torch.tensor([plan.video for plan in loaded], dtype=torch.int64),
            index=torch.tensor([plan.index for plan in loaded], dtype=torch.int64),
            failures=tuple(outcome for outcome in reading.outcomes if isinstance(outcome, Failure)),
        )

    def _blame(self, batches: Iterable[Reading], error: RuntimeError) -> None:
        """Makes failures of the clips on which a graph died. DALI does not say which, so each is run alone.

        Raises CaclError if it dies on none of them alone.
        """
        message = str(error).partition("encountered:")[2] or str(error)
        reason = message.strip().partition("\n")[0]
        clips = [(b, slot) for b in batches for slot, outcome in enumerate(b.outcomes) if isinstance(outcome, Clip)]
        if len(clips) == 1:
            ((batch, slot),) = clips
            plan = batch.plans[slot]
            reason = f'{self.catalog.file(plan.video)}: DALI fails on it ({reason}); "cpu" may read it'
            batch.outcomes[slot] = Failure(plan.index, plan.video, reason)
            return
        alone = [Reading([batch.plans[slot]], [batch.outcomes[slot]]) for batch, slot in clips]
        deque(self._made(_Line(iter(alone)), prefetch=1), maxlen=0)
        for (batch, slot), one in zip(clips, alone, strict=True):
            (batch.outcomes[slot],) = one.outcomes
        if all(one.clips for one in alone):
            raise CaclError(f"DALI fails on a batch, though on none of its clips alone: {reason}")

    def _inputs(self, clips: Sequence[Clip]) -> list[Any]:
        """What the graph takes: the inputs of its source, and those of each view."""
        inputs: list[Any] = [list(column) for column in zip(*(clip.inputs for clip in clips), strict=True)]
        return inputs + [column for view in _by_view(clips) for column in self.views.inputs(view)]

    def _graph(self, feed: Callable[[], list[Any]], clips: int, views: int, prefetch: int) -> Pipeline:
        """For batches of up to so many clips. feed: called for each batch, gives what `_inputs` makes of it."""
        from nvidia.dali import fn
        from nvidia.dali.pipeline import Pipeline

        # Operators run where their frames are; from the decoder on, that is all the difference a GPU makes.
        graph = Pipeline(
            batch_size=clips,
            num_threads=max(1, self.threads // self.pipelines),
            device_id=self.device.index,
            prefetch_queue_depth=prefetch,
        )
        inputs = len(self.source.layouts)
        layouts = [*self.source.layouts, *[""] * self.views.columns * views]
        with graph:
            nodes = fn.external_source(feed, num_outputs=len(layouts), layout=layouts)
            frames = self.source.frames(*nodes[:inputs])
            graph.set_outputs(*self.views.outputs(frames, nodes[inputs:]))
        graph.build()
        return graph
