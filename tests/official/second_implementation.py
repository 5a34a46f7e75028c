"""The recipe, and the second implementation (release.py) with the weights of the project's own encoders."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cacl.clips import ClipBatch, VideoRecord
from cacl.config import Config, load
from cacl.method.dual_encoder import DualEncoder
from tests.launch import ROOT
from tests.official import release

RECIPE = ROOT / "cacl/recipes/official.toml"

CLIP, FRAMES, SIZE = 4, 8, 32  # clips in a batch, frames in a clip, pixels
SMALL = (
    *(
        f"clip.frames={FRAMES}",
        "clip.min_remaining_frames=22",
        f"clip.size={SIZE}",
        "augment.resize=[40, 54]",
        "augment.crop=[0.8, 0.8]",
    ),
    *(
        "model.width=0.125",
        "model.embedding_dim=16",
        "contrast.queue_size=16",
        f"train.batch_size={CLIP}",
        "train.epochs=2",
    ),
    *(f"model.transformer.{key}" for key in ("embedder=test_resnet", "width=24", "depth=2", "heads=3")),
    "train.device=cpu",
)
"""Overrides that make the recipe small, and leave what it computes as it is."""
CNNS = ("c3d", "r3d10", "r2plus1d10_official")


def recipe(*overrides: str) -> Config:
    return load(RECIPE, overrides)


def small(*overrides: str) -> Config:
    return recipe(*SMALL, *overrides)


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Copies the trained weights in their order: names differ between the two modules, order and shapes do not."""
    theirs = [p for p in source.parameters() if p.requires_grad]
    mine = list(target.parameters())
    assert [p.shape for p in theirs] == [p.shape for p in mine]
    with torch.no_grad():
        for p, q in zip(mine, theirs, strict=True):
            p.copy_(q)


def second_implementation_of(query: DualEncoder, config: Config) -> release.Encoders:
    """Returns the second implementation of these encoders, with their weights."""
    assert query.cnn
    assert query.transformer
    model = config.model
    backbone: Any = copy.deepcopy(query.transformer.embedder.backbone)
    own = release.Encoders(
        release.cnn(model.cnn, round(64 * model.width)),
        round(512 * model.width),
        release.Transformer(
            backbone,
            backbone.head_hidden_size,
            config.clip.frames,
            model.transformer.width,
            model.transformer.depth,
            model.transformer.heads,
        ),
        model.transformer.width,
        model.embedding_dim,
    )
    copy_weights(query, own)
    return own


def random_batch(number: int = 0) -> ClipBatch:
    generator = torch.Generator().manual_seed(number)
    shape = (2, CLIP, 3, FRAMES, SIZE, SIZE)
    views = torch.randint(0, 256, shape, generator=generator) / 255
    order = torch.stack([torch.randperm(FRAMES, generator=generator) for _ in range(CLIP)])
    index = torch.arange(CLIP)
    return ClipBatch(views=tuple(views), order=order.byte(), video=index, index=index)


def running_statistics(module: nn.Module) -> list[Tensor]:
    """Returns the statistics of the batch norms that are trained."""
    return [x for name, x in module.named_buffers() if "backbone" not in name and "running" in name]


def gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    found = [p.grad for p in parameters]
    assert all(gradient is not None for gradient in found)
    return found  # type: ignore[return-value]  # none is None


def assert_same(ours: Iterable[Tensor], theirs: Iterable[Tensor], what: str) -> None:
    """Compares all values together: a bias before a batch norm has a gradient that is nothing but rounding errors."""
    mine, other = (torch.cat([x.detach().flatten() for x in tensors]) for tensors in (ours, theirs))
    assert mine.dtype == other.dtype == torch.float64
    assert (mine - other).norm() <= 1e-9 * other.norm(), what


def record(frames: int, width: int = 320, height: int = 240) -> VideoRecord:
    return VideoRecord(
        path="v", frames=frames, declared_frames=frames, rate=25, width=width, height=height, codec="h264"
    )


def jitter_of(steps: Sequence[tuple[str, float]]) -> tuple[Sequence[tuple[str, float]], bool]:
    """Returns the jitter of a plan, and whether the plan drops the colour afterwards, by a saturation of 0."""
    grey = steps[-1:] == (("saturation", 0.0),)
    return (steps[:-1] if grey else steps), grey
