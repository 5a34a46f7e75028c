"""Forward passes that keep no activations: the backward pass computes them again.

Memory is paid for with a second forward pass (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016): that
of the activations of all layers but some (`recompute`), or of all clips but some (`recompute_in_parts`).
"""

from __future__ import annotations

from collections.abc import Sequence
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


def recompute_in_parts(module: nn.Module, parts: int, *inputs: Tensor) -> Any:
    """Calls a module on one part of a batch after the other, of which only one has activations at a time.

    A loss of all outputs together has the gradient that it has with all activations in memory. This is the gradient
    caching of Gao et al. ("Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021): the
    gradients of the outputs are known before the backward pass calls the module again, part by part. Each part has
    batch statistics of its own, as it has in a process of its own.

    Args:
        module: The module.
        parts: The number of parts. A single one keeps its activations, and so does what needs no gradient.
        inputs: What the module takes, [B, ...] each. The lengths of the parts differ by at most 1.

    Returns:
        What the module gives for all of the batch: [B, ...], or a dictionary of such, or of dictionaries.
    """
    if parts == 1 or not torch.is_grad_enabled():
        return module(*inputs)
    pieces = zip(*(x.tensor_split(parts) for x in inputs), strict=True)
    return _concatenate([recompute(module, *piece) for piece in pieces])


def _concatenate(outputs: Sequence[Any]) -> Any:
    if isinstance(outputs[0], Tensor):
        return torch.cat(list(outputs))
    return {name: _concatenate([output[name] for output in outputs]) for name in outputs[0]}


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
