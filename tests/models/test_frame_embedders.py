"""The frame embedders against the models that they wrap, and frames as these models expect them."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from cacl.models.video_transformer import LightEmbedder, TimmEmbedder, VideoTransformer
from tests.models.helpers import RESNET, random_clips


@pytest.mark.parametrize("size", [16, 48, 112])
def test_light_embedder_takes_any_size(size: int) -> None:
    assert LightEmbedder(24)(torch.rand(2, 3, size, size)).shape == (2, 24)


def test_light_embedder_tells_where_things_are() -> None:
    left, right = torch.zeros(2, 1, 3, 128, 128).unbind()
    left[..., 48:64, 32:48] = 1
    right[..., 48:64, 80:96] = 1  # as far from the other edge, and a whole number of strides away
    grid = LightEmbedder(24).grid
    apart = (grid(left) - grid(right)).norm()
    assert apart > 0.1 * grid(left).norm()


# ------------------------------------------------------------------------------------------------- timm models


def test_timm_embedder_may_take_frames_as_they_are() -> None:
    embedder = TimmEmbedder("test_resnet", "", frozen=True, width=5, normalize=False)
    frames = torch.rand(3, 3, 32, 32)
    assert torch.equal(embedder(frames), embedder.project(embedder.backbone(frames)))
    within = VideoTransformer(dataclasses.replace(RESNET, normalize=False), 6).embedder
    assert isinstance(within, TimmEmbedder)
    assert within.std.eq(1).all()


def test_timm_embedder_normalises_as_the_model_was_trained() -> None:
    embedder = TimmEmbedder("resnet18", "", frozen=True, width=24)
    frames = torch.rand(2, 3, 48, 48)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    expected = embedder.project(embedder.backbone((frames - mean) / std))
    torch.testing.assert_close(embedder(frames), expected)


@pytest.mark.parametrize("size", [48, 400], ids=["up", "down"])
def test_models_of_one_input_size_get_the_frames_resized(size: int) -> None:
    """A frame is filtered along each side by a triangle, which is as wide as two pixels of the old frame or of the new
    one, whichever are larger."""
    embedder = TimmEmbedder("test_vit", "", frozen=True, width=24)
    frames, scale = torch.rand(2, 3, size, size), size / 160
    centres = (torch.arange(160, dtype=torch.float64) + 0.5) * scale
    distances = (torch.arange(size) + 0.5 - centres[:, None]).abs() / max(scale, 1)
    triangle = (1 - distances).clamp(min=0)
    weights = (triangle / triangle.sum(1, keepdim=True)).float()
    resized = weights @ frames @ weights.T
    torch.testing.assert_close(embedder(frames), embedder(resized), rtol=1e-4, atol=1e-5)


def test_feature_length_is_that_of_the_last_layer() -> None:
    """MobileNetV3 widens its pooled features (`num_features`) once more."""
    assert TimmEmbedder("mobilenetv3_small_050", "", frozen=True, width=24)(torch.rand(2, 3, 32, 32)).shape == (2, 24)


def test_frozen_embedder_never_trains() -> None:
    transformer = VideoTransformer(RESNET, frames=6)
    embedder = transformer.embedder
    assert isinstance(embedder, TimmEmbedder)
    transformer.train()
    assert embedder.project.training
    assert not any(m.training for m in embedder.backbone.modules())

    before = {name: value.clone() for name, value in embedder.backbone.state_dict().items()}
    views, order = random_clips()
    transformer(views.float(), order).square().sum().backward()
    assert all(p.grad is None for p in embedder.backbone.parameters())
    assert embedder.project.weight.grad is not None
    assert embedder.project.weight.grad.any()
    for name, value in embedder.backbone.state_dict().items():  # with the statistics of its batch norms
        assert torch.equal(value, before[name]), name


def test_an_embedder_that_is_not_frozen_trains() -> None:
    embedder = TimmEmbedder("test_resnet", "", frozen=False, width=24)
    assert all(m.training for m in embedder.modules())
    embedder(torch.rand(4, 3, 48, 48)).square().sum().backward()
    assert all(p.grad is not None for p in embedder.backbone.parameters())
    assert not any(m.training for m in embedder.eval().modules())
