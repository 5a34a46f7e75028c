"""The heads end where the losses expect it, and have the layers of the method."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cacl.models.heads import ContrastHead, OrderDifferenceHead, OrderHead, relative_difference
from tests.models.helpers import parameters


def test_contrast_head_ends_on_the_unit_sphere() -> None:
    head = ContrastHead(64, 128)
    features = 100 * torch.randn(32, 64)
    embedding = head(features)
    assert embedding.shape == (32, 128)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(32))
    direction = features @ head.project.weight.T + head.project.bias
    torch.testing.assert_close(embedding * direction.norm(dim=1, keepdim=True), direction, rtol=1e-4, atol=1e-3)


def test_contrast_head_normalises_in_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        embedding = ContrastHead(64, 128)(torch.randn(32, 64))
    assert embedding.dtype == torch.float32
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(32), rtol=0, atol=1e-6)


def test_heads_have_the_gradients_of_their_values() -> None:
    features = torch.randn(3, 10, dtype=torch.float64, requires_grad=True)
    for head in (ContrastHead(10, 6), OrderHead(10, hidden=8, classes=5, dropout=0.5).eval()):
        head = head.double()
        names, weights = zip(*head.named_parameters(), strict=True)

        def value(features: Tensor, *weights: Tensor, head: nn.Module = head, names: tuple = names) -> Tensor:
            return torch.func.functional_call(head, dict(zip(names, weights, strict=True)), (features,))

        assert torch.autograd.gradcheck(value, (features, *weights))


def test_order_head_has_the_layers_of_the_method() -> None:
    head = OrderHead(1024, hidden=512, classes=16, dropout=0.5)
    assert head(torch.randn(2, 1024)).shape == (2, 16)
    assert parameters(head) == (1024 + 1) * 512 + (512 + 1) * 16
    features = torch.randn(2, 1024)
    assert not torch.equal(head(features), head(features))  # dropout
    head.eval()
    first, last = head[0], head[-1]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    hidden = (features @ first.weight.T + first.bias).clamp(min=0)
    torch.testing.assert_close(head(features), hidden @ last.weight.T + last.bias)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_relative_difference_against_numpy(dtype: torch.dtype) -> None:
    maps = torch.randn(2, 3, 5, 2, 4, 4).to(dtype)
    x, y = maps.double().numpy()
    expected = np.abs(x - y).sum((3, 4)) / (np.abs(x) + np.abs(y)).sum((3, 4))
    found = relative_difference(*maps)
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(found.double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(relative_difference(*(1024 * maps)), found)


def test_relative_difference_of_maps_that_are_known() -> None:
    x = torch.rand(2, 5, 1, 3, 3)
    assert (relative_difference(x, x) == 0).all()
    assert (relative_difference(x, torch.zeros_like(x)) == 1).all()
    torch.testing.assert_close(relative_difference(x, 3 * x), torch.full((2, 5, 1), 0.5))


def test_a_channel_that_is_zero_has_no_difference_and_a_finite_gradient() -> None:
    x, y = torch.rand(2, 2, 3, 1, 2, 2).requires_grad_().unbind()
    mask = torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1, 1)
    difference = relative_difference(x * mask, y * mask)
    assert (difference[:, 1] == 0).all()
    for gradient in torch.autograd.grad(difference.sum(), (x, y)):
        assert gradient.isfinite().all()
        assert gradient[:, 0].any()


def test_order_difference_head_has_the_layers_and_gradients_that_it_says() -> None:
    head = OrderDifferenceHead(4 * 3 + 6 * 2, classes=5, dropout=0.0).double().eval()
    stages = [torch.randn(2, 3, 4, 3, 2, 2, dtype=torch.float64), torch.randn(2, 3, 6, 2, 2, 1, dtype=torch.float64)]
    assert parameters(head) == 2 * 24 + (24 + 1) * 128 + (128 + 1) * 5
    differences = torch.cat([relative_difference(*maps).flatten(1) for maps in stages], 1)
    torch.testing.assert_close(head(*zip(*stages, strict=True)), head.layers(differences))

    def value(*maps: Tensor) -> Tensor:
        return head(maps[:2], maps[2:])

    flat = [maps[side].clone().requires_grad_() for side in range(2) for maps in stages]
    assert torch.autograd.gradcheck(value, flat)
