"""The readable backend: one clip at a time, whole RGB frames, one step after the other.

It defines what a view is; every other backend is tested against it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cacl.clips import ClipPlan, VideoRecord, ViewPlan
from cacl.kernels.augment import one_view
from cacl.loaders.backends import pillow_ops
from cacl.loaders.decode.raw import apply_orientation, decode_frames
from cacl.loaders.decode.storage import Location
from cacl.loaders.decode.yuv import ACCURATE_SCALING, source_colorspace


def load_clip(location: Location, video: VideoRecord, plan: ClipPlan, size: int, out: Sequence[Tensor]) -> None:
    """Fills out, one float16 [3, T, size, size] per view, with the views of one clip, RGB in about [0, 1]."""
    frames = decode_rgb(location, video, plan)
    if plan.resize:
        frames = pillow_ops.resized(frames.transpose(0, 2, 3, 1), *plan.resize).transpose(0, 3, 1, 2)
    frames = torch.from_numpy(frames)
    for view, target in zip(plan.views, out, strict=True):
        target.copy_(make_view(frames, view, size))


def decode_rgb(location: Location, video: VideoRecord, plan: ClipPlan) -> np.ndarray:
    """uint8 [T, 3, H, W]: the frames of the clip, upright."""
    images = [
        frame.reformat(
            format="rgb24", src_colorspace=source_colorspace(frame), interpolation=ACCURATE_SCALING
        ).to_ndarray()
        for frame in decode_frames(location, video, plan.frame_numbers)
    ]
    return np.ascontiguousarray(apply_orientation(np.stack(images).transpose(0, 3, 1, 2), video))


def make_view(frames: Tensor, view: ViewPlan, size: int) -> Tensor:
    """uint8 [T, 3, H, W] to float32 [3, T, size, size]."""
    crop = (view.top, view.left, view.side, view.flip)
    made = one_view(frames.permute(0, 2, 3, 1), crop, torch.from_numpy(view.color), size)
    if not view.pillow_steps:
        return made
    images = (made * 255).round().byte().permute(1, 2, 3, 0).numpy()
    return torch.from_numpy(pillow_ops.jittered(images, view.pillow_steps)).permute(3, 0, 1, 2) / 255
