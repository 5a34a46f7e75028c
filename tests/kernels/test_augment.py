"""The views on a CPU against torchvision's operators and float64, and what the operation promises torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.transforms.v2 import functional as transforms

from cacl.clips import ViewPlan
from cacl.kernels.augment import augment
from cacl.loaders.backends.reference import make_view

SIZES = [(112, 112), (120, 112), (210, 112), (90, 27), (144, 16), (60, 112), (5, 16)]
"""The sides of crops and the sizes of views, in pixels."""


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def random_colors(*shape: int) -> Tensor:
    return torch.randn(*shape, 3, 4, generator=torch.Generator().manual_seed(1))


def cropped(frames: Tensor, crop: tuple[int, int, int, int], size: int) -> Tensor:
    """Lets torchvision crop, resize and mirror floating-point [T, 3, H, W] in 0..255, to [0, 1]."""
    top, left, side, flip = crop
    x = transforms.crop(frames, top, left, side, side) / 255
    x = transforms.resize(x, [size, size], antialias=True)
    return transforms.horizontal_flip(x) if flip else x


@pytest.mark.parametrize(("side", "size"), SIZES)
def test_views_are_those_of_torchvision(side: int, size: int) -> None:
    """The views are rounded once to half precision. 5e-5: float32 tells centres of pixels near 200 to 2**-16."""
    frames = [noise(2, 220, 250, 3), noise(2, 215, 213, 3)]
    crops = [[(3, 7, side, 0), (5, 3, side, 1)], [(0, 40, side, 1), (1, 1, side, 0)]]
    colors = random_colors(2, 2)
    made = augment(frames, torch.tensor(crops, dtype=torch.int32), colors, size)
    assert (made.shape, made.dtype) == ((2, 2, 3, 2, size, size), torch.float16)
    for view, clip in np.ndindex(2, 2):
        rgb = cropped(frames[clip].permute(0, 3, 1, 2).double(), crops[view][clip], size).numpy()
        matrix = colors[view, clip].numpy().astype(np.float64)
        true = np.einsum("rc,tchw->rthw", matrix[:, :3], rgb) + matrix[:, 3, None, None, None]
        torch.testing.assert_close(made[view, clip].double(), torch.from_numpy(true), rtol=2**-11, atol=5e-5)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("side", "size"), SIZES)
def test_the_reference_backend_makes_the_bits_of_torchvision(side: int, size: int, flip: bool) -> None:
    frames = noise(2, 3, 220, 250)
    color = random_colors()
    made = make_view(frames, ViewPlan(top=4, left=6, side=side, flip=flip, color=color.numpy()), size)
    rgb = cropped(frames.float(), (4, 6, side, flip), size)
    assert torch.equal(made.transpose(0, 1), torch.einsum("rc,tchw->trhw", color[:, :3], rgb) + color[:, 3, None, None])


# --- The operation

Arguments = tuple[list[Tensor], Tensor, Tensor, int]


def arguments() -> Arguments:
    crops = torch.tensor([[(1, 2, 8, 0), (0, 0, 9, 1)], [(2, 2, 8, 1), (0, 0, 9, 0)]], dtype=torch.int32)
    return [noise(3, 10, 12, 3), noise(3, 9, 9, 3)], crops, random_colors(2, 2), 6


def test_torch_takes_the_operation() -> None:
    torch.library.opcheck(torch.ops.cacl.augment.default, arguments())


def test_compiled() -> None:
    compiled = torch.compile(augment, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*arguments()), augment(*arguments()))


def test_views_are_where_the_frames_are() -> None:
    """This holds though the plans are on the CPU. It is shown by tensors that have a device and no memory."""
    with FakeTensorMode():
        frames, crops, colors, size = arguments()
        made = augment([clip.to("cuda") for clip in frames], crops, colors, size)
        assert (made.device.type, made.shape, made.dtype) == ("cuda", (2, 2, 3, 3, 6, 6), torch.float16)
        with pytest.raises(ValueError, match="crops and colors there or on the CPU, not on cpu, cpu, cpu, meta"):
            augment(frames, crops, colors.to("meta"), size)
        with pytest.raises(ValueError, match="frames must be on one device"):
            augment([frames[0], frames[1].to("cuda")], crops, colors, size)


WRONG: list[tuple[type[Exception], str, Callable[[list[Tensor], Tensor, Tensor, int], tuple[object, ...]]]] = [
    (TypeError, r"frames must be torch.uint8, not torch.int64", lambda f, c, k, s: ([f[0], f[1].long()], c, k, s)),
    (TypeError, r"crops must be torch.int32, not torch.int64", lambda f, c, k, s: (f, c.long(), k, s)),
    (TypeError, r"colors must be torch.float32, not torch.float64", lambda f, c, k, s: (f, c, k.double(), s)),
    (ValueError, r"frames must be \[T, H, W, 3\].*, not \[\]", lambda f, c, k, s: ([], c, k, s)),
    (
        ValueError,
        r"one T for all clips.*\[\[3, 10, 12, 3\], \[2, 9, 9,",
        lambda f, c, k, s: ([f[0], f[1][:2]], c, k, s),
    ),
    (ValueError, r"at least 1, not \[\[0, 10, 12, 3\]", lambda f, c, k, s: ([x[:0] for x in f], c, k, s)),
    (ValueError, r"frames must be \[T, H, W, 3\]", lambda f, c, k, s: ([x.permute(0, 3, 1, 2) for x in f], c, k, s)),
    (ValueError, r"frames must be \[T, H, W, 3\]", lambda f, c, k, s: ([x[0] for x in f], c, k, s)),
    (ValueError, r"of 2 clips must be .*, not \[2, 1, 4\] and", lambda f, c, k, s: (f, c[:, :1], k, s)),
    (ValueError, r"of 2 clips must be .*, not \[2, 2, 3\] and", lambda f, c, k, s: (f, c[..., :3], k, s)),
    (ValueError, r"of 2 clips must be .*, not \[0, 2, 4\] and", lambda f, c, k, s: (f, c[:0], k[:0], s)),
    (ValueError, r"and \[1, 2, 3, 4\]", lambda f, c, k, s: (f, c, k[:1], s)),
    (ValueError, r"and \[2, 2, 3, 3\]", lambda f, c, k, s: (f, c, k[..., :3], s)),
    (ValueError, r"size must be at least 1, not 0", lambda f, c, k, s: (f, c, k, 0)),
]


@pytest.mark.parametrize(("error", "message", "wrong"), WRONG)
def test_errors(error: type[Exception], message: str, wrong: Callable[..., tuple]) -> None:
    with pytest.raises(error, match=message):
        augment(*wrong(*arguments()))


@pytest.mark.parametrize(
    "crop",
    [(-1, 0, 5, 0), (0, -1, 5, 0), (5, 0, 5, 0), (0, 5, 5, 0), (0, 0, 10, 0), (2, 2, 0, 0), (0, 2**31 - 1, 1, 0)],
)
def test_a_crop_that_leaves_its_frame_is_an_error(crop: tuple[int, int, int, int]) -> None:
    frames, crops, colors, size = arguments()
    crops[1, 1] = torch.tensor(crop)
    top, left, side, _ = crop
    message = f"view 1 of clip 1 is {side} x {side} pixels at top {top}, left {left} of frames of 9 x 9"
    with pytest.raises(ValueError, match=message):
        augment(frames, crops, colors, size)
