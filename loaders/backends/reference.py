"""The readable backend: one clip at a time, whole RGB frames, one step after the other.

It defines what a view is; every other backend is tested against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from cacl.clips import ClipPlan, VideoRecord, ViewPlan
from cacl.kernels.augment_reference import one_view
from cacl.loaders.backends import pillow_ops, thread_pool
from cacl.loaders.decode.raw import decode_frames
from cacl.loaders.decode.storage import Location
from cacl.loaders.decode.yuv import ACCURATE_SCALING, apply_orientation, source_colorspace


def load_clip(location: Location, video: VideoRecord, plan: ClipPlan, size: int, out: Sequence[Tensor]) -> None:
    """Decodes one clip and makes its views, RGB in about [0, 1].

    Args:
        location: The video file.
        video: The record of the video.
        plan: The frames and the views that are wanted.
        size: Height and width of a view in pixels.
        out: The tensor to fill for each view, float16 [3, T, size, size].

    Raises:
        DataError: The file cannot be read or decoded. The message names it.
    """
    frames = decode_rgb(location, video, plan)
    if plan.resize:
        frames = pillow_ops.resize_frames(frames.transpose(0, 2, 3, 1), *plan.resize).transpose(0, 3, 1, 2)
    frames = torch.from_numpy(frames)
    for view, target in zip(plan.views, out, strict=True):
        target.copy_(make_view(frames, view, size))


build = partial(thread_pool.build, load_clip)
"""A function (catalog, config, device, threads) -> this backend."""


def decode_rgb(location: Location, video: VideoRecord, plan: ClipPlan) -> np.ndarray:
    """Decodes the frames of a clip.

    Args:
        location: The video file.
        video: The record of the video.
        plan: The frames that are wanted.

    Returns:
        The frames, upright, uint8 [T, 3, H, W].

    Raises:
        DataError: The file cannot be read or decoded. The message names it.
    """
    images = [
        frame.reformat(
            format="rgb24", src_colorspace=source_colorspace(frame), interpolation=ACCURATE_SCALING
        ).to_ndarray()
        for frame in decode_frames(location, video, plan.frame_numbers)
    ]
    return np.ascontiguousarray(apply_orientation(np.stack(images).transpose(0, 3, 1, 2), video))


def make_view(frames: Tensor, view: ViewPlan, size: int) -> Tensor:
    """Makes one view of the frames of a clip.

    Args:
        frames: uint8 [T, 3, H, W].
        view: The crop, the mirror and the colours.
        size: Height and width of the view in pixels.

    Returns:
        float32 [3, T, size, size], RGB in about [0, 1].
    """
    crop = (view.top, view.left, view.side, view.flip)
    made = one_view(frames.permute(0, 2, 3, 1), crop, torch.from_numpy(view.color), size)
    if not view.pillow_steps:
        return made
    images = (made * 255).round().byte().permute(1, 2, 3, 0).numpy()
    return torch.from_numpy(pillow_ops.apply_color_steps(images, view.pillow_steps)).permute(3, 0, 1, 2) / 255
