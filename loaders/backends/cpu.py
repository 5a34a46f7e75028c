"""The backend of machines without a GPU: from the decoder's YUV planes to the views, with no RGB frame between.

YUV to RGB and the colours of a view are one 3x4 matrix, and resizing is linear too, so planes are resized and mixed as
they are (`mix`), straight into half precision. What Pillow does to 8-bit RGB (`pillow`) is not linear, and is left to
the reference.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from cacl.clips import ClipPlan, VideoRecord
from cacl.loaders.backends import reference
from cacl.loaders.backends.buffer_pool import scratch
from cacl.loaders.backends.yuv_to_rgb_resize import planes_to_view
from cacl.loaders.decode.raw import apply_orientation, decode_frames
from cacl.loaders.decode.storage import Location
from cacl.loaders.decode.yuv import as_planar_420, frame_yuv_to_rgb_matrix, planes


def load_clip(location: Location, video: VideoRecord, plan: ClipPlan, size: int, out: Sequence[Tensor]) -> None:
    """Fills out, one float16 [3, T, size, size] per view, with the views of one clip."""
    if plan.needs_pillow:
        reference.load_clip(location, video, plan, size, out)
        return
    luma, chroma, to_rgb = decode_planes(location, video, plan)
    for view, target in zip(plan.views, out, strict=True):
        planes_to_view(luma, chroma, compose(view.color, to_rgb), view, target.numpy())


def decode_planes(location: Location, video: VideoRecord, plan: ClipPlan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """uint8 [T, H, W] luma, uint8 [2, T, H/2, W/2] chroma (rounded up), both upright, and their matrix to RGB.

    The planes are in memory of this thread, which its next call uses again.
    """
    luma = chroma = to_rgb = np.empty(0)
    for t, frame in enumerate(decode_frames(location, video, plan.frame_numbers)):
        frame = as_planar_420(frame)
        y, u, v = planes(frame)
        if t == 0:
            to_rgb = frame_yuv_to_rgb_matrix(frame)
            luma = scratch("luma", (plan.length, *y.shape), np.uint8)
            chroma = scratch("chroma", (2, plan.length, *u.shape), np.uint8)
        luma[t], chroma[0, t], chroma[1, t] = y, u, v
    return (
        np.ascontiguousarray(apply_orientation(luma, video)),
        np.ascontiguousarray(apply_orientation(chroma, video)),
        to_rgb,
    )


def compose(color: np.ndarray, to_rgb: np.ndarray) -> np.ndarray:
    """float64 [3, 4]: first (Y, U, V) to RGB, then the colours of the view."""
    linear = color[:, :3].astype(np.float64)
    mixed = linear @ to_rgb
    mixed[:, 3] += color[:, 3]
    return mixed
