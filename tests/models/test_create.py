"""Every name of the configuration is a model, and names and values that are not are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cacl.errors import ConfigError
from cacl.models.create import create_model, list_models
from cacl.models.video_transformer import VideoTransformer


def test_every_name_is_a_model_whose_features_are_as_long_as_it_says() -> None:
    clips = torch.rand(2, 3, 16, 112, 112)
    for name in list_models():
        small: dict[str, Any] = {"width": 0.05}
        if name == "video_transformer":
            small = {"embedder": "light", "width": 24, "depth": 1}
        model = create_model(name, **small).eval()
        assert model(clips).shape == (2, model.num_features)


def test_overrides_reach_the_model() -> None:
    assert create_model("r3d18", width=0.25).num_features == 128
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
