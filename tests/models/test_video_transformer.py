"""The video transformer is held against the facts of the method, and against itself computed the long way."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cacl.config import TransformerConfig
from cacl.models.create import create_model
from cacl.models.heads import ContrastHead
from cacl.models.video_transformer import VideoTransformer
from tests.models.helpers import LIGHT, RESNET, assert_as_torch_draws, parameters, random_clips, shapes_only


def test_transformer_counts_its_layers() -> None:
    width, depth, frames = 48, 2, 6
    transformer = VideoTransformer(LIGHT, frames)
    block = 12 * width**2 + (1 + 4 + 1) * width + 4 * width  # no bias for q, k, v; two norms
    tokens = 1 + 2 * frames
    expected = width + tokens * width + depth * block + 2 * width
    assert parameters(transformer) - parameters(transformer.embedder) == expected
    assert transformer.positions.shape == (tokens, width)
    assert transformer.num_features == width
    assert len(transformer.blocks) == depth


def test_default_transformer_is_the_published_one() -> None:
    with shapes_only():
        transformer = create_model("video_transformer")
        frozen = sum(p.numel() for p in transformer.parameters() if not p.requires_grad)
        head = ContrastHead(768, 128)
        # 44.2 M with its head: six blocks, 33 positions and CLS, the last norm, and the projection of ResNet-50
        blocks, rest = 6 * (12 * 768**2 + 10 * 768), (33 + 1 + 2) * 768 + 2048 * 768 + 768
        assert parameters(transformer) - frozen + parameters(head) == blocks + rest + 768 * 128 + 128 == 44_213_120
        assert frozen == 23_508_032  # ResNet-50 without its classifier: 25,557,032 - (2048 + 1) * 1000
        order = torch.zeros(2, 16, dtype=torch.uint8)
        assert transformer(torch.rand(2, 3, 16, 112, 112), order).shape == (2, 768)


def test_every_layer_norm_has_the_same_epsilon() -> None:
    norms = [m for m in VideoTransformer(LIGHT, frames=6).modules() if isinstance(m, nn.LayerNorm)]
    assert [norm.eps for norm in norms] == [1e-5] * 5  # two of each block, and the last


def test_all_tokens_have_a_position_and_cls_comes_first() -> None:
    """Tokens that are zero leave nothing but positions."""
    transformer = VideoTransformer(LIGHT, frames=6).double()
    seen = []
    transformer.blocks[0].register_forward_pre_hook(lambda _, tokens: seen.append(tokens[0].detach()))
    nothing = torch.zeros(2, 6, 48, dtype=torch.float64)
    transformer.attend(nothing, nothing + 1)
    (tokens,) = seen
    expected = transformer.positions.detach().clone()
    expected[0] += transformer.cls.detach()
    expected[7:] += 1
    for clip in tokens:
        torch.testing.assert_close(clip, expected, rtol=0, atol=0)


@pytest.mark.parametrize("init", ["normal", "torch"])
def test_linear_layers_start_as_asked(init: str) -> None:
    config = {"embedder": "test_resnet", "width": 96, "depth": 2, "heads": 3}
    transformer = create_model("video_transformer", frames=6, init=init, **config)
    assert isinstance(transformer, VideoTransformer)
    layers = [m for m in (*transformer.blocks.modules(), transformer.embedder.project) if isinstance(m, nn.Linear)]
    assert len(layers) == 2 * 4 + 1
    for layer in layers:
        if init == "torch":
            assert_as_torch_draws(layer, layer.in_features)
        else:
            assert layer.weight.std().item() == pytest.approx(0.02, rel=5 / math.sqrt(2 * layer.weight.numel()))
            assert layer.bias is None or not layer.bias.any()
    for drawn in (transformer.cls, transformer.positions):  # in both forms
        assert drawn.std().item() == pytest.approx(0.02, rel=5 / math.sqrt(2 * drawn.numel()))


@pytest.mark.parametrize("config", [LIGHT, RESNET], ids=lambda config: config.embedder)
def test_gathered_tokens_equal_those_of_shuffled_frames(config: TransformerConfig) -> None:
    transformer = VideoTransformer(config, frames=6).double().train()
    views, order = random_clips()
    shuffled = torch.stack([view[:, frames] for view, frames in zip(views, order, strict=True)])
    long_way = transformer.attend(transformer.embed(views), transformer.embed(shuffled))
    assert long_way.shape == (2, 48)
    torch.testing.assert_close(transformer(views, order.byte()), long_way, rtol=0, atol=1e-12)


def test_gathered_tokens_have_the_gradients_of_the_long_way() -> None:
    transformer = VideoTransformer(LIGHT, frames=6).double()
    views, order = random_clips()
    shuffled = torch.stack([view[:, frames] for view, frames in zip(views, order, strict=True)])
    names, weights = zip(*transformer.named_parameters(), strict=True)
    long_way = transformer.attend(transformer.embed(views), transformer.embed(shuffled))
    expected = torch.autograd.grad(long_way.square().sum(), weights)
    actual = torch.autograd.grad(transformer(views, order).square().sum(), weights)
    for name, ours, theirs in zip(names, actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11, msg=lambda m, name=name: f"{name}: {m}")


def test_embedding_keeps_clips_and_frames_apart() -> None:
    transformer = VideoTransformer(LIGHT, frames=6).double()
    views, order = random_clips(batch=3)
    tokens = transformer.embed(views)
    assert tokens.shape == (3, 6, 48)
    torch.testing.assert_close(tokens[1, 4], transformer.embedder(views[1:2, :, 4])[0], rtol=0, atol=1e-12)
    alone = transformer(views[2:], order[2:])
    torch.testing.assert_close(transformer(views, order)[2:], alone, rtol=0, atol=1e-12)


def test_positions_matter() -> None:
    transformer = VideoTransformer(LIGHT, frames=6).double()
    views, _ = random_clips(batch=1)
    identity, other = torch.arange(6)[None], torch.tensor([[1, 0, 2, 3, 4, 5]])
    feature = transformer(views, identity)
    assert (transformer(views, other) - feature).abs().max() > 1e-6
    assert (transformer(views.flip(2), identity) - feature).abs().max() > 1e-6

    nn.init.zeros_(transformer.positions)  # a bag of frames: the order cannot show
    torch.testing.assert_close(transformer(views, other), transformer(views, identity), rtol=0, atol=1e-12)


def test_the_feature_is_that_of_the_cls_token() -> None:
    without_blocks = VideoTransformer(dataclasses.replace(LIGHT, depth=0), frames=6).double()
    expected = F.layer_norm(without_blocks.cls + without_blocks.positions[0], [48])
    torch.testing.assert_close(without_blocks(*random_clips()), expected.expand(2, 48), rtol=0, atol=1e-12)


def test_the_first_of_the_tokens_is_the_feature() -> None:
    model = create_model("video_transformer", embedder="light", width=24, depth=2, heads=2, frames=4).eval()
    with torch.no_grad():
        clips = random_clips(frames=4)[0].float()
        tokens = model.forward_features(clips)
        assert tokens.shape == (len(clips), 1 + 2 * 4, 24)
        torch.testing.assert_close(tokens[:, 0], model(clips))


def test_clip_length_is_fixed() -> None:
    views, order = random_clips(frames=5)
    with pytest.raises(RuntimeError, match="size"):
        VideoTransformer(LIGHT, frames=6).double()(views, order)


def test_transformer_starts_from_truncated_normals() -> None:
    transformer = VideoTransformer(TransformerConfig(embedder="light", width=192, depth=1, heads=3), frames=16)
    drawn = [transformer.cls, transformer.positions, transformer.embedder.project.weight]
    drawn += [m.weight for m in transformer.blocks.modules() if isinstance(m, nn.Linear)]
    assert len(drawn) == 3 + 4
    for weight in drawn:
        assert weight.std().item() == pytest.approx(0.02, rel=5 / math.sqrt(2 * weight.numel()))
    assert not any(
        m.bias.any() for m in transformer.blocks.modules() if isinstance(m, nn.Linear) and m.bias is not None
    )
