"""Views of decoded frames in torch: the readable form of what the kernel computes, and what runs on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

CPU = torch.device("cpu")


def one_view(frames: Tensor, crop: Sequence[int], color: Tensor, size: int) -> Tensor:
    """Makes one view of one clip.

    Args:
        frames: The frames, uint8 [T, H, W, 3], RGB.
        crop: The crop (top, left, side, flip) in pixels of the frame; flip is 1 for a mirrored view, else 0.
        color: The colour matrix [3, 4] of a floating-point dtype, as `augment` takes it.
        size: The height and width of the view in pixels.

    Returns:
        The view in the dtype of the colour matrix, [3, T, size, size].
    """
    top, left, side, flip = crop
    x = frames[:, top : top + side, left : left + side].permute(0, 3, 1, 2).contiguous().to(color.dtype) / 255
    x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)  # [T, 3, size, size]
    if flip:
        x = x.flip(-1)
    x = torch.einsum("rc,tchw->trhw", color[:, :3], x) + color[:, 3, None, None]
    return x.transpose(0, 1)


def augment_reference(frames: Sequence[Tensor], crops: Tensor, colors: Tensor, size: int) -> Tensor:
    """Makes all views of a batch, one after the other; arguments, result and errors are those of `augment`."""
    check_crops(frames, crops)
    out = empty_views(frames, crops, colors, size)
    for view, crops_of_view in enumerate(crops.tolist()):
        for clip, crop in enumerate(crops_of_view):
            out[view, clip] = one_view(frames[clip], crop, colors[view, clip], size)
    return out


def check_crops(frames: Sequence[Tensor], crops: Tensor) -> None:
    """Checks that all crops are within their frames. Crops on a GPU are not looked at.

    Args:
        frames: The clips, B of uint8 [T, H, W, 3].
        crops: The crops, int32 [V, B, 4].

    Raises:
        ValueError: A crop leaves its frame.
    """
    if crops.device != CPU:
        return
    edges = torch.tensor([clip.shape[1:3] for clip in frames])
    start, side = crops[..., :2].long(), crops[..., 2:3].long()
    wrong = ((start < 0) | (side < 1) | (start + side > edges)).any(-1).nonzero().tolist()
    if wrong:
        view, clip = wrong[0]
        top, left, side, _ = crops[view, clip].tolist()
        height, width = edges[clip].tolist()
        raise ValueError(
            f"view {view} of clip {clip} is {side} x {side} pixels at top {top}, left {left} of frames of "
            f"{height} x {width} (height x width)"
        )


def empty_views(frames: Sequence[Tensor], crops: Tensor, colors: Tensor, size: int) -> Tensor:
    """Makes an empty tensor for what `augment` returns."""
    views, clips = crops.shape[:2]
    return frames[0].new_empty(views, clips, 3, len(frames[0]), size, size, dtype=torch.float16)
