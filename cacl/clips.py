"""The types of the data path: what a video file holds, which clip of it is taken, and what a batch looks like."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor


class SeekPoint(NamedTuple):
    """A frame at which decoding may start.

    `probe` has proven it: in a file opened anew, a seek to `target` led to this frame, and what followed were the very
    frames that decoding from the start of the file yields.
    """

    frame: int
    """The number of the frame."""
    pts: int
    """The presentation timestamp of the frame, in ticks of the stream. No other frame of the file has the same."""
    target: int
    """The timestamp to seek to: that of the presentation or, in containers without an index, that of the decoding."""


class Fragments(NamedTuple):
    """The byte ranges of the G fragments of a prepared video. Each fragment is one GOP and begins with a key frame."""

    init_segment: bytes
    """The head of the file, before the first fragment. Followed by any run of fragments it is an MP4 file."""
    first_frames: np.ndarray
    """int32 or int64 [G]: the number of the first frame of each fragment, rising from 0."""
    offsets: np.ndarray
    """int64 [G + 1]: fragment g is bytes [offsets[g], offsets[g + 1]) of the file."""
    checksums: np.ndarray
    """uint32 [G]: the CRC-32 of the bytes of each fragment."""

    def position_of(self, frame: int) -> int:
        """Returns the position g of the fragment that holds a frame.

        Args:
            frame: The number of the frame.
        """
        return bisect_right(self.first_frames, frame) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRecord:
    """One usable video file, as a full decode found it (not as its header claims)."""

    path: str
    """The path of the file, relative to the root of the catalog or absolute."""
    frames: int
    """The number of frames that decode. Frame numbers everywhere are positions in the sequence of these frames."""
    declared_frames: int
    """The number of frames that the header promises, without those hidden by an edit list; 0 if it promises nothing."""
    rate: float
    """The average number of frames per second."""
    width: int
    """The width of the frames as they are displayed (turned upright), in pixels."""
    height: int
    """The height of the frames as they are displayed (turned upright), in pixels."""
    codec: str
    """FFmpeg's name of the codec."""
    content_hash: str = ""
    """BLAKE2b of the bytes of the file, 128 bits as hex digits."""
    mirrored: bool = False
    """Whether a decoded frame has to be mirrored, left and right, before it is turned."""
    rotation: int = 0
    """The counter-clockwise rotation in degrees (0, 90, 180 or 270) that brings a decoded frame upright."""
    undecodable_frames: int = 0
    """The number of frames before the first key frame. Nothing can decode them, and they have no frame number."""
    incomplete_packets: int = 0
    """The number of packets of which the container says that they are incomplete or follow missing data."""
    video_streams: int = 1
    """The number of video streams in the file, apart from cover art. The one that players show is used."""
    pixel_aspect: float = 1.0
    """The width of a pixel by its height, as the header wants it shown. The loader takes pixels as they are."""
    label: str | None = None
    """The class of the video, or None where nothing tells it."""
    split: str | None = None
    """`train`, `val` or `test`, or None where nothing tells it."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Further columns of a CSV list, by name: other labels of the same video."""
    seek_points: tuple[SeekPoint, ...] = ()
    """The proven seek points in rising order, without frame 0, where decoding may always start. Prepared videos have
    none: their fragments take this place."""
    fragments: Fragments | None = field(default=None, compare=False, repr=False)
    """The fragments of a prepared video (`cacl data prepare`), else None. In comparisons the content hash stands for
    them."""

    def label_in(self, column: str) -> str | None:
        """Returns the label of the video in a column, or None where nothing tells it.

        Args:
            column: `label`, or the name of one of `attributes`.
        """
        return self.label if column == "label" else self.attributes.get(column)

    def last_seek_point(self, frame: int) -> SeekPoint | None:
        """Returns the last seek point at or before a frame, or None if decoding has to start at frame 0.

        Args:
            frame: The number of the frame.
        """
        position = bisect_right(self.seek_points, frame, key=lambda point: point.frame) - 1
        return self.seek_points[position] if position >= 0 else None

    def decoding_start(self, frame: int) -> int:
        """Returns the number of the frame at which decoding has to start for a frame to be decoded.

        Args:
            frame: The number of the frame that is wanted.
        """
        if self.fragments:
            return int(self.fragments.first_frames[self.fragments.position_of(frame)])
        point = self.last_seek_point(frame)
        return point.frame if point else 0

    def decoding_starts(self) -> list[int]:
        """Returns the numbers of all frames at which decoding may start, rising from 0."""
        if self.fragments:
            return self.fragments.first_frames.tolist()
        return [0, *(point.frame for point in self.seek_points)]


