"""The video transformer: tokens of the clip and of its shuffled copy, read as one sequence.

A frame becomes a token in one of two embedders: a timm image model, or a small convolutional stem. A third embedder
makes a token of two neighbouring frames.
"""

from __future__ import annotations

import difflib
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cacl.config import Config, Init, TransformerConfig
from cacl.errors import ConfigError
from cacl.models.embedder_weights import load_backbone
from cacl.models.encoder import Encoder
from cacl.models.recompute import recompute


class VideoTransformer(Encoder):
    """Pre-norm blocks (Dosovitskiy et al., ICLR 2021) over [CLS, N tokens of the clip, N tokens of its shuffled copy].

    N is T where each frame is a token, as published, and T / 2 with the embedder `tubelet`. Each of the 2N + 1 tokens
    has a learned position.

    Args:
        config: The embedder of frames and the size of the transformer. The embedders `light` and `tubelet` are always
            trained; `config.frozen` is for image models that come with weights.
        frames: T, the number of frames of a clip.
        init: `normal` draws the linear layers of the blocks and of the embedder as Dosovitskiy et al. do (truncated
            normal, standard deviation 0.02); `torch` leaves them as torch draws them.

    Raises:
        ConfigError: timm does not know the embedder, or weights are given to `light` or `tubelet`.
        CheckpointError: The weights of the embedder cannot be read, or do not fit it.
    """

    def __init__(self, config: TransformerConfig, frames: int, init: Init = "normal") -> None:
        from timm.models.vision_transformer import Block  # seconds of importing, which a CNN alone need not wait for

        super().__init__()
        width = config.width
        self.num_features = width  # of a feature vector, which is one of the tokens
        self.embedder = _create_embedder(config)
        num_tokens = frames // self.embedder.frames_per_token
        self.cls = nn.Parameter(torch.empty(width))
        self.positions = nn.Parameter(torch.empty(1 + 2 * num_tokens, width))
        self.blocks = nn.Sequential(
            # nn.LayerNorm has an epsilon of 1e-5, as the one at the end has; timm's own would have 1e-6.
            *(
                Block(width, config.heads, mlp_ratio=4, qkv_bias=False, norm_layer=nn.LayerNorm)
                for _ in range(config.depth)
            )
        )
        self.norm = nn.LayerNorm(width)
        self.checkpointing = False

        nn.init.trunc_normal_(self.cls, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)
        for module in (self.embedder.project, *self.blocks.modules()):
            if isinstance(module, nn.Linear) and init == "normal":
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_features(self, clips: Tensor) -> Tensor:
        """Computes the tokens behind the last block, for each clip beside an unshuffled copy of itself.

        Args:
            clips: Floats [B, 3, T, H, W], RGB in about [0, 1].

        Returns:
            Floats [B, 1 + 2N, width]: CLS, then the tokens of the clip, then those of the copy.
        """
        tokens = self.embed(clips)
        return self.norm(self._run_blocks(self._sequence(tokens, tokens)))

    def forward(self, clips: Tensor, order: Tensor | None = None) -> Tensor:
        """Computes the feature vector of each clip and its shuffled copy.

        Where a token is one frame, the tokens of the shuffled copy are a gather of those of the clip, and each frame
        is embedded once. Tokens of two frames are made of the shuffled frames anew. As in the CNN, the copy then has
        batch statistics of its own.

        Args:
            clips: Floats [B, 3, T, H, W], RGB in about [0, 1], with the frames in true order.
            order: Integers [B, T]. Frame i of the shuffled copy is frame order[i] of the clip. None leaves the copy
                unshuffled.

        Returns:
            The CLS features, floats [B, width].
        """
        original = self.embed(clips)
        if order is None:
            return self.attend(original, original)
        order = order.long()
        if self.embedder.frames_per_token == 1:
            return self.attend(original, original.gather(1, order.unsqueeze(-1).expand_as(original)))
        shuffled = clips.gather(2, order[:, None, :, None, None].expand_as(clips))
        return self.attend(original, self.embed(shuffled))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Lets the backward pass compute the activations within the embedder and each block again, not keep them.

        Args:
            enable: Whether it does.
        """
        self.checkpointing = enable

    def layer_groups(self) -> dict[str, list[nn.Parameter]]:
        """Returns the parameters of the embedder, with CLS and the positions, and those of each block.

        The last block has the norm behind it.
        """
        groups = {"embedder": [*self.embedder.parameters(), self.cls, self.positions]}
        groups |= {f"block{number}": list(block.parameters()) for number, block in enumerate(self.blocks, start=1)}
        groups[f"block{len(self.blocks)}"] += self.norm.parameters()
        return groups

    def embed(self, clips: Tensor) -> Tensor:
        """Turns each frame, or each pair of neighbouring frames, into a token, which does not know its position yet.

        Args:
            clips: Floats [B, 3, T, H, W], RGB in about [0, 1].

        Returns:
            Floats [B, N, width].
        """
        frames = clips.transpose(1, 2)
        # The frames of a token lie one after the other in its channels.
        tubelets = frames.unflatten(1, (-1, self.embedder.frames_per_token)).flatten(2, 3)  # [B, N, 3 or 6, H, W]
        images = tubelets.flatten(0, 1)
        # A frozen image model keeps no activations anyway.
        recomputed = self.checkpointing and not getattr(self.embedder, "frozen", False)
        tokens = recompute(self.embedder, images) if recomputed else self.embedder(images)
        return tokens.unflatten(0, tubelets.shape[:2])

    def attend(self, original: Tensor, shuffled: Tensor) -> Tensor:
        """Runs the transformer over the tokens of a clip and of its shuffled copy.

        Args:
            original: Floats [B, N, width], the tokens of the frames in true order.
            shuffled: Floats [B, N, width], the tokens of the frames in shuffled order.

        Returns:
            The CLS features, floats [B, width].
        """
        return self.norm(self._run_blocks(self._sequence(original, shuffled))[:, 0])

    def _run_blocks(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = recompute(block, x) if self.checkpointing else block(x)
        return x

    def _sequence(self, original: Tensor, shuffled: Tensor) -> Tensor:
        cls = self.cls.expand(original.shape[0], 1, -1)
        return torch.cat([cls, original, shuffled], 1) + self.positions


def video_transformer(config: Config) -> VideoTransformer:
    """Makes the video transformer that a configuration describes."""
    return VideoTransformer(config.model.transformer, config.clip.frames, config.model.init)


def _create_embedder(config: TransformerConfig) -> TimmEmbedder | LightEmbedder | TubeletEmbedder:
    stem = {"light": LightEmbedder, "tubelet": TubeletEmbedder}.get(config.embedder)
    if stem is None:
        return TimmEmbedder(config.embedder, config.weights, config.frozen, config.width, normalize=config.normalize)
    if config.weights:
        raise ConfigError(
            f'model.transformer.weights = {config.weights!r}: embedder = "{config.embedder}" has no weights to load; '
            "leave it empty or name a timm model"
        )
    return stem(config.width)


class TimmEmbedder(nn.Module):
    """A timm image model followed by a linear layer that is trained.

    Frames are normalised here. Image models that take one input size only (plain vision transformers) get the frames
    resized to it.

    Args:
        name: The name of the timm model.
        weights: The path of a local .safetensors or PyTorch file with the weights of the image model, or an empty
            string for random ones. Nothing is downloaded.
        frozen: Keeps the image model in evaluation mode and without gradients, whatever `train()` says.
        width: The length of the tokens.
        normalize: Brings frames to the mean and standard deviation that the timm entry of the model states.

    Raises:
        ConfigError: timm knows no model of this name.
        CheckpointError: The weights cannot be read, or do not fit the model.
    """

    frames_per_token = 1

    mean: Tensor
    """float32 [3, 1, 1], subtracted from the frames."""
    std: Tensor
    """float32 [3, 1, 1], by which the frames are divided afterwards."""

    def __init__(self, name: str, weights: str, frozen: bool, width: int, *, normalize: bool = True) -> None:
        import timm  # see VideoTransformer

        super().__init__()
        known = [*timm.list_models(), *timm.list_models(include_tags=True)]
        if name not in known:
            near = difflib.get_close_matches(name, known, 3, cutoff=0)
            raise ConfigError(
                f"model.transformer.embedder = {name!r}: no such timm model; nearest are {', '.join(near)} "
                "(or `light`, or `tubelet`)"
            )
        backbone: Any = timm.create_model(name, pretrained=False, num_classes=0)
        if weights:
            load_backbone(backbone, name, weights)
        self.backbone = backbone.requires_grad_(not frozen)
        self.frozen = frozen
        entry = backbone.pretrained_cfg
        self.input_size = entry["input_size"][1:] if entry.get("fixed_input_size") else None
        mean, std = (entry["mean"], entry["std"]) if normalize else ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        # `num_features` would be wrong: some models (MobileNetV3, VGG) have one more layer between it and the
        # classifier.
        self.project = nn.Linear(backbone.head_hidden_size, width)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Sets training or evaluation mode, except for a frozen image model, which stays in evaluation mode.

        Args:
            mode: Whether to train.

        Returns:
            The module itself.
        """
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, frames: Tensor) -> Tensor:
        """Turns frames into tokens.

        Args:
            frames: Floats [N, 3, H, W], RGB in about [0, 1].

        Returns:
            Floats [N, width].
        """
        frames = (frames - self.mean) / self.std
        if self.input_size:
            frames = F.interpolate(frames, self.input_size, mode="bilinear", antialias=True)
        return self.project(self.backbone(frames))


