"""The momentum copies against the formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cacl.config import TransformerConfig
from cacl.method.ema import ema_copy, ema_update
from cacl.models.video_transformer import VideoTransformer
from tests.method.small_method import FRAMES

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.5, 0.9, 0.999, 1.0])
def test_ema_update_is_the_formula(momentum: float) -> None:
    shapes = [(3,), (2, 5), ()]
    targets = [torch.randn(shape) for shape in shapes]
    expected = [target.numpy().astype(np.float64) for target in targets]
    places = [target.data_ptr() for target in targets]
    for _ in range(20):
        sources = [torch.randn(shape, requires_grad=True) for shape in shapes]
        ema_update(targets, sources, momentum)
        values = [source.detach().numpy().astype(np.float64) for source in sources]
        expected = [momentum * t + (1 - momentum) * s for t, s in zip(expected, values, strict=True)]
    for target, value in zip(targets, expected, strict=True):
        np.testing.assert_allclose(target.numpy(), value, rtol=0, atol=20 * 2**-23)  # 20 roundings of values near 1
    assert [target.data_ptr() for target in targets] == places  # in place
    assert not any(target.requires_grad for target in targets)


def test_ema_copy_shares_what_is_frozen_and_nothing_else() -> None:
    source = VideoTransformer(TransformerConfig(embedder="test_resnet", width=16, depth=1, heads=2), FRAMES)
    target = ema_copy(source)
    theirs = dict(target.named_parameters())
    trained = {name for name, p in source.named_parameters() if p.requires_grad}
    assert 0 < len(trained) < len(theirs)
    for name, p in source.named_parameters():
        assert (theirs[name] is p) == (name not in trained), name
        assert torch.equal(theirs[name], p), name
        assert not theirs[name].requires_grad, name
    assert {name for name, p in source.named_parameters() if p.requires_grad} == trained
    buffers = dict(source.named_buffers())
    assert all(buffer.data_ptr() != buffers[name].data_ptr() for name, buffer in target.named_buffers())
