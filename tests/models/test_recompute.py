"""Modules whose activations are computed again, against the same modules called as usual."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from cacl.errors import ConfigError
from cacl.models.recompute import recompute, set_checkpointing


def a_stage() -> nn.Sequential:
    """What could go wrong a second time: batch statistics that move, and masks of dropout."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(2, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Conv3d(6, 4, 1)
    ).double()


def clips() -> Tensor:
    return torch.randn(3, 2, 4, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def learn(stage: nn.Module, *, recomputed: bool, dtype: torch.dtype = torch.float64) -> Iterator[Tensor]:
    """Yields the output, the gradients and the buffers of two calls whose masks and batch statistics differ."""
    torch.manual_seed(2)
    x = clips().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        first, second = (recompute(stage, x * scale) if recomputed else stage(x * scale) for scale in (1, 3))
    (first.double().square().sum() + second.double().sin().sum()).backward()
    assert x.grad is not None
    yield from (first, second, x.grad, torch.rand(3))
    for parameter in stage.parameters():
        assert parameter.grad is not None
        yield parameter.grad
    yield from stage.buffers()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_gradients_statistics_and_random_state_are_the_same_bits(dtype: torch.dtype) -> None:
    stage = a_stage().to(torch.float32 if dtype == torch.bfloat16 else dtype)
    twin = copy.deepcopy(stage)
    if dtype != torch.float64:
        stage, twin = (nn.Sequential(ToFloat(), module) for module in (stage, twin))
    usual, found = list(learn(stage, recomputed=False, dtype=dtype)), list(learn(twin, recomputed=True, dtype=dtype))
    assert len(usual) == len(found) == 4 + 6 + 3
    assert all(torch.equal(x, y) for x, y in zip(usual, found, strict=True))


class ToFloat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float()


def test_only_the_inputs_are_kept() -> None:
    """Outer hooks see what autograd keeps. It is freed where it was kept before, so only its size is noted."""
    stage, x, kept = a_stage(), clips(), []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.data_ptr())
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        recompute(stage, x)
        assert set(kept) <= {x.data_ptr()}
        stage(x)
        assert len(set(kept)) > 5


def test_a_stage_is_called_again_in_the_backward_pass_and_only_there() -> None:
    stage, calls = a_stage(), []
    stage.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    with torch.no_grad():
        recompute(stage, clips())
    assert calls == [False]
    buffers = [id(buffer) for buffer in stage.buffers()]
    output = recompute(stage[:4], clips())
    first_layer: list[bool] = []
    stage[0].register_forward_hook(lambda *_: first_layer.append(True))
    output.sum().backward()
    assert first_layer == [True]
    assert [id(buffer) for buffer in stage.buffers()] == buffers


def test_an_encoder_that_cannot_do_it_is_named() -> None:
    with pytest.raises(
        ConfigError,
        match=r"^train\.activation_checkpointing = true: the encoder mine has no method `set_grad_checkpointing`; "
        r"set it to false$",
    ):
        set_checkpointing(a_stage(), "mine")
