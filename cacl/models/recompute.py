"""Activation checkpointing: a forward pass keeps no activations, and the backward pass computes them again.

Memory is paid for with a second forward pass (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016).
"""

from __future__ import annotations

from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from cacl.errors import ConfigError


def recompute(module: nn.Module, *inputs: Tensor) -> Any:
    """Calls a module of which the backward pass needs nothing but the inputs, as it calls the module again.

    Gradients are those of a plain call, to the same bits: the second call has the random state and the precision of the
    first one. It works on copies of the buffers, so that the running statistics of batch norm move once.

    Args:
        module: The module.
        inputs: What it takes.

    Returns:
        What it gives.
    """
    if not torch.is_grad_enabled():
        return module(*inputs)
    if torch.compiler.is_compiling():  # The compiler recomputes values only, and moves buffers once by itself.
        return checkpoint(module, *inputs, use_reentrant=False)
    calls = count()

    def call(*inputs: Tensor) -> Any:
        if next(calls) == 0:
            return module(*inputs)
        return functional_call(module, {name: buffer.clone() for name, buffer in module.named_buffers()}, inputs)

    return checkpoint(call, *inputs, use_reentrant=False)


def set_checkpointing(encoder: nn.Module, name: str) -> None:
    """Lets an encoder recompute its activations, by timm's method `set_grad_checkpointing`.

    Args:
        encoder: The encoder.
        name: Its name, for the message.

    Raises:
        ConfigError: It has no such method.
    """
    method: Any = getattr(encoder, "set_grad_checkpointing", None)
    if method is None:
        raise ConfigError(
            f"train.activation_checkpointing = true: the encoder {name} has no method `set_grad_checkpointing`; set it "
            "to false"
        )
    method()
