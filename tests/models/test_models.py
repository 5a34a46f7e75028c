"""The encoders and heads against the facts of the method, and against themselves done the long way."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cacl.config import ModelConfig, TransformerConfig
from cacl.errors import CheckpointError, ConfigError
from cacl.models import (
    CNNS,
    MODEL_NAMES,
    ContrastHead,
    LightEmbedder,
    OrderHead,
    ResNet3D,
    TimmEmbedder,
    VideoTransformer,
    create_model,
)

LIGHT = TransformerConfig(embedder="light", width=48, depth=2, heads=3)
RESNET = TransformerConfig(embedder="test_resnet", width=48, depth=2, heads=3)
"""timm's `test_` models are a few hundred thousand parameters of the usual structure."""


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def shapes_only() -> torch.device:
    """Within it, models and tensors have shapes but no values, which costs nothing."""
    return torch.device("meta")


# ---------------------------------------------------------------------------------------------------- 3D CNNs


def test_c3d_has_the_published_size() -> None:
    with shapes_only():
        assert parameters(create_model("c3d")) == 27_661_440


@pytest.mark.parametrize(
    ("name", "depths"), [("r3d10", (1, 1, 1, 1)), ("r3d18", (2, 2, 2, 2)), ("r3d34", (3, 4, 6, 3))]
)
def test_r3d_counts_its_layers(name: str, depths: tuple[int, ...]) -> None:
    count = 3 * 64 * 3 * 7 * 7 + 2 * 64  # stem and its batch norm
    inputs = 64
    for outputs, depth in zip((64, 128, 256, 512), depths, strict=True):
        if outputs != inputs:
            count += inputs * outputs + 2 * outputs  # projection on the shortcut
        count += 27 * inputs * outputs + (2 * depth - 1) * 27 * outputs * outputs + 2 * depth * 2 * outputs
        inputs = outputs
    with shapes_only():
        assert parameters(create_model(name)) == count


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("r3d10", 14_361_792),
        ("r3d34", 63_475_904),
        ("r2plus1d10", 14_352_519),  # Tran et al.
        ("r2plus1d10_official", 14_365_303),  # the release of Guo et al.
    ],
)
def test_residual_networks_have_the_published_size(name: str, size: int) -> None:
    with shapes_only():
        assert parameters(create_model(name)) == size


def test_the_official_r2plus1d_factorises_its_shortcuts() -> None:
    """Each into space and time with batch norm and ReLU between, and the stride of each on its own side."""
    with shapes_only():
        cnn = create_model("r2plus1d10_official")
    modules = dict(cnn.named_modules())
    shortcuts = [[modules[f"layers.{block}.shortcut.0.{part}"] for part in range(4)] for block in (4, 5, 6)]
    for space, norm, relu, time in shortcuts:
        assert isinstance(space, nn.Conv3d)
        assert isinstance(norm, nn.BatchNorm3d)
        assert isinstance(relu, nn.ReLU)
        assert isinstance(time, nn.Conv3d)
        assert (space.kernel_size, space.stride) == ((1, 1, 1), (1, 2, 2))
        assert (time.kernel_size, time.stride) == ((1, 1, 1), (2, 1, 1))
    assert [space.out_channels for space, *_ in shortcuts] == [42, 85, 170]
    assert all(isinstance(modules[f"layers.{block}.shortcut.1"], nn.BatchNorm3d) for block in (4, 5, 6))
    stem = modules["layers.0.0"]
    assert isinstance(stem, nn.Conv3d)
    assert stem.out_channels == 83


def test_r2plus1d_separates_space_and_time() -> None:
    with shapes_only():
        convs = [m for m in create_model("r2plus1d10").modules() if isinstance(m, nn.Conv3d)]
    space = [c for c in convs if c.kernel_size[0] == 1 and c.kernel_size[1] > 1]
    time = [c for c in convs if c.kernel_size[0] > 1 and c.kernel_size[1:] == (1, 1)]
    shortcuts = [c for c in convs if c.kernel_size == (1, 1, 1)]
    assert (len(space), len(time), len(shortcuts), len(convs)) == (9, 9, 3, 21)
    # worked out by hand: floor(27 in out / (9 in + 3 out)), and 45 in the stem
    assert [c.out_channels for c in space] == [45, 144, 144, 230, 288, 460, 576, 921, 1152]


