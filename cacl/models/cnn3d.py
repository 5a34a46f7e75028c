"""3D CNNs that turn a clip into a feature map and a vector: C3D, R3D and R(2+1)D."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from cacl.config import Config, Init
from cacl.models.encoder import Encoder
from cacl.models.recompute import recompute

Size3D = tuple[int, int, int]
"""The size or stride of a window: frames, height, width."""

ConvFactory = Callable[..., nn.Module]
"""A function (in_channels, out_channels, kernel_size, stride) -> a convolution, full or factorised."""

_C3D_LAYERS = (64, (1, 2, 2), 128, (2, 2, 2), 256, 256, (2, 2, 2), 512, 512, (2, 2, 2), 512, 512)
"""The layers of C3D in order: the channels of a convolution, or the window of a max-pool."""


class CNN3D(Encoder):
    """A chain of layers that ends in the feature map of its last stage ("conv5").

    Args:
        layers: The layers, which together map clips [B, 3, T, H, W] to feature maps [B, C, T', H', W'].
        num_features: C, the channels of the last feature map. It is 512 times the width multiplier, as a multiple of 8.
        stages: The position of the first layer of each stage, from conv1 on.
        init: `normal` draws the weights of all convolutions as He et al. do (ICCV 2015: normal, by fan out); `torch`
            leaves them as torch draws them.
    """

    def __init__(
        self, layers: Sequence[nn.Module], num_features: int, stages: Sequence[int], init: Init = "normal"
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.num_features, self.stages = num_features, stages
        self.checkpointing = False
        for module in self.modules():  # batch norm starts with weights of 1 and biases of 0 by itself
            if isinstance(module, nn.Conv3d) and init == "normal":
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_features(self, clips: Tensor) -> Tensor:
        """Computes the last feature map, before pooling. Retrieval takes its features from it.

        Args:
            clips: Floats [B, 3, T, H, W], RGB in about [0, 1].

        Returns:
            Floats [B, C, T', H', W'] with C = `num_features`.
        """
        if self.checkpointing:
            return self.forward_stages(clips)[-1]
        return self.layers(_channels_last_on_cpu(clips))

    def forward_stages(self, clips: Tensor) -> list[Tensor]:
        """Computes the feature map of each stage, from conv1 on. The last one is that of `forward_features`.

        Args:
            clips: Floats [B, 3, T, H, W], RGB in about [0, 1].

        Returns:
            Floats [B, C, T', H', W'] for each stage.
        """
        maps, x = [], _channels_last_on_cpu(clips)
        for layers in self._layers_by_stage():
            x = recompute(layers, x) if self.checkpointing else layers(x)
            maps.append(x)
        return maps

    def forward(self, clips: Tensor, order: Tensor | None = None) -> Tensor:
        """Computes the feature vector of each clip: the mean over all positions of the last feature map.

        Args:
            clips: Floats [B, 3, T, H, W], RGB in about [0, 1].
            order: Ignored, since the CNN looks at one clip at a time.

        Returns:
            Floats [B, C] with C = `num_features`.
        """
        return self.pool(self.forward_features(clips))

    def pool(self, feature_map: Tensor) -> Tensor:
        """Makes the feature vector of a feature map: the mean over all of its positions.

        Args:
            feature_map: Floats [B, C, T', H', W'].

        Returns:
            Floats [B, C].
        """
        return feature_map.mean((2, 3, 4))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Lets the backward pass compute the activations within each stage again, instead of keeping them.

        Args:
            enable: Whether it does.
        """
        self.checkpointing = enable

    def layer_groups(self) -> dict[str, list[nn.Parameter]]:
        """Returns the parameters of each stage, which are called conv1, conv2, ... from the input on."""
        return {
            f"conv{number}": list(layers.parameters()) for number, layers in enumerate(self._layers_by_stage(), start=1)
        }

    def _layers_by_stage(self) -> list[nn.Sequential]:
        ends = [*self.stages[1:], len(self.layers)]
        return [self.layers[start:end] for start, end in zip(self.stages, ends, strict=True)]


class C3D(CNN3D):
    """C3D (Tran et al., ICCV 2015) with batch norm, and with a mean in place of its fully connected layers.

    Batch norm follows each of the eight convolutions; the mean is taken over the last feature map. The max-pools halve
    time three times, height and width four times, rounding down. At width 1 there are 27.7 M parameters, and a clip of
    16 x 112 x 112 ends in a map of 512 x 2 x 7 x 7.

    Args:
        width: The multiplier of all channels.
        init: See `CNN3D`.
    """

    def __init__(self, width: float = 1.0, init: Init = "normal") -> None:
        layers: list[nn.Module] = []
        channels, stages = 3, [0]
        for step in _C3D_LAYERS:
            if isinstance(step, tuple):
                layers.append(nn.MaxPool3d(step))
                stages.append(len(layers))
            else:
                out_channels = _scaled_channels(step, width)
                layers += [
                    nn.Conv3d(channels, out_channels, 3, padding=1),
                    nn.BatchNorm3d(out_channels),
                    nn.ReLU(inplace=True),
                ]
                channels = out_channels
        super().__init__(layers, channels, stages, init)


class ResNet3D(CNN3D):
    """A residual network over time and space (Tran et al., "A Closer Look at Spatiotemporal Convolutions", CVPR 2018).

    A stem that halves height and width is followed by four stages of basic blocks. Stages 2 to 4 begin by halving time,
    height and width, rounding up. With one block in each stage there are 14.4 M parameters at width 1, in all three
    forms: R3D, R(2+1)D and the official R(2+1)D.

    Args:
        depths: The number of basic blocks of each of the four stages.
        width: The multiplier of all channels.
        init: See `CNN3D`.
        factorised: Makes the network R(2+1)D: each convolution becomes one over space and one over time, with batch
            norm and ReLU between them. As in the models of Tran et al., the 1 x 1 x 1 convolutions of the shortcuts
            stay full ones, and the stem has 45 channels between its two convolutions.
        official: Gives a factorised network the form that the release of Guo et al. (CVPR 2022) has: its shortcuts are
            factorised, too, and its stem has 83 channels between, by the rule that all other convolutions follow.
    """

    def __init__(
        self,
        depths: Sequence[int],
        width: float = 1.0,
        init: Init = "normal",
        *,
        factorised: bool = False,
        official: bool = False,
    ) -> None:
        conv = _factorised_conv if factorised else _full_conv
        shortcut_conv = conv if official else _full_conv
        channels = _scaled_channels(64, width)
        kernel_size, stride = (3, 7, 7), (1, 2, 2)
        if factorised and not official:
            stem = _factorised_conv(3, channels, kernel_size, stride, mid_channels=45 * channels // 64)
        else:
            stem = conv(3, channels, kernel_size, stride)
        layers: list[nn.Module] = [stem, nn.BatchNorm3d(channels), nn.ReLU(inplace=True)]
        stages = [0]
        for stage, (depth, stage_channels) in enumerate(zip(depths, (64, 128, 256, 512), strict=True)):
            out_channels = _scaled_channels(stage_channels, width)
            stages.append(len(layers))
            for block in range(depth):
                downsample = stage > 0 and block == 0
                layers.append(
                    _BasicBlock(channels, out_channels, downsample=downsample, conv=conv, shortcut_conv=shortcut_conv)
                )
                channels = out_channels
        super().__init__(layers, channels, stages, init)


def c3d(config: Config) -> C3D:
    """Makes a C3D."""
    return C3D(config.model.width, config.model.init)


def r3d10(config: Config) -> ResNet3D:
    """Makes a 3D ResNet of 10 layers."""
    return ResNet3D((1, 1, 1, 1), config.model.width, config.model.init)


def r3d18(config: Config) -> ResNet3D:
    """Makes a 3D ResNet of 18 layers."""
    return ResNet3D((2, 2, 2, 2), config.model.width, config.model.init)


def r3d34(config: Config) -> ResNet3D:
    """Makes a 3D ResNet of 34 layers."""
    return ResNet3D((3, 4, 6, 3), config.model.width, config.model.init)


def r2plus1d10(config: Config) -> ResNet3D:
    """Makes an R(2+1)D of 10 layers."""
    return ResNet3D((1, 1, 1, 1), config.model.width, config.model.init, factorised=True)


def r2plus1d10_official(config: Config) -> ResNet3D:
    """Makes an R(2+1)D of 10 layers, in the form that the release of the method has."""
    return ResNet3D((1, 1, 1, 1), config.model.width, config.model.init, factorised=True, official=True)


def r2plus1d18(config: Config) -> ResNet3D:
    """Makes an R(2+1)D of 18 layers."""
    return ResNet3D((2, 2, 2, 2), config.model.width, config.model.init, factorised=True)


class _BasicBlock(nn.Module):
    """Two convolutions and a shortcut (He et al., CVPR 2016), in three dimensions."""

    def __init__(
        self, in_channels: int, out_channels: int, *, downsample: bool, conv: ConvFactory, shortcut_conv: ConvFactory
    ) -> None:
        super().__init__()
        stride = (2, 2, 2) if downsample else (1, 1, 1)
        self.residual = nn.Sequential(
            conv(in_channels, out_channels, stride=stride),
            nn.BatchNorm3d(out_channels),
            nn.ReLU(inplace=True),
            conv(out_channels, out_channels),
            nn.BatchNorm3d(out_channels),
        )
        self.shortcut = nn.Identity()
        if downsample:
            self.shortcut = nn.Sequential(
                shortcut_conv(in_channels, out_channels, kernel_size=(1, 1, 1), stride=stride),
                nn.BatchNorm3d(out_channels),
            )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.residual(x) + self.shortcut(x))


def _channels_last_on_cpu(clips: Tensor) -> Tensor:
    """Puts the channels of a clip last in memory, if it is on a CPU. The maps of all layers then follow.

    oneDNN takes convolutions in that layout, and batch norm is quicker in it. torch's convolutions over time alone, in
    R(2+1)D, give their maps back in the other one, where nothing is gained or lost. On a GPU it has not been measured.
    """
    return clips.contiguous(memory_format=torch.channels_last_3d) if clips.device.type == "cpu" else clips


def _full_conv(
    in_channels: int, out_channels: int, kernel_size: Size3D = (3, 3, 3), stride: Size3D = (1, 1, 1)
) -> nn.Conv3d:
    """A convolution without bias, as batch norm follows, and padded so that only the stride changes the size."""
    time, height, width = kernel_size
    padding = (time // 2, height // 2, width // 2)
    return nn.Conv3d(in_channels, out_channels, kernel_size, stride, padding=padding, bias=False)


def _factorised_conv(
    in_channels: int,
    out_channels: int,
    kernel_size: Size3D = (3, 3, 3),
    stride: Size3D = (1, 1, 1),
    mid_channels: int | None = None,
) -> nn.Module:
    """A convolution over space, then one over time, with `mid_channels` channels between them.

    By default they are as many as make both convolutions together as large as the full one (Tran et al., CVPR 2018,
    section 3.5).
    """
    time, height, width = kernel_size
    if mid_channels is None:
        full_size = time * height * width * in_channels * out_channels
        mid_channels = full_size // (height * width * in_channels + time * out_channels)
    return nn.Sequential(
        _full_conv(in_channels, mid_channels, (1, height, width), (1, *stride[1:])),
        nn.BatchNorm3d(mid_channels),
        nn.ReLU(inplace=True),
        _full_conv(mid_channels, out_channels, (time, 1, 1), (stride[0], 1, 1)),
    )


def _scaled_channels(channels: int, width: float) -> int:
    """Scales a number of channels to a multiple of 8, at least 8: tensor cores and the groups of kernels ask for it."""
    return max(8, round(channels * width / 8) * 8)
