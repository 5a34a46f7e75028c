"""Views of decoded frames in Triton: the kernel and its launch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from cacl.kernels.augment_reference import CPU, check_crops, empty_views

# --- Kernel


@triton.jit
def augment_kernel(
    out,
    crops,
    colors,
    clip_table,
    clips,
    length,
    views,
    size,
    BLOCK_T: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Makes BLOCK_P pixels of BLOCK_T frames of one view of one clip.

    out, crops, colors and size are those of `augment`. clip_table, int64 [B, 3], has for each clip the address of its
    frames, their height and their width.
    """
    # The views of a frame are made next to each other, so that all but the first find it in the L2 cache: both views
    # from one read of the memory.
    tiles = tl.cdiv(size * size, BLOCK_P)
    chunks = tl.cdiv(length, BLOCK_T)
    program = tl.program_id(0)
    tile = program % tiles
    view = program // tiles % views
    chunk = program // tiles // views % chunks
    clip = program // tiles // views // chunks
    plan = view * clips + clip

    top = tl.load(crops + plan * 4)
    left = tl.load(crops + plan * 4 + 1)
    side = tl.load(crops + plan * 4 + 2)
    flip = tl.load(crops + plan * 4 + 3)
    address = tl.load(clip_table + clip * 3).to(tl.pointer_type(tl.uint8))
    height = tl.load(clip_table + clip * 3 + 1)
    width = tl.load(clip_table + clip * 3 + 2)
    first_frame = chunk * BLOCK_T
    crop_start = address + (top * width + left) * 3

    pixel = tile * BLOCK_P + tl.arange(0, BLOCK_P)  # [BLOCK_P]
    y = tl.minimum(pixel // size, size - 1)
    x = pixel % size
    sums, to_average = _sum_under_triangles(
        crop_start, y, x, side, size, first_frame, length, height, width, BLOCK_T, BLOCK_P
    )
    # Views are mirrored when they are written, which also keeps each thread at one pixel: for writes of neighbours in
    # one piece Triton would exchange them between threads in every round of the loop.
    target = y * size + tl.where(flip != 0, size - 1 - x, x)
    _store_colored(out, colors, sums, to_average, plan, first_frame, length, size, pixel, target, BLOCK_T)


@triton.jit
def _sum_under_triangles(
    crop_start,
    y,
    x,
    side,
    size,
    first_frame,
    length,
    height,
    width,
    BLOCK_T: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Sums the input pixels of each output pixel (y, x) under a triangle around its centre, in BLOCK_T frames.

    This is the antialiased bilinear resizing of torch (upsample_bilinear2d_aa), before the mirror. It returns the sums
    of red, green and blue of each frame, a tuple of float32 [BLOCK_P], and the factor, float32 [BLOCK_P], that makes
    averages in [0, 1] of them.
    """
    scale = tl.div_rn(side * 1.0, size * 1.0)
    support = tl.maximum(scale, 1.0)
    slope = 1 / support
    taps = tl.where(side == size, 1, tl.cdiv(2 * tl.maximum(side, size), size))
    row_center = scale * (y + 0.5)
    column_center = scale * (x + 0.5)
    first_row = (row_center - support + 0.5).to(tl.int32)
    first_column = (column_center - support + 0.5).to(tl.int32)
    row_total = tl.zeros([BLOCK_P], tl.float32)
    column_total = tl.zeros([BLOCK_P], tl.float32)
    for j in range(taps):
        column_total += _triangle(first_column + j, column_center, slope, side)
    # A tensor with the frames as a dimension would have threads next to each other at the same pixel of different
    # frames, with Triton 3.6.
    sums = ()
    for _ in tl.static_range(3 * BLOCK_T):
        sums = sums + (tl.zeros([BLOCK_P], tl.float32),)
    for i in range(taps):
        row = first_row + i
        row_weight = _triangle(row, row_center, slope, side)
        row_total += row_weight
        row_start = tl.minimum(tl.maximum(row, 0), side - 1) * width * 3
        for j in range(taps):
            column = first_column + j
            weight = row_weight * _triangle(column, column_center, slope, side)
            # Weights outside of the crop are 0; what they are multiplied with is any pixel inside of it.
            offset = row_start + tl.minimum(tl.maximum(column, 0), side - 1) * 3
            updated = ()
            for f in tl.static_range(BLOCK_T):
                at = crop_start + tl.minimum(first_frame + f, length - 1) * height * width * 3 + offset
                for channel in tl.static_range(3):
                    updated = updated + (sums[3 * f + channel] + weight * tl.load(at + channel),)
            sums = updated
    return sums, 1 / (255 * row_total * column_total)


@triton.jit
def _triangle(pixel, center, slope, side):
    """Weighs one pixel of a row or column of the crop, not normalised: by a triangle, and by 0 outside of the crop."""
    weight = tl.maximum(1 - tl.abs(pixel + 0.5 - center) * slope, 0)
    return tl.where((pixel >= 0) & (pixel < side), weight, 0)


@triton.jit
def _store_colored(
    out, colors, sums, to_average, plan, first_frame, length, size, pixel, target, BLOCK_T: tl.constexpr
):
    """Multiplies the averages with the colour matrix of the view, and stores them in half precision."""
    for channel in tl.static_range(3):
        color = colors + (plan * 3 + channel) * 4
        red, green, blue, constant = tl.load(color), tl.load(color + 1), tl.load(color + 2), tl.load(color + 3)
        for f in tl.static_range(BLOCK_T):
            mixed = red * sums[3 * f] + green * sums[3 * f + 1] + blue * sums[3 * f + 2]
            value = mixed * to_average + constant
            t = first_frame + f
            plane = ((plan * 3 + channel).to(tl.int64) * length + t) * size * size
            tl.store(out + plane + target, value.to(tl.float16), mask=pixel < tl.where(t < length, size * size, 0))


# --- Launch

MAX_FRAMES_PER_PROGRAM = 8
"""The most frames of a clip that one program makes: their weights and addresses are the same."""
PIXELS_PER_PROGRAM = 128
"""The pixels of a view that one program makes of each of these frames."""
OPTIONS = {
    "num_warps": 4,
    "enable_fp_fusion": True,  # the default up to Triton 3.9: views must not change with the version of a library
}


def launch_augment(frames: Sequence[Tensor], crops: Tensor, colors: Tensor, size: int) -> Tensor:
    """Launches `augment_kernel`; arguments, result and errors are those of `augment`."""
    check_crops(frames, crops)
    out = empty_views(frames, crops, colors, size)
    views, clips, _, length, *_ = out.shape
    frames = [clip.contiguous() for clip in frames]
    clip_table = torch.tensor([(clip.data_ptr(), *clip.shape[1:3]) for clip in frames])
    # Every table but the last has a multiple of 16 bytes, so all of them begin at one.
    crops, colors, clip_table = _flat_on_device(out.device, crops, colors, clip_table)
    block_t = min(MAX_FRAMES_PER_PROGRAM, triton.next_power_of_2(length))
    programs = triton.cdiv(size * size, PIXELS_PER_PROGRAM) * views * triton.cdiv(length, block_t) * clips
    augment_kernel[programs,](
        out=out,
        crops=crops,
        colors=colors,
        clip_table=clip_table,
        clips=clips,
        length=length,
        views=views,
        size=size,
        BLOCK_T=block_t,
        BLOCK_P=PIXELS_PER_PROGRAM,
        **OPTIONS,
    )
    return out


def _flat_on_device(device: torch.device, *tables: Tensor) -> list[Tensor]:
    """Brings tables to a device in one dimension: those from the CPU by one copy that nobody waits for."""
    flat = [table.contiguous().flatten() for table in tables]
    from_cpu = [table.view(torch.uint8) for table in flat if table.device == CPU]
    packed = torch.cat(from_cpu)
    if device != CPU:
        packed = packed.pin_memory().to(device, non_blocking=True)
    parts = iter(packed.split([len(part) for part in from_cpu]))
    return [next(parts).view(table.dtype) if table.device == CPU else table for table in flat]