class LightEmbedder(nn.Module):
    """A small convolutional stem for machines without a GPU, which is trained with the rest.

    It keeps a 4 x 4 grid of positions, so that the token of a frame tells where things are, and the sequence of tokens
    tells which way they move.

    Args:
        width: The length of the tokens.
    """

    frames_per_token = 1

    def __init__(self, width: int) -> None:
        super().__init__()
        self.grid = nn.Sequential(
            _conv_stage(3, 32, kernel_size=4, stride=4, padding=0),
            _conv_stage(32, 64, kernel_size=3, stride=2, padding=1),
            _conv_stage(64, 128, kernel_size=3, stride=2, padding=1),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
        )
        self.project = nn.Linear(128 * 4 * 4, width)

    def forward(self, frames: Tensor) -> Tensor:
        """Turns frames into tokens.

        Args:
            frames: Floats [N, 3, H, W], RGB in about [0, 1].

        Returns:
            Floats [N, width].
        """
        return self.project(self.grid(frames))


class TubeletEmbedder(nn.Module):
    """A convolution over two neighbouring frames, for machines without a GPU, which is trained with the rest.

    A token of several frames is the tubelet of ViViT (Arnab et al., ICCV 2021). The convolution sees the same 4 x 4
    pixels in both frames, and so which way things move. What it finds is averaged in a grid of 3 x 3 positions. Such
    averages are much alike for all videos, and batch norm enlarges what differs. With group norm, or with more
    convolutions on top of this one, the transformer learns motion later.

    The filters begin without their mean over the pixels and frames of each colour, as if it had been taken from the
    patches (Coates, Ng & Lee, AISTATS 2011). The brightness of a patch is by far the most of it and no motion changes
    it; with some weights as torch draws them, hundreds of steps do not get the filters to see past it.

    Args:
        width: The length of the tokens.
    """

    frames_per_token = 2

    def __init__(self, width: int) -> None:
        super().__init__()
        convolution = nn.Conv2d(2 * 3, 64, kernel_size=4, stride=4, bias=False)
        with torch.no_grad():
            filters = convolution.weight.unflatten(1, (2, 3))  # [64, 2 frames, 3 colours, 4, 4]
            filters -= filters.mean((1, 3, 4), keepdim=True)
        self.grid = nn.Sequential(
            convolution,
            nn.BatchNorm2d(64),
            nn.GELU(),
            nn.AdaptiveAvgPool2d(3),
            nn.Flatten(),
            nn.BatchNorm1d(64 * 3 * 3),
        )
        self.project = nn.Linear(64 * 3 * 3, width)

    def forward(self, tubelets: Tensor) -> Tensor:
        """Turns pairs of frames into tokens.

        Args:
            tubelets: Floats [N, 6, H, W], RGB of the first frame and RGB of the second, in about [0, 1].

        Returns:
            Floats [N, width].
        """
        return self.project(self.grid(tubelets))


def _conv_stage(in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding), nn.GroupNorm(8, out_channels), nn.GELU()
    )