@pytest.mark.parametrize(
    ("name", "relus"),
    [("c3d", 8), ("r3d10", 1 + 2 * 4), ("r2plus1d10", 2 * (1 + 2 * 4)), ("r2plus1d10_official", 2 * (1 + 2 * 4) + 3)],
)
def test_every_convolution_is_followed_by_a_relu(name: str, relus: int) -> None:
    """But the last ones on the shortcuts, which have none of their own."""
    with shapes_only():
        cnn = CNNS[name](0.1)
    assert sum(isinstance(m, nn.ReLU) for m in cnn.modules()) == relus


def test_c3d_ends_in_the_retrieval_feature_of_the_method() -> None:
    c3d = CNNS["c3d"](1.0).eval()
    with torch.no_grad():
        maps = c3d.maps(torch.rand(1, 3, 16, 112, 112))
    assert maps.shape == (1, 512, 2, 7, 7)
    assert F.max_pool3d(maps, (1, 2, 2)).flatten(1).shape == (1, 9216)


@pytest.mark.parametrize("name", ["c3d", "r3d10", "r2plus1d10"])
def test_small_clips_and_the_common_interface(name: str) -> None:
    cnn = CNNS[name](0.0625).eval()
    clip = torch.rand(2, 3, 8, 48, 48)
    with torch.no_grad():
        maps = cnn.maps(clip)
    assert maps.shape == (2, 32, 1, 3, 3)
    assert (maps >= 0).all()  # after the last ReLU
    features = cnn(clip)
    assert features.shape == (2, cnn.out_channels)
    torch.testing.assert_close(features, maps.flatten(2).mean(2))

    features.square().sum().backward()
    assert [name for name, p in cnn.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(("name", "expected"), [("c3d", (1, 3, 3)), ("r3d10", (2, 4, 4)), ("r2plus1d10", (2, 4, 4))])
def test_odd_sizes_are_halved_down_by_pooling_and_up_by_strides(name: str, expected: tuple[int, ...]) -> None:
    with shapes_only():
        assert CNNS[name](0.02).maps(torch.rand(1, 3, 9, 50, 50)).shape[2:] == expected


@pytest.mark.parametrize("name", CNNS)
@pytest.mark.parametrize(("width", "channels"), [(0.5, 256), (0.3, 152), (0.001, 8)])
def test_width_scales_channels_in_steps_of_eight(name: str, width: float, channels: int) -> None:
    with shapes_only():
        cnn = CNNS[name](width)
        assert cnn.out_channels == channels
        clip = torch.rand(2, 3, 8, 48, 48)
        assert cnn.maps(clip).shape == (2, channels, 1, 3, 3)
        assert cnn(clip).shape == (2, channels)


@pytest.mark.parametrize("name", CNNS)
def test_half_the_width_is_a_quarter_of_the_size(name: str) -> None:
    with shapes_only():
        assert parameters(CNNS[name](0.5)) == pytest.approx(parameters(CNNS[name](1.0)) / 4, rel=0.02)


@pytest.mark.parametrize("name", ["c3d", "r3d10", "r2plus1d10"])
def test_initialisation_is_kaiming_normal_by_fan_out(name: str) -> None:
    for module in CNNS[name](0.5).modules():
        if isinstance(module, nn.Conv3d):
            expected = math.sqrt(2 / (module.out_channels * math.prod(module.kernel_size)))
            samples = module.weight.numel()
            assert module.weight.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * samples))
            assert abs(module.weight.mean().item()) < 5 * expected / math.sqrt(samples)
            assert module.bias is None or not module.bias.any()
        if isinstance(module, nn.BatchNorm3d):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert not module.bias.any()


@pytest.mark.parametrize("name", ["c3d", "r3d10", "r2plus1d10_official"])
def test_initialisation_may_be_that_of_torch(name: str) -> None:
    """Uniform within 1 / sqrt(fan in), weights and biases."""
    for module in create_model(name, width=0.25, init="torch").modules():
        if isinstance(module, nn.Conv3d):
            assert_as_torch_draws(module, module.in_channels * math.prod(module.kernel_size))


