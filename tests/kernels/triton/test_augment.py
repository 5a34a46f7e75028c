"""The kernel against the reference in float64.

Half precision rounds by at most 2**-11 of a value. What float32 adds is far below the 1e-5 that is allowed for it here.
"""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from cacl.kernels.augment import augment
from cacl.kernels.augment_reference import one_view
from cacl.kernels.dispatch import INTERPRETED
from tests.gpu import cuda_device
from tests.launch import ROOT

ROUNDING, FLOAT32 = 2**-11, 1e-5


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Draws uint8 of which neighbours differ as much as they can."""
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def random_colors(views: int, clips: int) -> Tensor:
    return torch.randn(views, clips, 3, 4, generator=torch.Generator().manual_seed(views + 10 * clips))


def table(crops: Sequence[Sequence[Sequence[int]]]) -> Tensor:
    return torch.tensor(crops, dtype=torch.int32)


def truth(frames: Sequence[Tensor], crops: Tensor, colors: Tensor, size: int) -> Tensor:
    """Computes the views by the reference, in float64 on the CPU."""
    views = [
        torch.stack([one_view(*one, size) for one in zip(frames, crops_of_view, colors_of_view.double(), strict=True)])
        for crops_of_view, colors_of_view in zip(crops.tolist(), colors, strict=True)
    ]
    return torch.stack(views)


def check(device: torch.device, frames: Sequence[Tensor], crops: Tensor, colors: Tensor, size: int) -> Tensor:
    made = augment([clip.to(device) for clip in frames], crops, colors, size)
    assert (made.dtype, made.device) == (torch.float16, device)
    true = truth(frames, crops, colors, size)
    assert made.shape == true.shape == (*crops.shape[:2], 3, len(frames[0]), size, size)
    torch.testing.assert_close(made.cpu().double(), true, rtol=ROUNDING, atol=FLOAT32)
    return made


@pytest.mark.parametrize(
    ("side", "size"),
    [
        (13, 13),
        (16, 16),  # as many pixels as two programs make
        (15, 14),  # 1.07
        (15, 8),  # 1.875
        (33, 10),
        (63, 7),  # 9
        (32, 2),  # 16
        (9, 20),
        (11, 13),
        (1, 5),
        (7, 1),
    ],
)
def test_sizes(device: torch.device, side: int, size: int) -> None:
    check(device, [noise(1, side + 4, side + 9, 3)], table([[(3, 5, side, size % 2)]]), random_colors(1, 1), size)


def test_a_mirrored_view_is_the_view_mirrored(device: torch.device) -> None:
    frames = [noise(2, 20, 25, 3).to(device)]
    straight, mirrored = augment(frames, table([[(1, 2, 17, 0)], [(1, 2, 17, 1)]]), random_colors(2, 1)[[0, 0]], 12)
    assert torch.equal(mirrored, straight.flip(-1))


@pytest.mark.parametrize("size", [7, 14])
def test_crops_at_all_edges_and_corners(device: torch.device, size: int) -> None:
    """The crops are nine views of one clip."""
    crops = [[(top, left, 12, (top + left) % 2)] for top in (0, 3, 8) for left in (0, 6, 13)]
    check(device, [noise(1, 20, 25, 3)], table(crops), random_colors(9, 1), size)


@pytest.mark.parametrize("size", [8, 15])
def test_the_whole_frame(device: torch.device, size: int) -> None:
    check(device, [noise(2, 12, 12, 3)], table([[(0, 0, 12, 1)]]), random_colors(1, 1), size)


def test_clips_of_different_sizes(device: torch.device) -> None:
    """Each clip and view has another crop; one of the sides is the size."""
    frames = [noise(3, *edges, 3, seed=number) for number, edges in enumerate([(20, 31), (14, 14), (33, 18)])]
    crops = [
        [(1, 2, 18, 0), (2, 3, 11, 1), (9, 1, 16, 0)],
        [(5, 20, 11, 1), (0, 0, 14, 0), (20, 5, 8, 1)],
    ]
    check(device, frames, table(crops), random_colors(2, 3), 11)


@pytest.mark.parametrize("length", [1, 3, 8, 11])
def test_lengths(device: torch.device, length: int) -> None:
    check(device, [noise(length, 13, 16, 3)], table([[(1, 2, 12, 0)]]), random_colors(1, 1), 9)


def test_pixels_outside_of_the_crop_do_not_matter(device: torch.device) -> None:
    frames = noise(2, 30, 30, 3)
    others = noise(2, 30, 30, 3, seed=1)
    others[:, 7:20, 9:22] = frames[:, 7:20, 9:22]
    plan = table([[(7, 9, 13, 0)], [(7, 9, 13, 1)]]), random_colors(2, 1)
    for size in (5, 13, 17):
        assert torch.equal(augment([frames.to(device)], *plan, size), augment([others.to(device)], *plan, size))


@pytest.mark.skipif(not INTERPRETED, reason="on a GPU, compute-sanitizer tells")
def test_nothing_outside_of_the_frames_is_read() -> None:
    """Reading the pages around them ends the process."""
    code = "from tests.kernels.triton import test_augment as t; t.read_between_closed_pages()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def read_between_closed_pages() -> None:
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 3 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for closed in (start, start + 2 * page):
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(closed), page, 0) == 0
    for length, side in ((1, 34), (3, 18)):
        bytes_of_clip = length * side * side * 3
        for at in (page, 2 * page - bytes_of_clip):
            frames = torch.frombuffer(memory, dtype=torch.uint8, count=bytes_of_clip, offset=at)
            augment([frames.view(length, side, side, 3)], table([[(0, 0, side, 0)]]), random_colors(1, 1), 7)


def test_frames_in_any_order_of_memory(device: torch.device) -> None:
    planes = noise(2, 3, 16, 19).to(device)
    plan = table([[(1, 2, 14, 0)]]), random_colors(1, 1)
    made = augment([planes.permute(0, 2, 3, 1)], *plan, 9)
    assert torch.equal(made, augment([planes.permute(0, 2, 3, 1).contiguous()], *plan, 9))


def test_tables_in_any_place(device: torch.device) -> None:
    frames = [noise(1, 16, 19, 3).to(device), noise(1, 12, 12, 3).to(device)]
    crops, colors = table([[(1, 2, 14, 0), (0, 0, 12, 1)]]), random_colors(1, 2)
    made = augment(frames, crops, colors, 9)
    padded = torch.zeros(1, 2, 8, dtype=torch.int32)
    padded[..., ::2] = crops
    for there in (
        (crops.to(device), colors),
        (crops, colors.to(device)),
        (crops.to(device), colors.to(device)),
        (padded[..., ::2], colors),
    ):
        assert torch.equal(made, augment(frames, *there, 9))


def test_a_crop_that_leaves_its_frame_is_an_error(device: torch.device) -> None:
    frames = [noise(1, 16, 19, 3).to(device)]
    with pytest.raises(ValueError, match=r"view 0 of clip 0 is 14 x 14 pixels at top 3, left 2 of frames of 16 x 19"):
        augment(frames, table([[(3, 2, 14, 0)]]), random_colors(1, 1), 9)


def test_operation(device: torch.device) -> None:
    frames = [noise(2, 10, 12, 3).to(device), noise(2, 9, 9, 3).to(device)]
    arguments = frames, table([[(1, 2, 8, 0), (0, 0, 9, 1)]]), random_colors(1, 2), 6
    torch.library.opcheck(torch.ops.cacl.augment.default, arguments)
    compiled = torch.compile(augment, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*arguments), augment(*arguments))


@pytest.mark.gpu
def test_gpu_is_not_waited_for() -> None:
    device = cuda_device()
    arguments = [noise(4, 120, 160, 3).to(device)] * 3, table([[(1, 2, 112, 0)] * 3] * 2), random_colors(2, 3), 112
    augment(*arguments)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        augment(*arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_gpu_tables_stay_until_they_are_read() -> None:
    """Many batches are planned while the GPU is busy with something else, and their frames are let go at once."""
    device = cuda_device()
    frames = noise(4, 120, 160, 3)
    crops = [table([[(step, 2 * step, 80, step % 2)]]) for step in range(40)]
    busy = torch.randn(8192, 8192, device=device)
    for _ in range(20):
        busy = (busy @ busy).clamp(-1, 1)
    made = [augment([frames.to(device, non_blocking=True)], crop, random_colors(1, 1), 64) for crop in crops]
    for crop, views in zip(crops, made, strict=True):
        true = truth([frames], crop, random_colors(1, 1), 64)
        torch.testing.assert_close(views.cpu().double(), true, rtol=ROUNDING, atol=FLOAT32)
