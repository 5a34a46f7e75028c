"""A classifier on any encoder: its groups of layers, and what stays when some of them are frozen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cacl.models.cnn3d import CNN3D
from cacl.models.create import create_model
from cacl.models.video_classifier import VideoClassifier
from tests.models.helpers import random_clips

STAGES = ["conv1", "conv2", "conv3", "conv4", "conv5"]
CNNS = ["c3d", "r3d10", "r3d18", "r3d34", "r2plus1d10", "r2plus1d10_official", "r2plus1d18"]


def classifier_on(name: str) -> VideoClassifier:
    options = {"width": 1 / 16} if name in CNNS else {"embedder": "light", "width": 48, "heads": 3, "depth": 2}
    return VideoClassifier(create_model(name, **options), 3, 0.0)


def test_logits_are_those_of_a_linear_layer_on_the_features() -> None:
    model = classifier_on("r3d10").eval()
    clips = random_clips(batch=2, frames=8)[0].float()
    expected = model.encoder(clips) @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(model(clips), expected)


@pytest.mark.parametrize("name", [*CNNS, "video_transformer"])
def test_groups_have_every_parameter_once_from_input_to_output(name: str) -> None:
    model = classifier_on(name)
    groups = model.layer_groups()
    assert list(groups) == [*(STAGES if name in CNNS else ["embedder", "block1", "block2"]), "classifier"]
    grouped = [id(parameter) for parameters in groups.values() for parameter in parameters]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())
    assert all(groups.values())


@pytest.mark.parametrize("name", CNNS)
def test_stages_end_where_the_number_of_channels_says(name: str) -> None:
    """conv1 to conv5 of C3D have 64, 128, 256, 512 and 512 channels, and those of the others 64, 64, 128, 256, 512."""
    groups = classifier_on(name).layer_groups()
    channels = [max(parameter.shape[0] for parameter in groups[stage] if parameter.dim() == 1) for stage in STAGES]
    if name == "c3d":
        assert channels == [8, 8, 16, 32, 32]
    elif name.startswith("r3d"):
        assert channels == [8, 8, 8, 16, 32]
    convolutions = [sum(parameter.dim() == 5 for parameter in groups[stage]) for stage in STAGES]
    blocks = {"c3d": [1, 1, 2, 2, 2], "r3d10": [1, 2, 3, 3, 3], "r3d18": [1, 4, 5, 5, 5], "r3d34": [1, 6, 9, 13, 7]}
    assert convolutions == blocks.get(name, convolutions)


def test_an_encoder_without_groups_is_one_group() -> None:
    class Plain(nn.Module):
        num_features = 3

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, clips: Tensor) -> Tensor:
            return self.scale * clips.mean((2, 3, 4))

    model = VideoClassifier(Plain(), 2, 0.0)  # type: ignore[arg-type]
    assert {name: len(parameters) for name, parameters in model.layer_groups().items()} == {
        "encoder": 1,
        "classifier": 2,
    }


def test_frozen_layers_keep_weights_and_batch_statistics_also_in_training_mode() -> None:
    model = classifier_on("r3d10").train()
    model.freeze({"conv1", "conv2", "conv3"})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    clips = random_clips(batch=4, frames=8)[0].float()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    model.eval()
    model.train()
    model(clips).square().sum().backward()
    optimizer.step()
    frozen = {id(p) for group in ("conv1", "conv2", "conv3") for p in model.layer_groups()[group]}
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (id(parameter) in frozen), name
    assert isinstance(model.encoder, CNN3D)
    first_trained = model.encoder.stages[3]
    for name, buffer in model.named_buffers():
        is_frozen = int(name.split(".")[2]) < first_trained
        assert torch.equal(buffer, before[name]) == is_frozen, name
