"""What is wrong with an encoder or a loss of another package is told in one line, before or in the first step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cacl.config import Config
from cacl.errors import ConfigError
from cacl.method.cacl import CACL
from cacl.registry import ENCODERS, LOSSES
from tests.method.small_method import a_batch, tiny


class MeanLoss:
    """The mean of a linear head."""

    def __init__(self, encoders: Any, change: Any) -> None:
        self.encoders, self.change = encoders, change

    def make_head(self, num_features: int) -> nn.Module:
        return nn.Linear(num_features, 2)

    def __call__(self, outputs: Mapping[str, Tensor], state: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return self.change(next(iter(outputs.values()))), {}


def method_with(monkeypatch: pytest.MonkeyPatch, encoders: Any, change: Any) -> CACL:
    monkeypatch.setitem(LOSSES._targets, "mean", lambda config: MeanLoss(encoders, change))
    config = tiny()
    config.losses["mean"] = 1.0
    return CACL(config)


def test_a_sound_loss_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, _ = method_with(monkeypatch, ("transformer",), torch.mean)(a_batch(), step=0)
    expected = sum(parts.metrics[name] for name in ("contrast", "order", "mean"))
    torch.testing.assert_close(parts.total, torch.as_tensor(expected), check_stride=False)


@pytest.mark.parametrize("encoders", ["cnn", ("resnet",)])
def test_encoders_of_a_loss_have_to_exist(monkeypatch: pytest.MonkeyPatch, encoders: Any) -> None:
    with pytest.raises(ConfigError, match=r"losses\.mean: encoders = .* has to be a tuple of `cnn` and `transformer`"):
        method_with(monkeypatch, encoders, torch.mean)


@pytest.mark.parametrize("change", [lambda x: x.detach().mean(), lambda x: x.mean(0)])
def test_a_loss_is_a_scalar_with_a_gradient(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    model = method_with(monkeypatch, ("cnn",), change)
    with pytest.raises(ConfigError, match=r"losses\.mean: has to give a scalar with a gradient"):
        model(a_batch(), step=0)


def test_an_encoder_says_how_long_its_features_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_length(config: Config) -> nn.Module:
        return nn.Flatten()

    monkeypatch.setitem(ENCODERS._targets, "r3d10", without_length)
    with pytest.raises(ConfigError, match=r"model\.cnn = r3d10: has no num_features"):
        CACL(tiny())


def test_an_encoder_whose_maps_are_compared_pools_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODERS._targets, "r3d10", ENCODERS.load("video_transformer"))  # it has tokens and no map
    CACL(tiny())
    with pytest.raises(ConfigError, match=r"losses\.order: compares .* and model\.cnn = r3d10 has no methods"):
        CACL(tiny(order_head="difference"))
