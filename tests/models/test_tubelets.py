"""Tokens of two neighbouring frames against a plain second implementation, and what differs from tokens of one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cacl.config import TransformerConfig
from cacl.errors import ConfigError
from cacl.models.create import create_model
from cacl.models.video_classifier import VideoClassifier
from cacl.models.video_transformer import TubeletEmbedder, VideoTransformer
from tests.models.helpers import random_clips

TUBELET = TransformerConfig(embedder="tubelet", width=48, depth=2, heads=3)


def transformer_on_tubelets(frames: int = 6) -> VideoTransformer:
    """A transformer in float64 whose batch norms have statistics and weights of their own."""
    transformer = VideoTransformer(TUBELET, frames).double()
    for module in transformer.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean, module.running_var = torch.randn_like(module.bias), torch.rand_like(module.bias) + 0.5
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return transformer


def shuffle_plainly(clips: Tensor, order: Tensor) -> Tensor:
    return torch.stack([clip[:, frames] for clip, frames in zip(clips, order, strict=True)])


def embed_plainly(embedder: TubeletEmbedder, clips: Tensor) -> Tensor:
    """Tubelets as ViViT has them: a convolution of three dimensions, whose kernels are two frames deep."""
    state = {name: value.detach() for name, value in embedder.state_dict().items()}
    kernels = state["grid.0.weight"].unflatten(1, (2, 3)).transpose(1, 2)  # [64, 2 * 3, 4, 4] -> [64, 3, 2, 4, 4]
    maps = normalize(F.conv3d(clips, kernels, stride=(2, 4, 4)), state, "grid.1")
    maps = F.gelu(maps)
    tokens = [
        normalize(F.adaptive_avg_pool2d(maps[:, :, t], 3).flatten(1), state, "grid.5") for t in range(maps.shape[2])
    ]
    return torch.stack(tokens, 1) @ state["project.weight"].T + state["project.bias"]


def normalize(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    mean, variance, scale, shift = (
        state[f"{name}.{part}"].view(-1, *[1] * (x.dim() - 2))
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * scale + shift


def test_tokens_equal_those_of_a_three_dimensional_convolution() -> None:
    transformer = transformer_on_tubelets().eval()
    clips, _ = random_clips(batch=3)
    assert isinstance(transformer.embedder, TubeletEmbedder)
    tokens = transformer.embed(clips)
    assert tokens.shape == (3, 3, 48)
    torch.testing.assert_close(tokens, embed_plainly(transformer.embedder, clips), rtol=0, atol=1e-10)
    torch.testing.assert_close(tokens[1:2], transformer.embed(clips[1:2]), rtol=0, atol=1e-10)


def test_features_equal_the_long_way() -> None:
    """The clip is shuffled by a loop, embedded plainly, and its tokens follow those of the clip."""
    transformer = transformer_on_tubelets().eval()
    clips, order = random_clips(batch=3)
    embedder = transformer.embedder
    assert isinstance(embedder, TubeletEmbedder)
    first, second = (embed_plainly(embedder, x) for x in (clips, shuffle_plainly(clips, order)))
    cls = transformer.cls.expand(3, 1, -1)
    tokens = torch.cat([cls, first, second], 1) + transformer.positions
    assert tokens.shape == (3, 1 + 2 * 3, 48)
    expected = transformer.norm(transformer.blocks(tokens))[:, 0]
    torch.testing.assert_close(transformer(clips, order.byte()), expected, rtol=0, atol=1e-10)


def test_the_shuffled_copy_is_embedded_with_batch_statistics_of_its_own() -> None:
    transformer, other = transformer_on_tubelets().train(), transformer_on_tubelets().train()
    other.load_state_dict(transformer.state_dict())
    clips, order = random_clips(batch=3)
    expected = other.attend(other.embed(clips), other.embed(shuffle_plainly(clips, order)))
    torch.testing.assert_close(transformer(clips, order), expected, rtol=0, atol=1e-10)
    for (name, ours), theirs in zip(transformer.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12, msg=name)


def test_without_an_order_the_copy_is_the_clip() -> None:
    transformer = transformer_on_tubelets().eval()
    clips, _ = random_clips()
    true_order = torch.arange(6).expand(2, -1)
    torch.testing.assert_close(transformer(clips), transformer(clips, true_order), rtol=0, atol=1e-12)
    tokens = transformer.forward_features(clips)
    assert tokens.shape == (2, 1 + 2 * 3, 48)
    torch.testing.assert_close(tokens[:, 0], transformer(clips), rtol=0, atol=1e-12)


def test_gradients_reach_every_parameter_from_both_copies() -> None:
    transformer = transformer_on_tubelets().train()
    clips, order = random_clips(batch=3)
    clips.requires_grad_()
    transformer(clips, order).square().sum().backward()
    for name, parameter in transformer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 1e-12, name
    assert clips.grad is not None
    assert clips.grad.abs().amax((1, 3, 4)).min() > 0, "every frame counts"


def test_a_token_tells_the_order_of_its_two_frames() -> None:
    transformer = transformer_on_tubelets(frames=2).eval()
    clips, _ = random_clips(frames=2)
    assert (transformer.embed(clips) - transformer.embed(clips.flip(2))).abs().max() > 1e-3


def test_filters_begin_without_an_eye_for_brightness() -> None:
    filters = TubeletEmbedder(24).grid[0]
    tubelets = torch.rand(2, 6, 16, 16)
    brighter = tubelets + torch.tensor([0.5, -1.0, 2.0]).repeat(2)[:, None, None]  # the same in both frames
    torch.testing.assert_close(filters(brighter), filters(tubelets), rtol=0, atol=1e-5)
    assert filters(tubelets).std() > 0.05


@pytest.mark.parametrize("size", [16, 40, 112])
def test_frames_may_have_any_size(size: int) -> None:
    assert TubeletEmbedder(24)(torch.rand(2, 6, size, size)).shape == (2, 24)


def test_an_odd_number_of_frames_is_refused() -> None:
    assert create_model("video_transformer", embedder="tubelet", width=24, depth=1, heads=2, frames=2)
    with pytest.raises(ConfigError, match=r'clip\.frames = 5 is odd.*"tubelet"'):
        create_model("video_transformer", embedder="tubelet", width=24, depth=1, heads=2, frames=5)
    with pytest.raises(RuntimeError):  # as for any number that the transformer was not made for
        transformer_on_tubelets(frames=4)(*random_clips(frames=5))


def test_there_are_no_weights_to_load() -> None:
    with pytest.raises(ConfigError, match=r"model\.transformer\.weights = 'w\.pth'.*\"tubelet\""):
        create_model("video_transformer", embedder="tubelet", weights="w.pth")


def test_a_frozen_embedder_keeps_weights_and_batch_statistics() -> None:
    transformer = transformer_on_tubelets().float()
    model = VideoClassifier(transformer, 2, 0.0).train()
    assert list(model.layer_groups()) == ["embedder", "block1", "block2", "classifier"]
    clips = random_clips(batch=4)[0].float()
    before = {name: value.clone() for name, value in transformer.embedder.state_dict().items()}
    model.freeze({"embedder"})
    model.train()
    model(clips).square().sum().backward()
    for name, value in transformer.embedder.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in transformer.embedder.parameters())
