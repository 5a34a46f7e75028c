"""The heads end where the losses expect it, and have the layers of the method."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cacl.models.heads import ContrastHead, OrderHead
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
