"""Frame sources of the DALI backend: what is read of a video file, and how the graph gets its frames from that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from typing import Literal, NamedTuple, Protocol

import numpy as np

from cacl.clips import ClipPlan, VideoRecord, ViewPlan
from cacl.loaders.backends.dali_views import Node
from cacl.loaders.backends.reference import decode_rgb
from cacl.loaders.decode.remux import remux_clip
from cacl.loaders.decode.storage import Location
from cacl.loaders.decode.yuv import yuv_to_rgb_matrix

BT601 = 5
"""The number of BT.601 among the matrix coefficients of ITU-T H.273."""


class ClipInputs(NamedTuple):
    """One clip as the graph takes it."""

    inputs: tuple[np.ndarray, ...]
    """The arrays of which the frame source makes the frames, one for each of its layouts; those of the first moment,
    then those of the next."""
    views: tuple[ViewPlan, ...]
    """The views, in the coordinates of the frames that the source makes, which may lie sideways."""
    quarter_turns: tuple[int, ...]
    """For each view, the counter-clockwise quarter turns that bring it upright once it is made."""

    @classmethod
    def join(cls, moments: Iterable[ClipInputs]) -> ClipInputs:
        """Joins what was read of the moments of one clip.

        Args:
            moments: The inputs of each moment, in the order of `ClipPlan.moments`.
        """
        return cls(*(tuple(chain.from_iterable(column)) for column in zip(*moments, strict=True)))


class FrameSource(Protocol):
    """Where the graph gets its frames from."""

    layouts: tuple[str, ...]
    """DALI's layout of each input of a clip."""

    def read(self, location: Location, video: VideoRecord, plan: ClipPlan) -> ClipInputs:
        """Reads what the graph needs of one moment of a video. It is called in threads, ahead of the graph.

        Args:
            location: The video file.
            video: The record of the video.
            plan: The frames and the views that are wanted, of a single moment.

        Returns:
            The inputs of the graph for this moment.

        Raises:
            DataError: The file cannot be read. The message names it.
        """
        ...

    def frames(self, *inputs: Node) -> Node:
        """Adds the part of the graph that makes frames of the inputs.

        Args:
            *inputs: One node for each of the layouts.

        Returns:
            The node of the frames, uint8 RGB in DALI's layout FHWC.
        """
        ...


class DecodedFrames:
    """Frames that PyAV decoded, upright. It serves CPUs, where DALI has no decoder for H.264 and most other codecs."""

    layouts: tuple[str, ...] = ("FHWC",)

    def read(self, location: Location, video: VideoRecord, plan: ClipPlan) -> ClipInputs:
        """Decodes the frames of the clip, see `FrameSource.read`."""
        frames = decode_rgb(location, video, plan).transpose(0, 2, 3, 1)
        return ClipInputs((np.ascontiguousarray(frames),), plan.views, (0,) * len(plan.views))

    def frames(self, *inputs: Node) -> Node:
        """Returns the only input, which is the frames."""
        return inputs[0]


class EncodedSegments:
    """The encoded segment of each file that a clip needs, which DALI decodes.

    Args:
        decoder: `mixed` decodes with NVDEC. `cpu` decodes VP8, VP9 and MJPEG only.
    """

    layouts: tuple[str, ...] = ("", "")

    def __init__(self, decoder: Literal["cpu", "mixed"]) -> None:
        self.decoder = decoder

    def read(self, location: Location, video: VideoRecord, plan: ClipPlan) -> ClipInputs:
        """Reads the encoded segment and the positions of the frames in it, see `FrameSource.read`."""
        data, offset, colorspace = remux_clip(location, video, plan.start, plan.frame_numbers[-1])
        numbers = np.array(plan.frame_numbers, np.int32) - plan.start + offset
        views = [view_before_rotation(with_color_standard(view, colorspace), video) for view in plan.views]
        return ClipInputs((np.frombuffer(data, np.uint8), numbers), *zip(*views, strict=True))

    def frames(self, *inputs: Node) -> Node:
        """Adds the video decoder to the graph, see `FrameSource.frames`."""
        from nvidia.dali import fn

        # This has not yet run on a GPU with device "mixed". Frames are asked for by number: a file that is too short is
        # an error then, while with start_frame and sequence_length DALI returns fewer frames than asked for.
        # affine=True would tie the threads of every pipeline to the same cores.
        encoded, numbers = inputs
        return fn.decoders.video(encoded, device=self.decoder, frames=numbers, pad_mode="none", affine=False)


def with_color_standard(view: ViewPlan, colorspace: int) -> ViewPlan:
    """Corrects the colours of a view for the colour standard of its video.

    DALI takes every YUV for BT.601. Another standard differs from it by one more matrix, apart from the clamping to 8
    bits that comes in between.

    Args:
        view: The view of a frame in its true colours.
        colorspace: The matrix coefficients that the file names, as in ITU-T H.273.

    Returns:
        The same view, with a colour matrix for RGB that DALI made as if the video were in BT.601.
    """
    from_bt601 = yuv_to_rgb_matrix(colorspace, False)[:, :3] @ np.linalg.inv(yuv_to_rgb_matrix(BT601, False)[:, :3])
    color = np.column_stack([view.color[:, :3] @ from_bt601, view.color[:, 3]])
    return replace(view, color=color.astype(np.float32))


def view_before_rotation(view: ViewPlan, video: VideoRecord) -> tuple[ViewPlan, int]:
    """Moves a view from the upright frame to the frame as it is decoded, which may be mirrored and lie sideways.

    Mirroring a turned picture is turning the mirrored picture the other way round, and the view is mirrored before it
    is turned.

    Args:
        view: A view of the upright frame.
        video: The record that says how a decoded frame is brought upright.

    Returns:
        The view of the decoded frame, and the counter-clockwise quarter turns that it needs once it is made.
    """
    turns = video.rotation // 90
    bottom, right = video.height - view.top - view.side, video.width - view.left - view.side
    top, left = [(view.top, view.left), (view.left, bottom), (bottom, right), (right, view.top)][turns]
    if video.mirrored:
        left = (video.height if turns % 2 else video.width) - left - view.side
    return replace(view, top=top, left=left, flip=view.flip != video.mirrored), -turns if view.flip else turns
