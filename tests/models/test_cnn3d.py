"""The 3D CNNs are held against the facts of their papers, and against themselves computed the long way."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cacl.models.cnn3d import CNN3D, ResNet3D
from cacl.models.create import create_model
from cacl.models.heads import relative_difference
from tests.models.helpers import assert_as_torch_draws, parameters, shapes_only

CNNS = ("c3d", "r3d10", "r3d18", "r3d34", "r2plus1d10", "r2plus1d10_official", "r2plus1d18")


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
    """Each becomes a convolution over space and one over time, with batch norm and ReLU between, and each has its own
    part of the stride."""
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
    # The channels between are worked out by hand: floor(27 in out / (9 in + 3 out)), and 45 in the stem.
    assert [c.out_channels for c in space] == [45, 144, 144, 230, 288, 460, 576, 921, 1152]


@pytest.mark.parametrize(
    ("name", "relus"),
    [("c3d", 8), ("r3d10", 1 + 2 * 4), ("r2plus1d10", 2 * (1 + 2 * 4)), ("r2plus1d10_official", 2 * (1 + 2 * 4) + 3)],
)
def test_every_convolution_is_followed_by_a_relu(name: str, relus: int) -> None:
    """Only the last convolutions on the shortcuts have none of their own."""
    with shapes_only():
        cnn = create_model(name, width=0.1)
    assert sum(isinstance(m, nn.ReLU) for m in cnn.modules()) == relus


def test_c3d_ends_in_the_retrieval_feature_of_the_method() -> None:
    c3d = create_model("c3d", width=1.0).eval()
    with torch.no_grad():
        maps = c3d.forward_features(torch.rand(1, 3, 16, 112, 112))
    assert maps.shape == (1, 512, 2, 7, 7)
    assert F.max_pool3d(maps, (1, 2, 2)).flatten(1).shape == (1, 9216)


@pytest.mark.parametrize("name", ["c3d", "r3d10", "r2plus1d10"])
def test_small_clips_and_the_common_interface(name: str) -> None:
    cnn = create_model(name, width=0.0625).eval()
    assert isinstance(cnn, CNN3D)
    clip = torch.rand(2, 3, 8, 48, 48)
    with torch.no_grad():
        maps = cnn.forward_features(clip)
        stages = cnn.forward_stages(clip)
    assert maps.shape == (2, 32, 1, 3, 3)
    assert [x.shape[1] for x in stages] == [8, 8, 16, 32, 32] if name == "c3d" else [8, 8, 8, 16, 32]
    assert torch.equal(stages[-1], maps)
    assert (maps >= 0).all()  # after the last ReLU
    features = cnn(clip)
    assert features.shape == (2, cnn.num_features)
    torch.testing.assert_close(features, maps.flatten(2).mean(2))

    features.square().sum().backward()
    assert [name for name, p in cnn.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(("name", "expected"), [("c3d", (1, 3, 3)), ("r3d10", (2, 4, 4)), ("r2plus1d10", (2, 4, 4))])
def test_odd_sizes_are_halved_down_by_pooling_and_up_by_strides(name: str, expected: tuple[int, ...]) -> None:
    with shapes_only():
        assert create_model(name, width=0.02).forward_features(torch.rand(1, 3, 9, 50, 50)).shape[2:] == expected


@pytest.mark.parametrize("name", CNNS)
@pytest.mark.parametrize(("width", "channels"), [(0.5, 256), (0.3, 152), (0.001, 8)])
def test_width_scales_channels_in_steps_of_eight(name: str, width: float, channels: int) -> None:
    with shapes_only():
        cnn = create_model(name, width=width)
        assert cnn.num_features == channels
        clip = torch.rand(2, 3, 8, 48, 48)
        assert cnn.forward_features(clip).shape == (2, channels, 1, 3, 3)
        assert cnn(clip).shape == (2, channels)


@pytest.mark.parametrize("name", CNNS)
def test_half_the_width_is_a_quarter_of_the_size(name: str) -> None:
    with shapes_only():
        assert parameters(create_model(name, width=0.5)) == pytest.approx(
            parameters(create_model(name, width=1.0)) / 4, rel=0.02
        )


@pytest.mark.parametrize("name", ["c3d", "r3d10", "r2plus1d10"])
def test_initialisation_is_kaiming_normal_by_fan_out(name: str) -> None:
    for module in create_model(name, width=0.5).modules():
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
    """torch draws weights and biases uniformly within 1 / sqrt(fan in)."""
    for module in create_model(name, width=0.25, init="torch").modules():
        if isinstance(module, nn.Conv3d):
            assert_as_torch_draws(module, module.in_channels * math.prod(module.kernel_size))


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
    cnn = create_model(name, width=0.03).double()
    clip = torch.rand(2, 3, 8, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        expected = cnn(clip)
        cnn.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # missing from the annotations
        actual = cnn(clip.to(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["c3d", "r3d10"])
def test_maps_and_their_gradients_have_the_channels_last_on_a_cpu(name: str) -> None:
    """Those that the order head compares, too. One map of another layout has all gradients behind it copied."""
    cnn = create_model(name, width=0.125)
    assert isinstance(cnn, CNN3D)
    maps, shuffled = (cnn.forward_stages(torch.rand(2, 3, 8, 32, 32)) for _ in range(2))
    x, y = maps[-2], shuffled[-2]
    gradients = torch.autograd.grad(relative_difference(x, y).square().sum(), [x, y])
    for value in (*maps, cnn.forward_features(torch.rand(2, 3, 8, 32, 32)), *gradients):
        assert value.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("name", ["c3d", "r3d10", "r2plus1d10"])
def test_cnns_see_the_order_of_frames(name: str) -> None:
    cnn = create_model(name, width=0.0625).eval()
    clip = torch.rand(1, 3, 8, 32, 32)
    with torch.no_grad():
        there, back = cnn(clip), cnn(clip.flip(2))
    assert (there - back).abs().max() > 1e-3 * there.abs().max()
