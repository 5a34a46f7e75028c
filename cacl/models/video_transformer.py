"""The video transformer: one token per frame of the clip and of its shuffled copy, read as one sequence."""

from __future__ import annotations

import difflib
import pickle
from typing import Any, Self

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from cacl.config import Init, TransformerConfig
from cacl.errors import CheckpointError, ConfigError

_PREFIXES = ("", "module.", "encoder_q.", "module.encoder_q.")
"""What training scripts put before the names of the weights; the last one is MoCo's."""

_CLASSIFIERS = {"fc", "head", "heads", "head_dist", "heads_dist", "classifier", "last_linear", "aux_head", "classif"}
"""First part of the names under which timm's and torchvision's models keep their last layer."""


class TimmEmbedder(nn.Module):
    """A timm image model and a trainable linear layer: [N,3,H,W] frames, RGB in [0, 1] -> [N,width].

    The frames are normalised here, with the mean and deviation of the model's timm entry, unless `normalize` is False.
    Models that take one input size only (plain vision transformers) get the frames resized to it.

    `weights` is a local .safetensors or PyTorch file, or empty for random weights; nothing is downloaded. `frozen`
    keeps the image model in evaluation mode and without gradients, whatever `train()` says.

    Raises ConfigError for a name that timm does not know, CheckpointError for weights that do not fit the model.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, weights: str, frozen: bool, width: int, *, normalize: bool = True) -> None:
        super().__init__()
        known = [*timm.list_models(), *timm.list_models(include_tags=True)]
        if name not in known:
            near = difflib.get_close_matches(name, known, 3, cutoff=0)
            raise ConfigError(
                f"model.transformer.embedder = {name!r}: no such timm model; nearest are {', '.join(near)} (or `light`)"
            )
        backbone: Any = timm.create_model(name, pretrained=False, num_classes=0)
        if weights:
            _load_backbone(backbone, name, weights)
        self.backbone = backbone.requires_grad_(not frozen)
        self.frozen = frozen
        entry = backbone.pretrained_cfg
        self.input_size = entry["input_size"][1:] if entry.get("fixed_input_size") else None
        mean, std = (entry["mean"], entry["std"]) if normalize else ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        # not num_features: some models (MobileNetV3, VGG) have one more layer between those and the classifier
        self.project = nn.Linear(backbone.head_hidden_size, width)
        self.train()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, frames: Tensor) -> Tensor:
        frames = (frames - self.mean) / self.std
        if self.input_size:
            frames = F.interpolate(frames, self.input_size, mode="bilinear", antialias=True)
        return self.project(self.backbone(frames))


class LightEmbedder(nn.Module):
    """A small convolutional stem for machines without a GPU, trained with the rest: [N,3,H,W] -> [N,width].

    It keeps a 4 x 4 grid of positions, so that the token of a frame tells where things are, and the sequence of tokens
    which way they move.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.grid = nn.Sequential(
            _stage(3, 32, kernel=4, stride=4, padding=0),
            _stage(32, 64, kernel=3, stride=2, padding=1),
            _stage(64, 128, kernel=3, stride=2, padding=1),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
        )
        self.project = nn.Linear(128 * 4 * 4, width)

    def forward(self, frames: Tensor) -> Tensor:
        return self.project(self.grid(frames))


