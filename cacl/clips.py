"""The nouns of the data path: what a video file holds, which clip of it is taken, and what a batch looks like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor


class SeekPoint(NamedTuple):
    """A frame at which decoding may start: in a file opened anew, a seek to `target` was seen to lead to it, and what
    followed were the very frames that decoding from the start yields."""

    frame: int
    pts: int
    """Its timestamp, which no other frame of the file has."""
    target: int
    """The timestamp to seek to: its own, or, in containers without an index, that of its decoding."""


class Fragments(NamedTuple):
    """Where the groups of pictures of a prepared video lie in its file. Each begins with a key frame."""

    init: bytes
    """The head of the file, before the first fragment: with it, any run of fragments is an MP4 file."""
    first: np.ndarray
    """Integers [G]: the number of the first frame of each fragment."""
    offset: np.ndarray
    """int64 [G + 1]: fragment g is the bytes offset[g] to offset[g + 1] of the file."""
    checksum: np.ndarray
    """uint32 [G]: CRC-32 of these bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRecord:
    """One usable video file, as a full decode found it (not as its header claims)."""

    path: str
    """Relative to the root of the catalog, or absolute."""
    frames: int
    """Frames that decode, from the first to the last. Frame numbers everywhere are positions in this sequence."""
    declared_frames: int
    """Frames that the header promises, without those that an edit list hides; 0 where it promises nothing."""
    rate: float
    """Average frames per second."""
    width: int
    """Pixels, as displayed (turned upright)."""
    height: int
    """Pixels, as displayed (turned upright)."""
    codec: str
    content: str = ""
    """BLAKE2b of the file's bytes, 128 bits as hex digits."""
    mirrored: bool = False
    """Whether a decoded frame is to be mirrored, left and right, before it is turned."""
    rotation: int = 0
    """Counter-clockwise quarter turns in degrees (0, 90, 180, 270) that bring a decoded frame upright."""
    undecodable: int = 0
    """Frames before the first key frame, which nothing can decode. They have no number."""
    gaps: int = 0
    """Packets of which the container says that they are incomplete, or that something before them is missing."""
    video_streams: int = 1
    """Video streams in the file, cover art apart; the one that players show is used."""
    pixel_aspect: float = 1.0
    """Width of a pixel by its height, as the header wants it shown. Pixels are taken as they are."""
    label: str | None = None
    split: str | None = None
    """`train`, `val`, `test`, or None where nothing tells it."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Further columns of a CSV list, by name: other labels of the same video."""
    seek_points: tuple[SeekPoint, ...] = ()
    """In rising order; decoding from frame 0 is always possible and not listed. Not used for prepared videos."""
    fragments: Fragments | None = field(default=None, compare=False, repr=False)
    """Of a prepared video (`cacl data prepare`); its content hash stands for them in comparisons."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewPlan:
    """One augmented view of a clip: the same crop, flip and colours for each of its frames."""

    top: int
    """Upper edge of the square crop, in pixels of the displayed frame, or of what it is resized to (ClipPlan.resize).
    Like `left` and `side` an even number, but for `top` and `left` in a resized frame."""
    left: int
    side: int
    flip: bool
    """Mirror left and right, after the crop."""
    color: np.ndarray
    """float32 [3, 4]: out = color[:, :3] @ rgb + color[:, 3], with rgb in [0, 1]; not clamped afterwards."""
    pillow_steps: tuple[tuple[str, float], ...] = ()
    """Names and factors of the steps in `cacl.loaders.backends.pillow_ops` that change the view, in 8 bits, after
    `color`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPlan:
    """Everything that decides a sample, before any file is opened."""

    index: int
    """Position in the endless stream of training samples, or in the list of evaluation clips."""
    video: int
    """Position in the catalog."""
    start: int
    stride: int
    length: int
    """The clip is frames start, start + stride, ... (length of them)."""
    order: tuple[int, ...]
    """The shuffled copy of the clip is its frames in this order; the identity leaves it alone."""
    views: tuple[ViewPlan, ...]
    """(query, key) for training, one centre view for evaluation."""
    resize: tuple[int, int] | None = None
    """(height, width) of the frames of which the views are cropped; None: as they are."""

    @property
    def frame_numbers(self) -> range:
        return range(self.start, self.start + self.length * self.stride, self.stride)

    @property
    def needs_pillow(self) -> bool:
        """Whether frames are resized or coloured as Pillow does it, in 8-bit RGB."""
        return self.resize is not None or any(view.pillow_steps for view in self.views)


@dataclass(frozen=True, slots=True)
class Failure:
    """A clip that did not load."""

    index: int
    """See ClipPlan.index."""
    video: int
    """Position in the catalog."""
    reason: str
    """One line that names the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipBatch:
    """Decoded and augmented clips, in the order of their plans. Those that did not load have no row in any tensor."""

    views: tuple[Tensor, ...]
    """One float16 [B, 3, T, H, W] per view, RGB in about [0, 1]."""
    order: Tensor
    """uint8 [B, T]."""
    video: Tensor
    """int64 [B], positions in the catalog."""
    index: Tensor
    """int64 [B], see ClipPlan.index."""
    failures: tuple[Failure, ...] = ()
    """The other clips of the batch, in the order of their plans."""

    def __len__(self) -> int:
        """B: how many clips loaded."""
        return len(self.index)

    @property
    def query(self) -> Tensor:
        return self.views[0]

    @property
    def key(self) -> Tensor:
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
        )


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """The tensor on this device, by a copy that the host does not wait for: out of pageable memory CUDA copies only
    after everything before it (CUDA Runtime API, API synchronization behavior)."""
    if device.type == "cuda" and not x.is_cuda:
        x = x.pin_memory()
    return x.to(device, non_blocking=True)
