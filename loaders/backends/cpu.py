"""The backend of machines without a GPU: from the decoder's YUV planes to the views, with no RGB frame between.

YUV to RGB and the colours of a view are one 3x4 matrix, and resizing is linear too, so the planes are resized and
converted as they are, where the decoder has left them (`yuv_to_rgb_resize`), straight into half precision. What Pillow
does to 8-bit RGB (`pillow_ops`) is not linear, and is left to the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from cacl.clips import ClipPlan, VideoRecord
from cacl.loaders.backends import reference, thread_pool
from cacl.loaders.backends.yuv_to_rgb_resize import planes_to_view
from cacl.loaders.decode.raw import decode_frames
from cacl.loaders.decode.storage import Location
from cacl.loaders.decode.yuv import apply_orientation, as_planar_420, frame_yuv_to_rgb_matrix, planes


def load_clip(location: Location, video: VideoRecord, plan: ClipPlan, size: int, out: Sequence[Tensor]) -> None:
    """Decodes one clip and makes its views.

    Args:
        location: The video file.
        video: The record of the video.
        plan: The frames and the views that are wanted.
        size: Height and width of a view in pixels.
        out: The tensor to fill for each view, float16 [3, T, size, size].

    Raises:
        DataError: The file cannot be read or decoded. The message names it.
    """
    if plan.needs_pillow:
        reference.load_clip(location, video, plan, size, out)
        return
    decoded = decode_planes(location, video, plan)
    for view, target in zip(plan.views, out, strict=True):
        planes_to_view(decoded.planes, compose_color(view.color, decoded.yuv_to_rgb), view, target.numpy())


build = partial(thread_pool.build, load_clip)
"""A function (catalog, config, device, threads) -> this backend."""


class DecodedPlanes(NamedTuple):
    """The upright planes of a clip, where the decoder has left them."""

    planes: np.ndarray
    """int64 [T, 3, 2], see `planes_to_view`."""
    yuv_to_rgb: np.ndarray
    """The matrix from (Y, U, V) in 0..255 to RGB in [0, 1], float64 [3, 4]."""
    memory: list[Any]
    """What the planes lie in. They are there as long as this is held."""


def decode_planes(location: Location, video: VideoRecord, plan: ClipPlan) -> DecodedPlanes:
    """Decodes the planes of a clip.

    Args:
        location: The video file.
        video: The record of the video.
        plan: The frames that are wanted.

    Returns:
        The planes.

    Raises:
        DataError: The file cannot be read or decoded. The message names it.
    """
    frames = [as_planar_420(frame) for frame in decode_frames(location, video, plan.frame_numbers)]
    yuv_to_rgb = frame_yuv_to_rgb_matrix(frames[0])
    if not (video.rotation or video.mirrored):
        table = np.array([[(plane.buffer_ptr, plane.line_size) for plane in frame.planes] for frame in frames])
        return DecodedPlanes(table, yuv_to_rgb, frames)
    upright = [[np.ascontiguousarray(apply_orientation(plane, video)) for plane in planes(frame)] for frame in frames]
    table = np.array([[(plane.ctypes.data, plane.strides[0]) for plane in frame] for frame in upright])
    return DecodedPlanes(table, yuv_to_rgb, upright)


def compose_color(color: np.ndarray, yuv_to_rgb: np.ndarray) -> np.ndarray:
    """Composes the conversion to RGB with the colours of a view, which come second.

    Args:
        color: The colour matrix of a view, float32 [3, 4].
        yuv_to_rgb: The matrix from (Y, U, V) to RGB, float64 [3, 4].

    Returns:
        The matrix from (Y, U, V) to the RGB of the view, float64 [3, 4].
    """
    linear = color[:, :3].astype(np.float64)
    composed = linear @ yuv_to_rgb
    composed[:, 3] += color[:, 3]
    return composed
