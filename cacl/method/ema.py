"""Momentum copies: encoders that follow the trained ones slowly and make the keys."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def momentum_copy(module: M) -> M:
    """A copy without gradients. Parameters that are not trained are shared, not copied: they stay equal anyway."""
    frozen = {id(p): p for p in module.parameters() if not p.requires_grad}
    return copy.deepcopy(module, memo=frozen).requires_grad_(False)


@torch.no_grad()
def ema_update(targets: Iterable[Tensor], sources: Iterable[Tensor], momentum: float) -> None:
    """targets = momentum * targets + (1 - momentum) * sources, in place."""
    torch._foreach_lerp_(list(targets), list(sources), 1 - momentum)
