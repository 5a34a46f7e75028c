"""3D CNNs that turn a clip into a feature map and a vector: C3D, R3D and R(2+1)D."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from cacl.config import Init

Kernel = tuple[int, int, int]  # frames, height, width
Conv = Callable[..., nn.Module]
"""(inputs, outputs, kernel, stride) -> a convolution, whole or factorised."""

_C3D = (64, (1, 2, 2), 128, (2, 2, 2), 256, 256, (2, 2, 2), 512, 512, (2, 2, 2), 512, 512)
"""Channels of a convolution, or the window of a max-pool."""


class CNN3D(nn.Module):
    """A chain of layers that ends in the map of its last stage ("conv5").

    init: `normal` draws all convolutions as He et al., ICCV 2015 (normal, fan out); `torch` leaves them as torch draws
    them. `out_channels` is the length of the feature: 512 x width, as a multiple of 8.
    """

    def __init__(self, layers: Sequence[nn.Module], out_channels: int, init: Init = "normal") -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.out_channels = out_channels
        for module in self.modules():  # batch norm starts at weight 1, bias 0 by itself
            if isinstance(module, nn.Conv3d) and init == "normal":
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def maps(self, x: Tensor) -> Tensor:
        """[B,3,T,H,W] -> [B,C,t,h,w], before pooling; retrieval looks at these."""
        return self.layers(x)

    def forward(self, x: Tensor) -> Tensor:
        """[B,3,T,H,W] -> [B,C], the mean over all positions of the map."""
        return self.maps(x).mean((2, 3, 4))


class C3D(CNN3D):
    """C3D (Tran et al., ICCV 2015) with batch norm after each of its eight convolutions, and the mean over the last
    map in place of the fully connected layers. Time is halved three times, height and width four times, rounding down.

    27.7 M parameters at width 1; a clip of 16 x 112 x 112 ends in a map of 512 x 2 x 7 x 7.
    """

    def __init__(self, width: float = 1.0, init: Init = "normal") -> None:
        layers: list[nn.Module] = []
        inputs = 3
        for step in _C3D:
            if isinstance(step, tuple):
                layers.append(nn.MaxPool3d(step))
            else:
                outputs = _scaled(step, width)
                layers += [nn.Conv3d(inputs, outputs, 3, padding=1), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)]
                inputs = outputs
        super().__init__(layers, inputs, init)


class ResNet3D(CNN3D):
    """A residual network over time and space (Tran et al., "A Closer Look at Spatiotemporal Convolutions", CVPR 2018).

    A stem that halves height and width, then four stages of `depths` basic blocks; stages 2 to 4 begin by halving
    time, height and width, rounding up. `factorised` makes it R(2+1)D: each convolution becomes one over space and one
    over time with batch norm and ReLU between. In Tran et al.'s models the 1x1x1 shortcuts stay as they are, and the
    stem has 45 channels between; `shortcuts_too` is the form of the release of Guo et al. (CVPR 2022), whose shortcuts
    are factorised like all else, and whose stem follows the rule for equal size, too: 83 channels.

    Millions of parameters at width 1: 14.4 for one block a stage, in all three forms.
    """

    def __init__(
        self,
        depths: Sequence[int],
        width: float = 1.0,
        init: Init = "normal",
        *,
        factorised: bool = False,
        shortcuts_too: bool = False,
    ) -> None:
        conv = _factorised if factorised else _conv
        shortcut = conv if shortcuts_too else _conv
        inputs = _scaled(64, width)
        kernel, stride = (3, 7, 7), (1, 2, 2)
        if factorised and not shortcuts_too:
            stem = _factorised(3, inputs, kernel, stride, middle=45 * inputs // 64)
        else:
            stem = conv(3, inputs, kernel, stride)
        layers: list[nn.Module] = [stem, nn.BatchNorm3d(inputs), nn.ReLU(inplace=True)]
        for stage, (depth, channels) in enumerate(zip(depths, (64, 128, 256, 512), strict=True)):
            outputs = _scaled(channels, width)
            for block in range(depth):
                halve = stage > 0 and block == 0
                layers.append(_BasicBlock(inputs, outputs, halve=halve, conv=conv, shortcut=shortcut))
                inputs = outputs
        super().__init__(layers, inputs, init)


class _BasicBlock(nn.Module):
    """Two convolutions and a shortcut (He et al., CVPR 2016), in three dimensions."""

    def __init__(self, inputs: int, outputs: int, *, halve: bool, conv: Conv, shortcut: Conv) -> None:
        super().__init__()
        stride = (2, 2, 2) if halve else (1, 1, 1)
        self.residual = nn.Sequential(
            conv(inputs, outputs, stride=stride),
            nn.BatchNorm3d(outputs),
            nn.ReLU(inplace=True),
            conv(outputs, outputs),
            nn.BatchNorm3d(outputs),
        )
        self.shortcut = nn.Identity()
        if halve:
            self.shortcut = nn.Sequential(
                shortcut(inputs, outputs, kernel=(1, 1, 1), stride=stride), nn.BatchNorm3d(outputs)
            )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.residual(x) + self.shortcut(x))


def _conv(inputs: int, outputs: int, kernel: Kernel = (3, 3, 3), stride: Kernel = (1, 1, 1)) -> nn.Conv3d:
    """Without bias, as batch norm follows, and padded so that only the stride changes the size."""
    time, height, width = kernel
    return nn.Conv3d(inputs, outputs, kernel, stride, padding=(time // 2, height // 2, width // 2), bias=False)


def _factorised(
    inputs: int, outputs: int, kernel: Kernel = (3, 3, 3), stride: Kernel = (1, 1, 1), middle: int | None = None
) -> nn.Module:
    """Space, then time. By default the channels between make both together as large as the full convolution
    (Tran et al., CVPR 2018, section 3.5)."""
    time, height, width = kernel
    if middle is None:
        middle = time * height * width * inputs * outputs // (height * width * inputs + time * outputs)
    return nn.Sequential(
        _conv(inputs, middle, (1, height, width), (1, *stride[1:])),
        nn.BatchNorm3d(middle),
        nn.ReLU(inplace=True),
        _conv(middle, outputs, (time, 1, 1), (stride[0], 1, 1)),
    )


def _scaled(channels: int, width: float) -> int:
    """A multiple of 8, at least 8: what tensor cores and the group sizes of kernels ask for."""
    return max(8, round(channels * width / 8) * 8)


CNNS: dict[str, Callable[..., CNN3D]] = {
    "c3d": C3D,
    "r3d10": partial(ResNet3D, (1, 1, 1, 1)),
    "r3d18": partial(ResNet3D, (2, 2, 2, 2)),
    "r3d34": partial(ResNet3D, (3, 4, 6, 3)),
    "r2plus1d10": partial(ResNet3D, (1, 1, 1, 1), factorised=True),
    "r2plus1d10_official": partial(ResNet3D, (1, 1, 1, 1), factorised=True, shortcuts_too=True),
    "r2plus1d18": partial(ResNet3D, (2, 2, 2, 2), factorised=True),
}
"""Every 3D CNN by name, as a function of (width multiplier, init)."""