def assert_as_torch_draws(layer: nn.Conv3d | nn.Linear, fan_in: int) -> None:
    bound = 1 / math.sqrt(fan_in)
    for values in (layer.weight, layer.bias):
        if values is not None:
            assert values.abs().max() <= bound * (1 + 1e-6)
            expected, samples = bound / math.sqrt(3), values.numel()
            # the fourth moment of a uniform variable is 9/5 of its squared variance
            assert values.std().item() == pytest.approx(expected, rel=5 * math.sqrt(0.8 / 4 / samples) + 1 / samples)


def test_bias_only_where_the_published_count_has_it() -> None:
    assert all(m.bias is not None for m in create_model("c3d", width=0.1).modules() if isinstance(m, nn.Conv3d))
    for name in ("r3d10", "r2plus1d10"):
        assert all(m.bias is None for m in create_model(name, width=0.1).modules() if isinstance(m, nn.Conv3d))


@pytest.mark.parametrize("factorised", [False, True])
def test_without_their_residuals_blocks_hand_the_input_on(factorised: bool) -> None:
    cnn = ResNet3D((3, 1, 1, 1), 0.125, factorised=factorised).eval()
    stem, blocks = cnn.layers[:3], cnn.layers[3:6]
    for block in blocks:
        last_norm = [m for m in block.modules() if isinstance(m, nn.BatchNorm3d)][-1]
        nn.init.zeros_(last_norm.weight)
    with torch.no_grad():
        x = stem(torch.randn(2, 3, 4, 16, 16))
        assert x.any()
        assert torch.equal(blocks(x), x)  # the stem ends in a ReLU, so those of the blocks change nothing