class VideoTransformer(nn.Module):
    """Pre-norm blocks (Dosovitskiy et al., ICLR 2021) over [CLS, T frames, the same T frames in shuffled order].

    Each of the 2T + 1 tokens has a learned position. `out_channels` is the width.

    init: `normal` draws the linear layers of the blocks and of the embedder as Dosovitskiy et al. do (truncated normal,
    deviation 0.02); `torch` leaves them as torch draws them.

    `config.embedder` = `light` is always trained: `config.frozen` is for image models that come with weights.

    Raises ConfigError and CheckpointError as TimmEmbedder does, and ConfigError for weights given to `light`.
    """

    def __init__(self, config: TransformerConfig, frames: int, init: Init = "normal") -> None:
        super().__init__()
        width = config.width
        self.out_channels = width
        if config.embedder == "light":
            if config.weights:
                raise ConfigError(
                    f'model.transformer.weights = {config.weights!r}: embedder = "light" has no weights to load; '
                    "leave it empty or name a timm model"
                )
            self.embedder = LightEmbedder(width)
        else:
            self.embedder = TimmEmbedder(
                config.embedder, config.weights, config.frozen, width, normalize=config.normalize
            )
        self.cls = nn.Parameter(torch.empty(width))
        self.positions = nn.Parameter(torch.empty(1 + 2 * frames, width))
        self.blocks = nn.Sequential(
            # nn.LayerNorm has an epsilon of 1e-5, as the one at the end; timm's own would have 1e-6
            *(
                Block(width, config.heads, mlp_ratio=4, qkv_bias=False, norm_layer=nn.LayerNorm)
                for _ in range(config.depth)
            )
        )
        self.norm = nn.LayerNorm(width)

        nn.init.trunc_normal_(self.cls, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)
        for module in (self.embedder.project, *self.blocks.modules()):
            if isinstance(module, nn.Linear) and init == "normal":
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, views: Tensor, order: Tensor) -> Tensor:
        """Views [B,3,T,H,W] in true order and the order [B,T] of their shuffled copies (integers) -> [B,width].

        Frame i of the shuffled copy is frame order[i] of the view. An embedder sees one frame at a time, so its tokens
        for the copy are a gather of those for the view, and each frame is embedded once.
        """
        original = self.embed(views)
        shuffled = original.gather(1, order.long().unsqueeze(-1).expand_as(original))
        return self.attend(original, shuffled)

    def embed(self, views: Tensor) -> Tensor:
        """[B,3,T,H,W] -> one token per frame [B,T,width], without positions."""
        tokens = self.embedder(views.transpose(1, 2).flatten(0, 1))
        return tokens.unflatten(0, (views.shape[0], views.shape[2]))

    def attend(self, original: Tensor, shuffled: Tensor) -> Tensor:
        """The tokens of a view and of its shuffled copy, [B,T,width] each -> the CLS feature [B,width]."""
        cls = self.cls.expand(len(original), 1, -1)
        tokens = torch.cat([cls, original, shuffled], 1) + self.positions
        return self.norm(self.blocks(tokens)[:, 0])


def _stage(inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.GroupNorm(8, outputs), nn.GELU())


def _load_backbone(backbone: nn.Module, name: str, path: str) -> None:
    """Every weight of the model must be in the file, in its shape, and nothing else but a classifier may be: weights of
    a deeper sister model, whose first blocks fit, are an error too."""
    wanted = backbone.state_dict()
    found = _read_weights(path)
    prefix = max(_PREFIXES, key=lambda prefix: sum(prefix + key in found for key in wanted))
    found = {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}

    # batch norms count their batches only since PyTorch 0.4.1, and older files still serve
    missing = [key for key in wanted if key not in found and not key.endswith(".num_batches_tracked")]
    misshapen = [key for key in wanted if key in found and found[key].shape != wanted[key].shape]
    unknown = [key for key in found if key not in wanted and key.split(".")[0] not in _CLASSIFIERS]
    problems = [
        *(f"{key} is missing" for key in missing),
        *(f"{key} is {list(found[key].shape)} in place of {list(wanted[key].shape)}" for key in misshapen),
        *(f"{key} is not part of the model" for key in unknown),
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"{path}: weights do not fit the timm model {name}: {'; '.join(problems[:3])}{more}")
    backbone.load_state_dict(found, strict=False)  # leaves out the classifier


def _read_weights(path: str) -> dict[str, Tensor]:
    try:
        content = (
            load_file(path)
            if path.endswith(".safetensors")
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, pickle.UnpicklingError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CheckpointError(f"{path}: cannot be read as weights ({reason})") from None
    for nest in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(nest), dict):
            content = content[nest]
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__} in place of weights by name")
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}
