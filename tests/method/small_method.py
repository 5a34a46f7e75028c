"""The method at its smallest, and a batch for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cacl.clips import ClipBatch
from cacl.config import Config, from_dict

FRAMES, SIZE, DIM = 4, 16, 8


def tiny(
    *,
    order_weight: float = 1.0,
    order_head: str = "concatenation",
    contrast_weight: float = 1.0,
    embedder: str = "light",
    **contrast: Any,
) -> Config:
    return from_dict(
        {
            "clip": {"frames": FRAMES, "size": SIZE},
            "model": {
                "cnn": "r3d10",
                "width": 1 / 16,
                "embedding_dim": DIM,
                "order_head": order_head,
                "dropout": 0.0,
                "transformer": {"embedder": embedder, "width": 16, "depth": 1, "heads": 2},
            },
            "contrast": {"queue_size": 13, "momentum": 0.9, **contrast},
            "losses": {"contrast": contrast_weight, "order": order_weight},
            "train": {"batch_size": 6},
        }
    )


def a_batch(size: int = 6) -> ClipBatch:
    order = torch.stack([torch.randperm(FRAMES) for _ in range(size)]).byte()
    order[0] = torch.arange(FRAMES)
    number = torch.arange(size)
    views = tuple(torch.rand(2, size, 3, FRAMES, SIZE, SIZE).half())
    return ClipBatch(views=views, order=order, video=number, index=number)


def parameters(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}
