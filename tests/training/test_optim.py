"""The learning rate and the optimisers against the formulas of their papers."""

from __future__ import annotations

import copy
import importlib.util
import math
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm.optim
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Optimizer
from torch.profiler import profile

from cacl.config import OptimConfig
from cacl.errors import ConfigError
from cacl.training.optim import (
    APEX_ALTERNATIVES,
    cosine_with_warmup,
    create_optimizer,
    limit_gradient,
    restore_optimizer,
)

# ------------------------------------------------------------------------------------------------ learning rate


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (7, 0), (100, 10), (101, 1), (50, 50)])
def test_learning_rate_rises_to_its_peak_and_falls_to_nothing(steps: int, warmup: int) -> None:
    rates = [cosine_with_warmup(step, steps, warmup, 0.3) for step in range(steps)]
    expected = [
        0.3 * (s + 1) / warmup if s < warmup else 0.15 * (1 + math.cos(math.pi * (s - warmup) / (steps - warmup)))
        for s in range(steps)
    ]
    assert rates == pytest.approx(expected, rel=1e-12)
    assert max(rates) == pytest.approx(0.3, rel=1e-12)
    assert min(rates) > 0
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert np.allclose(np.diff(rates[:warmup]), 0.3 / max(1, warmup), rtol=1e-9)
    if warmup < steps:
        assert cosine_with_warmup(steps, steps, warmup, 0.3) == pytest.approx(0, abs=1e-12)
        middle = warmup + (steps - warmup) / 2
        assert cosine_with_warmup(int(middle), steps, warmup, 0.3) >= 0.15 - 1e-12


# --------------------------------------------------------------------------------------------------- optimisers


def regression() -> tuple[nn.Sequential, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 8, generator=generator)
    module = nn.Sequential(nn.Linear(8, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 3))
    for p in module.parameters():
        nn.init.normal_(p, generator=generator)
    return module, x, torch.randn(64, 3, generator=generator)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adamw", "lars", "lamb"])
