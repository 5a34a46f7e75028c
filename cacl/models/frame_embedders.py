"""What turns a frame into a token of the video transformer: a timm image model, or a small convolutional stem."""

from __future__ import annotations

import difflib
import pickle
from typing import Any, Self

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from cacl.errors import CheckpointError, ConfigError

_WEIGHT_PREFIXES = ("", "module.", "encoder_q.", "module.encoder_q.")
"""What training scripts put before the names of the weights. The last one is MoCo's."""

_CLASSIFIER_NAMES = {
    "fc",
    "head",
    "heads",
    "head_dist",
    "heads_dist",
    "classifier",
    "last_linear",
    "aux_head",
    "classif",
}
"""The first part of the names under which the models of timm and torchvision keep their last layer."""


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

    mean: Tensor
    """float32 [3, 1, 1], subtracted from the frames."""
    std: Tensor
    """float32 [3, 1, 1], by which the frames are divided afterwards."""

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


def _conv_stage(in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding), nn.GroupNorm(8, out_channels), nn.GELU()
    )


def _load_backbone(backbone: nn.Module, name: str, path: str) -> None:
    """Loads the weights of an image model from a file.

    Every weight of the model must be in the file, in its shape, and the file may hold nothing else but a classifier.
    The weights of a deeper sister model, whose first blocks fit, are therefore an error, too.
    """
    expected = backbone.state_dict()
    found = _read_weights(path)
    prefix = max(_WEIGHT_PREFIXES, key=lambda prefix: sum(prefix + key in found for key in expected))
    found = {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}

    # Batch norms count their batches only since PyTorch 0.4.1, and older files still serve.
    missing = [key for key in expected if key not in found and not key.endswith(".num_batches_tracked")]
    misshapen = [key for key in expected if key in found and found[key].shape != expected[key].shape]
    unknown = [key for key in found if key not in expected and key.split(".")[0] not in _CLASSIFIER_NAMES]
    problems = [
        *(f"{key} is missing" for key in missing),
        *(f"{key} is {list(found[key].shape)} in place of {list(expected[key].shape)}" for key in misshapen),
        *(f"{key} is not part of the model" for key in unknown),
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"{path}: weights do not fit the timm model {name}: {'; '.join(problems[:3])}{more}")
    backbone.load_state_dict(found, strict=False)  # not strict, as the classifier is left out


def _read_weights(path: str) -> dict[str, Tensor]:
    """Reads the tensors of a file by name, also where they lie in a dictionary under "state_dict" or "model"."""
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
