"""The optimiser, from timm's factory, and the learning rate as a function of the step alone."""

from __future__ import annotations

import difflib
import math

import timm.optim
from torch import nn
from torch.optim import Optimizer

from cacl.config import OptimConfig
from cacl.errors import ConfigError


def create_optimizer(module: nn.Module, config: OptimConfig) -> Optimizer:
    """Any optimiser that timm knows by this name, over the parameters that are trained."""
    names = [str(name) for name in timm.optim.list_optimizers()]
    if config.name not in names:
        near = difflib.get_close_matches(config.name, names, 1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"
        raise ConfigError(f"optim.name = {config.name!r}: no such optimiser; {hint}")
    try:
        return timm.optim.create_optimizer_v2(
            module,
            opt=config.name,
            lr=config.lr,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            filter_bias_and_bn=False,  # the published recipe decays everything
        )
    except (AssertionError, ImportError) as error:  # optimisers of libraries that are not installed
        raise ConfigError(f"optim.name = {config.name!r} cannot be made here: {error}") from None


def learning_rate_of_epoch(epoch: int, epochs: float, peak: float) -> float:
    """The cosine in steps of whole epochs, which count from 1: a little below `peak` in the first, 0 in the last."""
    return peak * 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def learning_rate(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    """Linear from 0 to `peak` over the warm-up, then a cosine to 0 at `steps` (Loshchilov and Hutter, 2017)."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