def test_known_optimisers_learn(name: str) -> None:
    module, x, y = regression()
    optimizer = create_optimizer(module, OptimConfig(name=name, lr=0.01))
    losses = []
    for _ in range(30):
        loss = nn.functional.mse_loss(module(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(math.isfinite(loss) for loss in losses)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adamw"])
def test_first_two_steps_are_those_of_the_papers(name: str) -> None:
    """Nesterov's and Polyak's momentum with weight decay in the gradient; Adam with decoupled weight decay."""
    lr, decay, m = 0.02, 0.3, 0.8
    module, x, y = regression()
    optimizer = create_optimizer(module, OptimConfig(name=name, lr=lr, momentum=m, weight_decay=decay))
    weights = [p.detach().double().numpy().copy() for p in module.parameters()]
    first, second = ([np.zeros_like(w) for w in weights] for _ in range(2))
    for step in (1, 2):
        optimizer.zero_grad()
        nn.functional.mse_loss(module(x), y).backward()
        for i, p in enumerate(module.parameters()):
            assert p.grad is not None
            g, w = p.grad.double().numpy(), weights[i]
            if name == "adamw":
                first[i] = 0.9 * first[i] + 0.1 * g
                second[i] = 0.999 * second[i] + 0.001 * g**2
                scale = np.sqrt(second[i] / (1 - 0.999**step)) + 1e-8
                weights[i] = w * (1 - lr * decay) - lr * first[i] / (1 - 0.9**step) / scale
            else:
                g = g + decay * w  # biases and norms too, as published
                first[i] = g if step == 1 else m * first[i] + g
                weights[i] = w - lr * (g + m * first[i] if name == "sgd" else first[i])
        optimizer.step()
        for p, w in zip(module.parameters(), weights, strict=True):
            np.testing.assert_allclose(p.detach().numpy(), w, rtol=1e-5, atol=1e-6)


def take_steps(optimizer: Optimizer, module: nn.Module, steps: int, *, seed: int = 0) -> None:
    """Takes steps with gradients of noise that is added to the weights: what is learnt is to make them small."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for p in module.parameters():
            noise = torch.randn(p.shape, generator=generator).to(p.dtype)
            p.grad = p.detach() + noise.contiguous(memory_format=memory_format_of(p))
        optimizer.step()


def memory_format_of(x: Tensor) -> torch.memory_format:
    return torch.contiguous_format if x.is_contiguous() else torch.channels_last_3d


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adam", "adamw"])
def test_fused_steps_are_those_of_one_parameter_after_the_other(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    modules = [regression()[0].to(dtype) for _ in range(2)]
    config = OptimConfig(name=name, lr=0.01, weight_decay=0.01)
    optimizers = [create_optimizer(module, config) for module in modules]
    assert [group["fused"] for group in optimizers[0].param_groups] == [True]
    for group in optimizers[1].param_groups:
        group["fused"], group["foreach"] = False, False
    for optimizer, module in zip(optimizers, modules, strict=True):
        take_steps(optimizer, module, 200)
    for fused, single in zip(*(module.parameters() for module in modules), strict=True):
        torch.testing.assert_close(fused, single, rtol=tolerance, atol=tolerance)


def test_a_step_of_adamw_is_one_operation_for_all_parameters() -> None:
    module, _, _ = regression()
    optimizer = create_optimizer(module, OptimConfig(name="adamw"))
    take_steps(optimizer, module, 1)
    with profile() as trace:
        optimizer.step()
    calls = {event.key: event.count for event in trace.key_averages()}
    assert calls["aten::_fused_adamw_"] == 1
    assert "aten::sqrt" not in calls


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_restored_optimiser_takes_the_same_steps_whatever_the_strides_were(name: str) -> None:
    """The state of a contiguous weight goes on with one whose channels lie last, as on another device."""
    config = OptimConfig(name=name, lr=0.01)
    module = nn.Conv3d(4, 8, 3)
    optimizer = create_optimizer(module, config)
    take_steps(optimizer, module, 2)
    other = copy.deepcopy(module).to(memory_format=torch.channels_last_3d)
    assert other.weight.stride() != module.weight.stride()
    restored = create_optimizer(other, config)
    restore_optimizer(restored, copy.deepcopy(optimizer.state_dict()))
    for stepped, weights in ((optimizer, module), (restored, other)):
        take_steps(stepped, weights, 2, seed=1)
    torch.testing.assert_close(other.weight, module.weight, rtol=0, atol=0)
    assert other.weight.stride() != module.weight.stride()


def test_a_state_from_before_steps_were_fused_goes_on_with_the_same_bits() -> None:
    modules = [regression()[0] for _ in range(2)]
    before = torch.optim.AdamW(modules[0].parameters(), lr=0.01, weight_decay=1e-4)
    take_steps(before, modules[0], 2)
    modules[1].load_state_dict(modules[0].state_dict())
    restored = create_optimizer(modules[1], OptimConfig(name="adamw", lr=0.01))
    restore_optimizer(restored, copy.deepcopy(before.state_dict()))
    for optimizer, module in zip((before, restored), modules, strict=True):
        take_steps(optimizer, module, 3, seed=1)
    for one, other in zip(*(module.parameters() for module in modules), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("max_norm", "scale"), [(0.0, 1.0), (14.0, 1.0), (6.5, 0.5)])
def test_a_gradient_that_is_too_long_is_scaled_as_a_whole(max_norm: float, scale: float) -> None:
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad, parameters[2].grad = torch.tensor([3.0, 4.0]), torch.tensor([0.0, -12.0])
    assert limit_gradient(parameters, max_norm).item() == 13
    assert parameters[0].grad.tolist() == pytest.approx([3 * scale, 4 * scale])
    assert parameters[1].grad is None
    assert parameters[2].grad.tolist() == pytest.approx([0, -12 * scale])


def test_optimiser_has_what_is_trained() -> None:
    module, _, _ = regression()
    module[0].requires_grad_(False)
    optimizer = create_optimizer(module, OptimConfig(lr=0.5, weight_decay=0.1))
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in module.parameters() if p.requires_grad}
    assert len(held) == 4
    assert all((group["lr"], group["weight_decay"]) == (0.5, 0.1) for group in optimizer.param_groups)


@pytest.mark.parametrize(
    ("name", "nearest"), [("sdg", "sgd"), ("adamww", "adamw"), ("larss", "lars"), ("lambb", "lamb")]
)
def test_unknown_optimisers_name_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=rf"^optim\.name = '{name}': no such optimiser; did you mean {nearest}\?$"):
        create_optimizer(nn.Linear(2, 2), OptimConfig(name=name))


def test_unknown_optimisers_like_no_other_name_them_all() -> None:
    with pytest.raises(ConfigError, match=r"'zzzzzz': no such optimiser; known are .*\badamw\b.*\bsgd\b"):
        create_optimizer(nn.Linear(2, 2), OptimConfig(name="zzzzzz"))


def test_optimisers_that_cannot_be_made_here_are_a_fault_of_the_configuration() -> None:
    """timm lists them everywhere, but they need a GPU and a library."""
    assert "bnbadamw" in timm.optim.list_optimizers()
    if torch.cuda.is_available() and importlib.util.find_spec("bitsandbytes"):
        pytest.skip("it can be made here")
    with pytest.raises(ConfigError, match=r"^optim\.name = 'bnbadamw'"):
        create_optimizer(nn.Linear(2, 2), OptimConfig(name="bnbadamw"))


# --------------------------------------------------------------------------------------------------- NVIDIA Apex

APEX = """
import torch

class Recorder(torch.optim.Optimizer):
    \"\"\"Takes what the optimisers of Apex take, by their names, and has their `zero_grad`, which takes nothing.\"\"\"

    def __init__(self, params, lr=1e-3, weight_decay=0.0, **given):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.given = given

    def zero_grad(self):
        super().zero_grad()

class FusedSGD(Recorder): pass
class FusedAdam(Recorder): pass
class FusedLAMB(Recorder): pass
class FusedNovoGrad(Recorder): pass
"""


@pytest.fixture
def apex(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `apex` that records what it gets, whose kernels are there, on a machine that seems to have a GPU."""
    (tmp_path / "apex/optimizers").mkdir(parents=True)
    (tmp_path / "apex/__init__.py").touch()
    (tmp_path / "apex/optimizers/__init__.py").write_text(APEX)
    (tmp_path / "apex/multi_tensor_apply.py").write_text("class multi_tensor_applier: available = True")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    yield tmp_path / "apex"
    for name in [name for name in sys.modules if name.split(".")[0] == "apex"]:
        del sys.modules[name]


def on_cuda() -> nn.Module:
    """Returns a layer of two parameters that say they lie on a GPU, and have no memory anywhere."""
    with FakeTensorMode():
        module = nn.Linear(3, 2, device="meta")
        module.weight, module.bias = (nn.Parameter(torch.empty(shape, device="cuda")) for shape in ((2, 3), (2,)))
    return module


@pytest.mark.parametrize(
    ("name", "kind", "given"),
    [
        ("fusedsgd", "FusedSGD", {"momentum": 0.8, "nesterov": True}),
        ("fusedadam", "FusedAdam", {"adam_w_mode": False}),
        ("fusedadamw", "FusedAdam", {"adam_w_mode": True}),
        ("fusedlamb", "FusedLAMB", {}),
        ("fusednovograd", "FusedNovoGrad", {"betas": (0.95, 0.98)}),
    ],
)
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.usefixtures("apex")
def test_apex_gets_what_the_configuration_says(name: str, kind: str, given: dict[str, Any], grouped: bool) -> None:
    module = on_cuda()
    trained: Any = [{"params": [module.weight]}, {"params": [module.bias]}] if grouped else module
    optimizer: Any = create_optimizer(trained, OptimConfig(name=name, lr=0.3, weight_decay=0.2, momentum=0.8))
    assert type(optimizer).__module__ == "apex.optimizers"
    assert (type(optimizer).__name__, optimizer.given) == (kind, given)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.3, 0.2)] * (1 + grouped)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(module.weight), id(module.bias)}


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("fusedsgd", "sgd"),
        ("fusedadam", "adam"),
        ("fusedadamw", "adamw"),
        ("fusedlamb", "lamb"),
        ("fusednovograd", "novograd"),
    ],
)
def test_weights_on_a_cpu_are_not_for_apex(name: str, instead: str) -> None:
    """The line tells how Apex is built and what to take instead, which learns here."""
    expected = (
        f"optim.name = {name!r} needs NVIDIA Apex and a CUDA device, and the weights lie on the device cpu: build Apex "
        "by `git clone https://github.com/NVIDIA/apex && cd apex && APEX_CPP_EXT=1 APEX_CUDA_EXT=1 pip install -v "
        f"--no-build-isolation .`, or take {instead!r}, which runs everywhere"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        create_optimizer(nn.Linear(2, 2), OptimConfig(name=name))
    module, _, _ = regression()
    take_steps(create_optimizer(module, OptimConfig(name=instead)), module, 2)


def test_apex_without_its_kernels_says_so(apex: Path) -> None:
    (apex / "multi_tensor_apply.py").write_text("class multi_tensor_applier: available = False")
    with pytest.raises(
        ConfigError, match=r"^optim\.name = 'fusedlamb' .* Apex was built without its CUDA kernels: build"
    ):
        create_optimizer(on_cuda(), OptimConfig(name="fusedlamb"))


def test_the_other_project_called_apex_is_not_apex(apex: Path) -> None:
    """It has no `apex.optimizers`."""
    shutil.rmtree(apex / "optimizers")
    with pytest.raises(ConfigError, match=r"^optim\.name = 'fusedlamb' .* Apex is not installed: build"):
        create_optimizer(on_cuda(), OptimConfig(name="fusedlamb"))


def test_every_optimiser_of_apex_has_another_one_beside_it() -> None:
    """Also those that a later timm brings."""
    listed = {str(name): timm.optim.get_optimizer_info(str(name)).opt_class for name in timm.optim.list_optimizers()}
    assert {name for name, kind in listed.items() if str(kind).startswith("apex.")} == set(APEX_ALTERNATIVES)
    assert set(APEX_ALTERNATIVES.values()) <= set(listed) - set(APEX_ALTERNATIVES)
