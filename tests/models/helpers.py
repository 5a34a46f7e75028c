"""What the tests of several networks share: small configurations, random clips and counts of parameters."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from cacl.config import TransformerConfig

LIGHT = TransformerConfig(embedder="light", width=48, depth=2, heads=3)
RESNET = TransformerConfig(embedder="test_resnet", width=48, depth=2, heads=3)
"""A transformer on top of an image model. The `test_` models of timm have the usual structure and a few hundred
thousand parameters."""


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def shapes_only() -> torch.device:
    """A device on which models and tensors have shapes but no values, which costs nothing."""
    return torch.device("meta")


def random_clips(batch: int = 2, frames: int = 6, size: int = 32) -> tuple[Tensor, Tensor]:
    """Clips, float64 [B, 3, T, H, W], and permutations of their frames, int64 [B, T]."""
    clips = torch.rand(batch, 3, frames, size, size, dtype=torch.float64)
    return clips, torch.stack([torch.randperm(frames) for _ in range(batch)])


def assert_as_torch_draws(layer: nn.Conv3d | nn.Linear, fan_in: int) -> None:
    bound = 1 / math.sqrt(fan_in)
    for values in (layer.weight, layer.bias):
        if values is not None:
            assert values.abs().max() <= bound * (1 + 1e-6)
            expected, samples = bound / math.sqrt(3), values.numel()
            # The fourth moment of a uniform variable is 9/5 of its squared variance.
            assert values.std().item() == pytest.approx(expected, rel=5 * math.sqrt(0.8 / 4 / samples) + 1 / samples)
