"""Momentum copies: encoders that follow the trained ones as an exponential moving average and make the keys."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def ema_copy(module: M) -> M:
    """Copies a module, so that the copy can follow it by `ema_update`.

    Parameters that are not trained are shared, not copied: they stay equal anyway.

    Args:
        module: The module that is trained.

    Returns:
        A module of the same class whose parameters require no gradient.
    """
    frozen = {id(p): p for p in module.parameters() if not p.requires_grad}
    return copy.deepcopy(module, memo=frozen).requires_grad_(False)


@torch.no_grad()
def ema_update(targets: Iterable[Tensor], sources: Iterable[Tensor], momentum: float) -> None:
    """Moves the targets towards the sources, in place: targets = momentum * targets + (1 - momentum) * sources.

    Args:
        targets: The parameters of the copy.
        sources: The trained parameters, in the same order and shapes.
        momentum: The share of the targets that stays, from 0 to 1.
    """
    torch._foreach_lerp_(list(targets), list(sources), 1 - momentum)
