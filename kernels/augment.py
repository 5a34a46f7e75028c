"""From decoded frames to views: crop, resize, mirror, colours and half precision in one pass over the pixels.

`one_view` says in torch what a view is. The kernel makes all views of all clips of a batch in one launch. It has run in
Triton's interpreter, and not yet on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from cacl.kernels.dispatch import operation

MOST_FRAMES = 8
"""Frames of a clip that one program makes: their weights and addresses are the same."""
PIXELS = 128
"""Pixels of a view that one program makes of each of these frames."""
OPTIONS = {
    "num_warps": 4,
    "enable_fp_fusion": True,  # the default up to Triton 3.9: views must not change with the version of a library
}

CPU = torch.device("cpu")


def augment(frames: Sequence[Tensor], crops: Tensor, colors: Tensor, size: int) -> Tensor:
    """V views of each of B clips: float16 [V, B, 3, T, size, size], on the device of the frames.

    frames: B of uint8 [T, H, W, 3], RGB, with H and W of each its own; those that are not contiguous are copied first.
    crops: int32 [V, B, 4], (top, left, side, flip) in pixels of the frame; flip is 1 for a mirrored view, else 0.
    colors: float32 [V, B, 3, 4], out = color[:, :3] @ rgb + color[:, 3] with rgb in [0, 1]; not clamped afterwards.

    crops and colors may be on the CPU while the frames are on a GPU: they go there in one copy that nothing waits for.
    Raises TypeError for other dtypes, and ValueError for other shapes or devices and for a crop that leaves its frame.
    Crops on a GPU are not looked at, since that would wait for it: one that leaves its frame reads memory of others.
    """
    _check(frames, crops, colors, size)
    return _augment(list(frames), crops, colors, size)


def one_view(frames: Tensor, crop: Sequence[int], color: Tensor, size: int) -> Tensor:
    """One view of one clip, in the dtype of its colours: [3, T, size, size].

    frames: uint8 [T, H, W, 3], crop: (top, left, side, flip), color: [3, 4], all as `augment` has them.
    """
    top, left, side, flip = crop
    x = frames[:, top : top + side, left : left + side].permute(0, 3, 1, 2).contiguous().to(color.dtype) / 255
    x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
    if flip:
        x = x.flip(-1)
    x = torch.einsum("rc,tchw->trhw", color[:, :3], x) + color[:, 3, None, None]
    return x.transpose(0, 1)


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


def _check_crops(frames: Sequence[Tensor], crops: Tensor) -> None:
    """Raises ValueError for a crop that leaves its frame. Those on a GPU are not looked at."""
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


def _empty(frames: Sequence[Tensor], crops: Tensor, colors: Tensor, size: int) -> Tensor:
    views, clips = crops.shape[:2]
    return frames[0].new_empty(views, clips, 3, len(frames[0]), size, size, dtype=torch.float16)


def _reference(frames: Sequence[Tensor], crops: Tensor, colors: Tensor, size: int) -> Tensor:
    _check_crops(frames, crops)
    out = _empty(frames, crops, colors, size)
    for view, crops_of_view in enumerate(crops.tolist()):
        for clip, crop in enumerate(crops_of_view):
            out[view, clip] = one_view(frames[clip], crop, colors[view, clip], size)
    return out


# --- The kernel


def _launch(frames: Sequence[Tensor], crops: Tensor, colors: Tensor, size: int) -> Tensor:
    _check_crops(frames, crops)
    out = _empty(frames, crops, colors, size)
    views, clips, _, length, *_ = out.shape
    frames = [clip.contiguous() for clip in frames]
    places = torch.tensor([(clip.data_ptr(), *clip.shape[1:3]) for clip in frames])
    run = min(MOST_FRAMES, triton.next_power_of_2(length))
    grid = triton.cdiv(size * size, PIXELS) * views * triton.cdiv(length, run) * clips
    augment_kernel[grid,](
        out,
        # Every table but the last has a multiple of 16 bytes, so all of them begin at one.
        *_brought(out.device, crops, colors, places),
        clips,
        length,
        views,
        size,
        FRAMES=run,
        PIXELS=PIXELS,
        **OPTIONS,
    )
    return out


def _brought(device: torch.device, *tables: Tensor) -> list[Tensor]:
    """The same numbers in one dimension and on this device: those from the CPU by one copy that nobody waits for."""
    flat = [table.contiguous().flatten() for table in tables]
    ours = [table.view(torch.uint8) for table in flat if table.device == CPU]
    packed = torch.cat(ours)
    if device != CPU:
        packed = packed.pin_memory().to(device, non_blocking=True)
    parts = iter(packed.split([len(part) for part in ours]))
    return [next(parts).view(table.dtype) if table.device == CPU else table for table in flat]


@triton.jit
def augment_kernel(
    out,
    crops,
    colors,
    places,
    clips,
    length,
    views,
    size,
    FRAMES: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Some pixels of some frames of one view of one clip; all names as in `augment`.

    places: int64 [B, 3], for each clip the address of its frames, H and W.
    """
    # The views of a frame are made next to each other, so that all but the first find it in the L2 cache: both views
    # from one read of the memory.
    tiles = tl.cdiv(size * size, PIXELS)
    runs = tl.cdiv(length, FRAMES)
    program = tl.program_id(0)
    tile = program % tiles
    view = program // tiles % views
    run = program // tiles // views % runs
    clip = program // tiles // views // runs
    plan = view * clips + clip

    top = tl.load(crops + plan * 4)
    left = tl.load(crops + plan * 4 + 1)
    side = tl.load(crops + plan * 4 + 2)
    flip = tl.load(crops + plan * 4 + 3)
    address = tl.load(places + clip * 3).to(tl.pointer_type(tl.uint8))
    height = tl.load(places + clip * 3 + 1)
    width = tl.load(places + clip * 3 + 2)
    first_frame = run * FRAMES
    first = address + (top * width + left) * 3

    # Antialiased bilinear resizing as in torch (upsample_bilinear2d_aa), before the mirror: an output pixel is the
    # average of the input pixels under a triangle around its centre.
    pixel = tile * PIXELS + tl.arange(0, PIXELS)
    y = tl.minimum(pixel // size, size - 1)
    x = pixel % size
    scale = tl.div_rn(side * 1.0, size * 1.0)
    support = tl.maximum(scale, 1.0)
    slope = 1 / support
    taps = tl.where(side == size, 1, tl.cdiv(2 * tl.maximum(side, size), size))
    row_center = scale * (y + 0.5)
    column_center = scale * (x + 0.5)
    first_row = (row_center - support + 0.5).to(tl.int32)
    first_column = (column_center - support + 0.5).to(tl.int32)
    row_total = tl.zeros([PIXELS], tl.float32)
    column_total = tl.zeros([PIXELS], tl.float32)
    for j in range(taps):
        column_total += _weight(first_column + j, column_center, slope, side)
    # Red, green and blue of each frame: a tensor with the frames as a dimension would have threads next to each other
    # at the same pixel of different frames, with Triton 3.6.
    sums = ()
    for _ in tl.static_range(3 * FRAMES):
        sums = sums + (tl.zeros([PIXELS], tl.float32),)
    for i in range(taps):
        row = first_row + i
        row_weight = _weight(row, row_center, slope, side)
        row_total += row_weight
        row_start = tl.minimum(tl.maximum(row, 0), side - 1) * width * 3
        for j in range(taps):
            column = first_column + j
            weight = row_weight * _weight(column, column_center, slope, side)
            # Weights outside of the crop are 0; what they are multiplied with is any pixel inside of it.
            rank_offset = row_start + tl.minimum(tl.maximum(column, 0), side - 1) * 3
            updated = ()
            for f in tl.static_range(FRAMES):
                at = first + tl.minimum(first_frame + f, length - 1) * height * width * 3 + rank_offset
                for channel in tl.static_range(3):
                    updated = updated + (sums[3 * f + channel] + weight * tl.load(at + channel),)
            sums = updated

    # Mirrored when writing, which also keeps each thread at one pixel: for writes of neighbours in one piece Triton
    # would exchange them between threads in every round of the loop.
    share = 1 / (255 * row_total * column_total)
    target = y * size + tl.where(flip != 0, size - 1 - x, x)
    for channel in tl.static_range(3):
        color = colors + (plan * 3 + channel) * 4
        red, green, blue, constant = tl.load(color), tl.load(color + 1), tl.load(color + 2), tl.load(color + 3)
        for f in tl.static_range(FRAMES):
            mixed = red * sums[3 * f] + green * sums[3 * f + 1] + blue * sums[3 * f + 2]
            value = mixed * share + constant
            t = first_frame + f
            picture = ((plan * 3 + channel).to(tl.int64) * length + t) * size * size
            tl.store(out + picture + target, value.to(tl.float16), mask=pixel < tl.where(t < length, size * size, 0))


@triton.jit
def _weight(pixel, center, slope, side):
    """Of one pixel of a row or column of the crop, not normalised: a triangle, and 0 outside of the crop."""
    weight = tl.maximum(1 - tl.abs(pixel + 0.5 - center) * slope, 0)
    return tl.where((pixel >= 0) & (pixel < side), weight, 0)


_augment = operation(
    "augment(Tensor[] frames, Tensor crops, Tensor colors, int size) -> Tensor",
    reference=_reference,
    kernel=_launch,
    shapes=_empty,
)