class RootShare(NamedTuple):
    """How many clips an epoch takes of the videos of one root of a data set."""

    videos: int
    """The number of videos of the root."""
    clips: int
    """The number of clips that each epoch takes of them. With as many as videos, it takes one of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewPlan:
    """One augmented view of a clip: every frame gets the same crop, flip and colours."""

    top: int
    """The upper edge of the square crop, in pixels of the displayed frame or of what it is resized to
    (`ClipPlan.resize`). `top` and `left` are even numbers unless the frame is resized."""
    left: int
    """The left edge of the square crop, in the same pixels."""
    side: int
    """The length of each side of the square crop, in the same pixels; always an even number."""
    flip: bool
    """Whether the view is mirrored, left and right, after the crop."""
    color: np.ndarray
    """float32 [3, 4]: out = color[:, :3] @ rgb + color[:, 3], with rgb in [0, 1]; not clamped afterwards."""
    pillow_steps: tuple[tuple[str, float], ...] = ()
    """Names and factors of the steps in `cacl.loaders.backends.pillow_ops` that change the view, in 8 bits, after
    `color`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPlan:
    """Everything that decides a sample, known before any file is opened."""

    index: int
    """The position in the endless stream of training samples, or in the list of evaluation clips."""
    video: int
    """The position of the video in the catalog."""
    start: int
    """The number of the first frame, of the first view where views show different moments."""
    stride: int
    """The distance between consecutive frames of the clip, in frames of the video."""
    length: int
    """T, the number of frames of the clip: start, start + stride, ..., start + (T - 1) * stride."""
    order: tuple[int, ...]
    """The order of the frames in the shuffled copy of the clip. The identity leaves the clip as it is."""
    views: tuple[ViewPlan, ...]
    """The query and the key view for training, one centre view for evaluation."""
    resize: tuple[int, int] | None = None
    """The (height, width) in pixels to which frames are resized before views are cropped. None leaves their size."""
    view_starts: tuple[int, ...] = ()
    """The number of the first frame of each view, where views show different moments of the video. Empty where all of
    them show the same frames."""

    @property
    def frame_numbers(self) -> range:
        """The numbers of the T frames of the clip, of the first view where views show different moments."""
        return range(self.start, self.start + self.length * self.stride, self.stride)

    @property
    def moments(self) -> tuple[ClipPlan, ...]:
        """Plans that together have the views of this one in their order, each of a single moment of the video.

        This is the plan alone where all views show the same frames, else one plan for each view, even where two of them
        happen to start at the same frame.
        """
        if not self.view_starts:
            return (self,)
        pairs = zip(self.view_starts, self.views, strict=True)
        return tuple(replace(self, start=start, views=(view,), view_starts=()) for start, view in pairs)

    @property
    def needs_pillow(self) -> bool:
        """Whether frames are resized or coloured as Pillow does it, in 8-bit RGB."""
        return self.resize is not None or any(view.pillow_steps for view in self.views)


@dataclass(frozen=True, slots=True)
class Failure:
    """A clip that did not load."""

    index: int
    """The index of the clip, see `ClipPlan.index`."""
    video: int
    """The position of its video in the catalog."""
    reason: str
    """Why it did not load: one line that names the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipBatch:
    """Decoded and augmented clips in the order of their plans. Clips that did not load have no row in any tensor."""

    views: tuple[Tensor, ...]
    """One float16 [B, 3, T, H, W] per view, RGB in about [0, 1]."""
    order: Tensor
    """uint8 [B, T]: the order of the frames in the shuffled copy of each clip."""
    video: Tensor
    """int64 [B]: the position of each video in the catalog."""
    index: Tensor
    """int64 [B]: the index of each clip, see `ClipPlan.index`."""
    failures: tuple[Failure, ...] = ()
    """The clips of the batch that did not load, in the order of their plans."""
    labels: Tensor | None = None
    """int64 [B]: the class of each clip, as a position in `ClipLoader.classes`; None unless labels were asked for."""

    def __len__(self) -> int:
        """Returns B, the number of clips that loaded."""
        return len(self.index)

    @property
    def query(self) -> Tensor:
        """float16 [B, 3, T, H, W]: the first view."""
        return self.views[0]

    @property
    def key(self) -> Tensor:
        """float16 [B, 3, T, H, W]: the second view of training clips."""
        return self.views[1]

    def to(self, device: torch.device) -> ClipBatch:
        """Copies the tensors to a device, which is not waited for.

        Args:
            device: The device.

        Returns:
            The batch with its tensors on the device; this batch itself where the device is the CPU.
        """
        if device.type == "cpu":
            return self
        return replace(
            self,
            views=tuple(to_device(view, device) for view in self.views),
            order=to_device(self.order, device),
            video=to_device(self.video, device),
            index=to_device(self.index, device),
            labels=None if self.labels is None else to_device(self.labels, device),
        )


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Copies a tensor to a device without letting the host wait for the copy.

    A tensor goes to CUDA by way of pinned memory: out of pageable memory CUDA copies only after everything before it
    (CUDA Runtime API, API synchronization behavior).

    Args:
        x: The tensor, on any device.
        device: The device to copy it to.

    Returns:
        The tensor on this device.
    """
    if device.type == "cuda" and not x.is_cuda:
        x = x.pin_memory()
    return x.to(device, non_blocking=True)
