"""The backend of machines without a GPU: from the decoder's YUV planes to the views, with no RGB frame between.

YUV to RGB and the colours of a view are one 3x4 matrix, and resizing is linear too, so the planes are resized and
converted as they are (`yuv_to_rgb_resize`), straight into half precision. What Pillow does to 8-bit RGB (`pillow_ops`)
is not linear, and is left to the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from torch import Tensor

from cacl.clips import ClipPlan, VideoRecord
from cacl.loaders.backends import reference, thread_pool
from cacl.loaders.backends.buffer_pool import scratch_buffer
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
    luma, chroma, yuv_to_rgb = decode_planes(location, video, plan)
    for view, target in zip(plan.views, out, strict=True):
        planes_to_view(luma, chroma, compose_color(view.color, yuv_to_rgb), view, target.numpy())


build = partial(thread_pool.build, load_clip)
"""A function (catalog, config, device, threads) -> this backend."""


def decode_planes(location: Location, video: VideoRecord, plan: ClipPlan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decodes the planes of a clip. They lie in memory of the calling thread, which its next call uses again.

    Args:
        location: The video file.
        video: The record of the video.
        plan: The frames that are wanted.

    Returns:
        Upright luma, uint8 [T, H, W], upright chroma, uint8 [2, T, H/2, W/2] with edges rounded up, and the matrix from
        (Y, U, V) in 0..255 to RGB in [0, 1], float64 [3, 4].

    Raises:
        DataError: The file cannot be read or decoded. The message names it.
    """
    luma = chroma = yuv_to_rgb = np.empty(0)
    for t, frame in enumerate(decode_frames(location, video, plan.frame_numbers)):
        frame = as_planar_420(frame)
        y, u, v = planes(frame)
        if t == 0:
            yuv_to_rgb = frame_yuv_to_rgb_matrix(frame)
            luma = scratch_buffer("luma", (plan.length, *y.shape), np.uint8)
            chroma = scratch_buffer("chroma", (2, plan.length, *u.shape), np.uint8)
        luma[t], chroma[0, t], chroma[1, t] = y, u, v
    return (
        np.ascontiguousarray(apply_orientation(luma, video)),
        np.ascontiguousarray(apply_orientation(chroma, video)),
        yuv_to_rgb,
    )


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
