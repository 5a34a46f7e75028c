"""The optimiser, from timm's factory, and the learning rate as a function of the step alone."""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import timm.optim
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from cacl.config import Config, OptimConfig
from cacl.errors import ConfigError

FUSED = (SGD, Adam, AdamW)
"""The optimisers of torch that change all parameters in one call, on CPUs and on CUDA. Those of timm have no such form,
and take several calls for each parameter."""

APEX_ALTERNATIVES = {
    "fusedsgd": "sgd",
    "fusedadam": "adam",
    "fusedadamw": "adamw",
    "fusedlamb": "lamb",
    "fusednovograd": "novograd",
}
"""The optimisers that timm takes from NVIDIA Apex, each with what comes nearest without it."""
APEX_BUILD = (
    "git clone https://github.com/NVIDIA/apex && cd apex && "
    "APEX_CPP_EXT=1 APEX_CUDA_EXT=1 pip install -v --no-build-isolation ."
)
"""How Apex is built, by its README. It is on no package index: the `apex` there is another project."""


def create_optimizer(parameters: nn.Module | Iterable[Mapping[str, Any]], config: OptimConfig) -> Optimizer:
    """Creates any optimiser that timm knows by name.

    Args:
        parameters: The module whose parameters that require a gradient are optimised, or groups of parameters as
            torch's optimisers take them.
        config: The section `optim` of the configuration.

    Returns:
        The optimiser.

    Raises:
        ConfigError: There is no optimiser of this name, or the library that it comes from is not installed, or has
            nothing for the device that the parameters lie on.
    """
    names = [str(name) for name in timm.optim.list_optimizers()]
    if config.name not in names:
        near = difflib.get_close_matches(config.name, names, 1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"
        raise ConfigError(f"optim.name = {config.name!r}: no such optimiser; {hint}")
    if not isinstance(parameters, nn.Module):
        parameters = [dict(group) for group in parameters]
    if config.name in APEX_ALTERNATIVES and (problem := _apex_problem(parameters)):
        raise ConfigError(
            f"optim.name = {config.name!r} needs NVIDIA Apex and a CUDA device, and {problem}: build Apex by "
            f"`{APEX_BUILD}`, or take {APEX_ALTERNATIVES[config.name]!r}, which runs everywhere"
        )
    fused: dict[str, Any] = {"fused": True} if timm.optim.get_optimizer_info(config.name).opt_class in FUSED else {}
    try:
        return timm.optim.create_optimizer_v2(
            parameters,
            opt=config.name,
            lr=config.lr,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            filter_bias_and_bn=False,  # the published recipe decays everything
            **fused,
        )
    except (AssertionError, ImportError) as error:  # optimisers of libraries that are not installed
        raise ConfigError(f"optim.name = {config.name!r} cannot be made here: {error}") from None


def _apex_problem(parameters: nn.Module | list[dict[str, Any]]) -> str:
    """Returns why Apex cannot optimise these parameters, or "" if it can."""
    if isinstance(parameters, nn.Module):
        device = next(parameters.parameters()).device
    else:
        device = parameters[0]["params"][0].device
    if device.type != "cuda":
        return f"the weights lie on the device {device.type}"
    try:
        importlib.import_module("apex.optimizers")
        applier = importlib.import_module("apex.multi_tensor_apply").multi_tensor_applier
    except ImportError:
        return "Apex is not installed"
    return "" if applier.available else "Apex was built without its CUDA kernels"


def limit_gradient(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scales the whole gradient down to a norm, if it is longer.

    Args:
        parameters: All parameters. Those without a gradient do not count.
        max_norm: The largest norm; 0: there is no limit, and the gradient is only read.

    Returns:
        The norm that the gradient had, a scalar on its device.
    """
    parameters = list(parameters)
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if max_norm:
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


def restore_optimizer(optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    """Goes on from the state of an optimiser of the same kind, which may have been made on another device.

    Args:
        optimizer: The optimiser, which keeps its parameters.
        saved: What `state_dict` of the other one returned. Whether its steps are fused is part of it: a run from before
            they were goes on without.

    Raises:
        ValueError: The groups of parameters are others, or have other lengths.
    """
    optimizer.load_state_dict(dict(saved))
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            # Fused steps take memory as it lies: with other strides than those of the parameter, torch 2.15 mixes up
            # the entries on a CPU, without a word.
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


class LearningRateSchedule:
    """The number of steps of a run, and the learning rate of each of them."""

    def __init__(self, config: Config, clips_per_epoch: int) -> None:
        """Derives the schedule from the sections `optim` and `train`.

        Args:
            config: The configuration of the run.
            clips_per_epoch: The number of clips of an epoch.
        """
        self.optim, self.train, self.clips_per_epoch = config.optim, config.train, clips_per_epoch
        self.num_steps = math.ceil(config.train.epochs * clips_per_epoch / config.train.batch_size)
        self.warmup_steps = round(config.optim.warmup_epochs * clips_per_epoch / config.train.batch_size)

    def at(self, step: int) -> float:
        """Returns the learning rate that applies in the step after `step` steps were taken."""
        if self.optim.schedule_per == "epoch":
            epoch = step * self.train.batch_size // self.clips_per_epoch + 1
            return cosine_by_epoch(epoch, self.train.epochs, self.optim.lr)
        return cosine_with_warmup(step, self.num_steps, self.warmup_steps, self.optim.lr)


def cosine_by_epoch(epoch: int, epochs: float, peak: float) -> float:
    """Returns the learning rate of a cosine that goes down once per epoch.

    Args:
        epoch: The number of the epoch, which counts from 1.
        epochs: The number of epochs of the run. The last has the rate 0.
        peak: The rate that the cosine comes down from. The first epoch has a little less.
    """
    return peak * 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def cosine_with_warmup(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    """Returns the learning rate of a linear warm-up that a cosine follows (Loshchilov and Hutter, 2017).

    Args:
        step: The number of steps taken so far.
        steps: The number of steps of the run, at which the cosine reaches 0.
        warmup_steps: The number of steps in which the rate rises from 0 to `peak`.
        peak: The highest rate.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
