"""The networks and the loss of the recipe against those of the release, with the same weights and clips."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from cacl.checkpoints.encoders import EncoderWeights
from cacl.method.cacl import CACL
from cacl.method.losses import contrast_loss
from cacl.method.pairs import CNN_KEY, CNN_QUERY, TRANSFORMER_KEY, TRANSFORMER_QUERY
from cacl.models.cnn3d import C3D
from cacl.models.create import create_model
from cacl.models.video_transformer import VideoTransformer
from cacl.registry import PAIRS
from cacl.training.train_state import TrainState
from tests.official import release
from tests.official.second_implementation import (
    CLIP,
    CNNS,
    FRAMES,
    SIZE,
    assert_same,
    copy_weights,
    gradients,
    random_batch,
    recipe,
    running_statistics,
    second_implementation_of,
    small,
)


@pytest.mark.parametrize("name", [*CNNS, "r3d34"])
def test_cnns_have_its_features_gradients_and_statistics(name: str) -> None:
    ours, theirs = create_model(name, width=0.125).double(), release.cnn(name, 8).double()
    copy_weights(ours, theirs)
    clips, weights = torch.rand(3, 3, 8, 32, 32).double(), torch.randn(3, 64).double()
    mine, other = ours(clips), theirs(clips)
    torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)
    (mine * weights).sum().backward()
    (other * weights).sum().backward()
    assert_same(gradients(ours.parameters()), gradients(theirs.parameters()), "gradients")
    assert_same(running_statistics(ours), running_statistics(theirs), "statistics")


@pytest.mark.parametrize("reverse", [False, True])
def test_the_transformer_reads_both_clips_behind_cls_with_a_position_each(reverse: bool) -> None:
    config = small()
    query = CACL(config).query.double()
    theirs = second_implementation_of(query, config).double()
    clips, order = torch.rand(CLIP, 3, FRAMES, SIZE, SIZE).double(), random_batch().order
    copies = torch.stack([release.shuffled(clip, o) for clip, o in zip(clips, order.tolist(), strict=True)])
    assert query.transformer
    if reverse:
        ours = query.transformer(copies, order.argsort(1))
        other = theirs.transformer(copies, clips)
    else:
        ours, other = query.transformer(clips, order), theirs.transformer(clips, copies)
    torch.testing.assert_close(ours, other, rtol=0, atol=1e-11)
    weights = torch.randn(CLIP, 24).double()
    (ours * weights).sum().backward()
    (other * weights).sum().backward()
    trained = [p for p in query.transformer.parameters() if p.requires_grad]
    assert_same(gradients(trained), gradients(theirs.transformer.parameters()), "gradients")


def test_the_recipe_draws_weights_as_torch_does() -> None:
    """All weights lie within 1 / sqrt(fan in), which a normal distribution of the same deviation would leave.

    So do those of the untrained encoders that an evaluation shows beside the trained ones.
    """
    train_state = TrainState(small(), 6, torch.device("cpu"))
    weights = EncoderWeights.of_checkpoint(train_state.make_checkpoint(""), "here")
    query = train_state.model.query
    for cnn, transformer in (
        (query.cnn, query.transformer),
        (weights.build_untrained("cnn"), weights.build_untrained("transformer")),
    ):
        assert isinstance(cnn, C3D)
        assert isinstance(transformer, VideoTransformer)
        modules = (*cnn.modules(), *transformer.blocks.modules(), transformer.embedder.project)
        layers = [m for m in modules if isinstance(m, nn.Conv3d | nn.Linear)]
        assert len(layers) == 8 + 2 * 4 + 1
        for layer in layers:
            bound = 1 / math.sqrt(layer.weight[0].numel())
            assert 0.9 * bound < layer.weight.abs().max() <= bound * (1 + 1e-6)


def test_the_embedder_is_torchvisions_resnet50_with_the_weights_of_a_moco(tmp_path: Path) -> None:
    """The features are the same bit for bit, on frames as they are, from a file as MoCo's training writes it."""
    resnet = torchvision.models.resnet50(weights=None)
    for name, values in resnet.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            values.uniform_(0.5, 1.5)
    weights = {f"module.encoder_q.{name}": x for name, x in resnet.state_dict().items()}
    torch.save({"epoch": 200, "state_dict": weights | {"module.queue": torch.zeros(128, 4)}}, tmp_path / "moco.pth")
    config = recipe(f"model.transformer.weights={tmp_path / 'moco.pth'}", "model.transformer.depth=1").model.transformer
    embedder = VideoTransformer(config, 16).train().embedder
    resnet.fc = nn.Identity()  # type: ignore[assignment]
    frames = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(embedder(frames), embedder.project(resnet.eval()(frames)))


def test_the_loss_is_that_of_four_pairs_with_one_anchors_negatives() -> None:
    config = recipe()
    queue = nn.functional.normalize(torch.randn(50, 16), dim=1)
    ours = {
        embedding: nn.functional.normalize(torch.randn(5, 16), dim=1).requires_grad_(embedding.side == "query")
        for embedding in (CNN_QUERY, TRANSFORMER_QUERY, CNN_KEY, TRANSFORMER_KEY)
    }
    theirs = {name: x.detach().double().requires_grad_(x.requires_grad) for name, x in ours.items()}
    contrast = config.contrast
    value, _ = contrast_loss(ours, queue, contrast.temperature, PAIRS.load(contrast.pairs), contrast.negatives)
    f_q, t_q, f_k, t_k = theirs.values()
    expected = release.contrast(f_q, t_q, f_k, t_k, queue.double())
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    value.backward()
    expected.backward()
    for name in (CNN_QUERY, TRANSFORMER_QUERY):
        mine, other = ours[name].grad, theirs[name].grad
        assert mine is not None
        assert other is not None
        torch.testing.assert_close(mine.double(), other, rtol=1e-5, atol=1e-6)