@pytest.mark.parametrize("name", ["c3d", "r3d10", "r2plus1d10"])
def test_memory_format_does_not_matter(name: str) -> None:
    cnn = CNNS[name](0.03).double()
    clip = torch.rand(2, 3, 8, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        expected = cnn(clip)
        cnn.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # missing from the annotations
        actual = cnn(clip.to(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["c3d", "r3d10", "r2plus1d10"])
def test_cnns_see_the_order_of_frames(name: str) -> None:
    cnn = CNNS[name](0.0625).eval()
    clip = torch.rand(1, 3, 8, 32, 32)
    with torch.no_grad():
        there, back = cnn(clip), cnn(clip.flip(2))
    assert (there - back).abs().max() > 1e-3 * there.abs().max()


# ------------------------------------------------------------------------------------------------ transformer


def clips(batch: int = 2, frames: int = 6, size: int = 32) -> tuple[Tensor, Tensor]:
    """Views in float64, and orders that permute them."""
    views = torch.rand(batch, 3, frames, size, size, dtype=torch.float64)
    return views, torch.stack([torch.randperm(frames) for _ in range(batch)])


def test_transformer_counts_its_layers() -> None:
    width, depth, frames = 48, 2, 6
    transformer = VideoTransformer(LIGHT, frames)
    block = 12 * width**2 + (1 + 4 + 1) * width + 4 * width  # no bias for q, k, v; two norms
    tokens = 1 + 2 * frames
    expected = width + tokens * width + depth * block + 2 * width
    assert parameters(transformer) - parameters(transformer.embedder) == expected
    assert transformer.positions.shape == (tokens, width)
    assert transformer.out_channels == width
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
    """Tokens that are zero leave nothing but positions; so CLS without its own would see what another CLS sees."""
    transformer = VideoTransformer(LIGHT, frames=6).double()
    seen = []
    transformer.blocks.register_forward_pre_hook(lambda _, tokens: seen.append(tokens[0].detach()))
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
    views, order = clips()
    shuffled = torch.stack([view[:, frames] for view, frames in zip(views, order, strict=True)])
    long_way = transformer.attend(transformer.embed(views), transformer.embed(shuffled))
    assert long_way.shape == (2, 48)
    torch.testing.assert_close(transformer(views, order.byte()), long_way, rtol=0, atol=1e-12)


def test_gathered_tokens_have_the_gradients_of_the_long_way() -> None:
    transformer = VideoTransformer(LIGHT, frames=6).double()
    views, order = clips()
    shuffled = torch.stack([view[:, frames] for view, frames in zip(views, order, strict=True)])
    names, weights = zip(*transformer.named_parameters(), strict=True)
    long_way = transformer.attend(transformer.embed(views), transformer.embed(shuffled))
    expected = torch.autograd.grad(long_way.square().sum(), weights)
    actual = torch.autograd.grad(transformer(views, order).square().sum(), weights)
    for name, ours, theirs in zip(names, actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11, msg=lambda m, name=name: f"{name}: {m}")


def test_embedding_keeps_clips_and_frames_apart() -> None:
    transformer = VideoTransformer(LIGHT, frames=6).double()
    views, order = clips(batch=3)
    tokens = transformer.embed(views)
    assert tokens.shape == (3, 6, 48)
    torch.testing.assert_close(tokens[1, 4], transformer.embedder(views[1:2, :, 4])[0], rtol=0, atol=1e-12)
    alone = transformer(views[2:], order[2:])
    torch.testing.assert_close(transformer(views, order)[2:], alone, rtol=0, atol=1e-12)


def test_positions_matter() -> None:
    transformer = VideoTransformer(LIGHT, frames=6).double()
    views, _ = clips(batch=1)
    identity, other = torch.arange(6)[None], torch.tensor([[1, 0, 2, 3, 4, 5]])
    feature = transformer(views, identity)
    assert (transformer(views, other) - feature).abs().max() > 1e-6
    assert (transformer(views.flip(2), identity) - feature).abs().max() > 1e-6

    nn.init.zeros_(transformer.positions)  # a bag of frames: the order cannot show
    torch.testing.assert_close(transformer(views, other), transformer(views, identity), rtol=0, atol=1e-12)


def test_the_feature_is_that_of_the_cls_token() -> None:
    without_blocks = VideoTransformer(dataclasses.replace(LIGHT, depth=0), frames=6).double()
    expected = F.layer_norm(without_blocks.cls + without_blocks.positions[0], [48])
    torch.testing.assert_close(without_blocks(*clips()), expected.expand(2, 48), rtol=0, atol=1e-12)


def test_clip_length_is_fixed() -> None:
    views, order = clips(frames=5)
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
    """Along each side by a triangle as wide as the larger of two pixels of the old and of the new frame."""
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
    views, order = clips()
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


# ----------------------------------------------------------------------------------------------------- weights


@pytest.fixture
def source() -> dict[str, Tensor]:
    """A resnet18 with its classifier, as a file would hold it."""
    return dict(timm.create_model("resnet18", pretrained=False).state_dict())


def assert_loaded(path: Path, source: dict[str, Tensor]) -> None:
    model = create_model("video_transformer", embedder="resnet18", weights=str(path), width=48, depth=1, heads=3)
    loaded = model.embedder.backbone.state_dict()  # type: ignore[union-attr]
    assert set(loaded) == {name for name in source if not name.startswith("fc.")}
    for name, value in loaded.items():
        assert torch.equal(value, source[name]), name


def test_weights_from_safetensors(tmp_path: Path, source: dict[str, Tensor]) -> None:
    safetensors.torch.save_file(source, tmp_path / "resnet18.safetensors")
    assert_loaded(tmp_path / "resnet18.safetensors", source)


@pytest.mark.parametrize(
    ("nest", "prefix"),
    [(None, ""), ("model", ""), ("state_dict", "module."), (None, "encoder_q."), ("state_dict", "module.encoder_q.")],
)
def test_weights_from_pytorch_files(tmp_path: Path, source: dict[str, Tensor], nest: str | None, prefix: str) -> None:
    content: dict[str, object] = {prefix + name: value for name, value in source.items()}
    if nest:
        content = {nest: content, "epoch": 200, "optimizer": {"lr": 0.03}}
    torch.save(content, tmp_path / "resnet18.pth")
    assert_loaded(tmp_path / "resnet18.pth", source)


def test_weights_from_a_whole_moco_checkpoint(tmp_path: Path, source: dict[str, Tensor]) -> None:
    """The key encoder and the queue lie beside the query encoder; the classifier is the projection, here of two
    layers."""
    query = {f"module.encoder_q.{name}": value for name, value in source.items() if not name.startswith("fc.")}
    key = {name.replace("_q", "_k"): torch.zeros_like(value) for name, value in query.items()}
    head = {
        "module.encoder_q.fc.0.weight": torch.zeros(512, 512),
        "module.encoder_q.fc.2.weight": torch.zeros(128, 512),
    }
    torch.save(
        {"state_dict": {**key, **query, **head, "module.queue": torch.zeros(128, 64)}}, tmp_path / "moco.pth.tar"
    )
    assert_loaded(tmp_path / "moco.pth.tar", source)


def test_weights_from_before_batch_norms_counted(tmp_path: Path, source: dict[str, Tensor]) -> None:
    torch.save({k: v for k, v in source.items() if not k.endswith("num_batches_tracked")}, tmp_path / "old.pth")
    assert_loaded(tmp_path / "old.pth", source)


def without_a_stage(weights: dict[str, Tensor]) -> object:
    return {name: value for name, value in weights.items() if not name.startswith("layer3.")}


def with_another_shape(weights: dict[str, Tensor]) -> object:
    return {**weights, "layer2.0.conv1.weight": torch.zeros(64, 64, 3, 3)}


def of_a_deeper_model(weights: dict[str, Tensor]) -> object:
    return dict(timm.create_model("resnet34", pretrained=False).state_dict())


def a_tensor(weights: dict[str, Tensor]) -> object:
    return weights["fc.weight"]


def nothing(weights: dict[str, Tensor]) -> object:
    return {"teacher": weights}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_a_stage, r"layer3\.0\.conv1\.weight is missing; .* and \d+ more"),
        (with_another_shape, r"layer2\.0\.conv1\.weight is \[64, 64, 3, 3\] in place of \[128, 64, 3, 3\]$"),
        (of_a_deeper_model, r"layer1\.2\.conv1\.weight is not part of the model"),
        (a_tensor, "holds a Tensor"),
        (nothing, r"conv1\.weight is missing"),
    ],
)
def test_weights_that_do_not_fit(
    tmp_path: Path, source: dict[str, Tensor], spoil: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    path = tmp_path / "wrong.pth"
    torch.save(spoil(source), path)
    with pytest.raises(CheckpointError, match=message) as error:
        TimmEmbedder("resnet18", str(path), frozen=True, width=24)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["none.pth", "none.safetensors", "text.pth", "text.safetensors", "empty.pth", "cut.pth"]
)
def test_weights_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:1000])
    (tmp_path / "empty.pth").touch()
    (tmp_path / "text.pth").write_text("not weights\n")
    (tmp_path / "text.safetensors").write_text("not weights\n")
    with pytest.raises(CheckpointError, match="cannot be read as weights") as error:
        TimmEmbedder("test_resnet", str(tmp_path / name), frozen=True, width=24)
    assert str(error.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------------- heads


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


# ---------------------------------------------------------------------------------------------------- registry


def test_every_name_of_the_configuration_is_a_model() -> None:
    assert set(CNNS) == set(typing.get_args(typing.get_type_hints(ModelConfig)["cnn"]))
    assert set(MODEL_NAMES) == {*CNNS, "video_transformer"}


def test_overrides_reach_the_model() -> None:
    assert create_model("r3d18", width=0.25).out_channels == 128
    transformer = create_model("video_transformer", embedder="light", width=96, depth=3, heads=4, frames=4)
    assert isinstance(transformer, VideoTransformer)
    assert transformer.positions.shape == (9, 96)
    assert len(transformer.blocks) == 3
    default = create_model("video_transformer", embedder="light", width=48, heads=3)
    assert isinstance(default, VideoTransformer)
    assert default.positions.shape == (33, 48)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("r3d19", {}, "r3d19: no such model; did you mean r3d1"),
        ("video_transfomer", {}, "did you mean video_transformer"),
        ("c3d", {"widht": 0.5}, "widht: .* did you mean width"),
        ("c3d", {"dropout": 0.5}, "dropout: no such override of c3d"),
        ("c3d", {"width": 0}, r"model\.width = 0"),
        ("video_transformer", {"hedas": 3}, "did you mean heads"),
        ("video_transformer", {"frame": 3}, "did you mean frames"),
        ("video_transformer", {"frames": 1}, r"clip\.frames = 1"),
        ("video_transformer", {"width": 100}, "not a multiple"),
        ("video_transformer", {"embedder": "resnt18"}, r"model\.transformer\.embedder = 'resnt18'.*resnet18"),
        ("video_transformer", {"embedder": "resnet18.a9_in1k"}, r"resnet18\.a\d_in1k.*resnet18"),
        ("video_transformer", {"embedder": "light", "weights": "w.pth"}, r"model\.transformer\.weights = 'w\.pth'"),
    ],
)
def test_unknown_names_and_bad_values(name: str, overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_model(name, **overrides)
