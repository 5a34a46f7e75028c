"""From decoded frames to views: crop, resize, mirror, colours and half precision in one pass over the pixels.

`one_view` in `augment_reference` says in torch what a view is. The kernel makes all views of all clips of a batch in
one launch. It has run in Triton's interpreter, and not yet on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cacl.kernels.augment_reference import CPU, augment_reference, empty_views
from cacl.kernels.augment_triton import launch_augment
from cacl.kernels.dispatch import register_operation


def augment(frames: Sequence[Tensor], crops: Tensor, colors: Tensor, size: int) -> Tensor:
    """Makes V views of each of B clips, on the device of the frames.

    Crops and colours may be on the CPU while the frames are on a GPU: they go there in one copy that nothing waits for.
    Crops on a GPU are not looked at, since that would wait for it: one that leaves its frame reads memory of others.

    Args:
        frames: The clips, B of uint8 [T, H, W, 3], RGB, with H and W of each its own. Those that are not contiguous are
            copied first.
        crops: The crops, int32 [V, B, 4], each (top, left, side, flip) in pixels of the frame; flip is 1 for a mirrored
            view, else 0.
        colors: The colour matrices, float32 [V, B, 3, 4], out = color[:, :3] @ rgb + color[:, 3] with rgb in [0, 1].
            The result is not clamped.
        size: The height and width of the views in pixels.

    Returns:
        The views, float16 [V, B, 3, T, size, size].

    Raises:
        TypeError: The dtypes are others.
        ValueError: The shapes or devices do not fit, or a crop on the CPU leaves its frame.
    """
    _check(frames, crops, colors, size)
    return _augment(list(frames), crops, colors, size)


def _check(frames: Sequence[Tensor], crops: Tensor, colors: Tensor, size: int) -> None:
    for name, tensors, dtype in (
        ("frames", frames, torch.uint8),
        ("crops", [crops], torch.int32),
        ("colors", [colors], torch.float32),
    ):
        if wrong := [tensor.dtype for tensor in tensors if tensor.dtype != dtype]:
            raise TypeError(f"{name} must be {dtype}, not {wrong[0]}")
    length = len(frames[0]) if len(frames) and frames[0].ndim else 0
    if length == 0 or any(clip.ndim != 4 or (len(clip), clip.shape[3]) != (length, 3) for clip in frames):
        shapes = [list(clip.shape) for clip in frames]
        raise ValueError(f"frames must be [T, H, W, 3] with one T for all clips, at least 1, not {shapes}")
    planned = (len(crops), len(frames)) if crops.ndim else (0, 0)
    if planned[0] == 0 or crops.shape != (*planned, 4) or colors.shape != (*planned, 3, 4):
        shapes = f"{list(crops.shape)} and {list(colors.shape)}"
        raise ValueError(f"crops and colors of {len(frames)} clips must be [V, B, 4] and [V, B, 3, 4], not {shapes}")
    if size < 1:
        raise ValueError(f"size must be at least 1, not {size}")
    device = frames[0].device
    if any(clip.device != device for clip in frames) or any(x.device not in (device, CPU) for x in (crops, colors)):
        devices = ", ".join(str(x.device) for x in (*frames, crops, colors))
        raise ValueError(f"frames must be on one device, crops and colors there or on the CPU, not on {devices}")


_augment = register_operation(
    "augment(Tensor[] frames, Tensor crops, Tensor colors, int size) -> Tensor",
    reference=augment_reference,
    kernel=launch_augment,
    fake=empty_views,
)
