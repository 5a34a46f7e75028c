"""What the encoders save is exact: they compute what is computed the long way."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from cacl.clips import ViewPlan
from cacl.loaders.backends.reference import make_view
from cacl.loaders.sampling.augmentation import color_matrix
from cacl.method.cacl import CACL
from cacl.method.dual_encoder import shuffle_frames
from cacl.registry import ENCODERS
from tests.method.small_method import a_batch, tiny

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_shuffle_frames_against_a_loop(dtype: torch.dtype) -> None:
    clips = torch.rand(3, 3, 5, 6, 7, requires_grad=True)
    order = torch.stack([torch.randperm(5) for _ in range(3)])
    shuffled = shuffle_frames(clips, order.to(dtype))
    assert shuffled.shape == clips.shape
    for b in range(3):
        for t in range(5):
            assert torch.equal(shuffled[b, :, t], clips[b, :, int(order[b, t])])
    assert torch.equal(shuffle_frames(clips, torch.arange(5).expand(3, 5)), clips)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("side", "size"), [(32, 16), (16, 16), (18, 33)])
def test_shuffling_a_view_equals_augmenting_the_shuffled_clip(side: int, size: int, flip: bool) -> None:
    """All frames of a view have one augmentation, so that T frames are augmented per view, not 2T."""
    frames = torch.randint(0, 256, (16, 3, 40, 60), dtype=torch.uint8)
    color = color_matrix(brightness=1.3, contrast=0.7, saturation=1.2, hue=0.08)
    view = ViewPlan(top=4, left=10, side=side, flip=flip, color=color)
    order = torch.randperm(16)
    long_way = make_view(frames[order], view, size)
    assert torch.equal(shuffle_frames(make_view(frames, view, size)[None], order[None])[0], long_way)


def test_encoders_equal_the_long_way() -> None:
    """The long way makes the shuffled clip by a loop, and embeds the tokens of all 2T frames."""
    model, batch = CACL(tiny()), a_batch()
    encoders = model.query
    other: Any = copy.deepcopy(encoders)  # its parts are None in other configurations
    clips = batch.query.float()
    shuffled = torch.stack([clip[:, order.long()] for clip, order in zip(clips, batch.order, strict=True)])
    features = torch.cat([other.cnn(clips), other.cnn(shuffled)], 1)
    tokens = other.transformer.attend(other.transformer.embed(clips), other.transformer.embed(shuffled))
    out = encoders(clips, batch.order)
    assert {loss: set(heads) for loss, heads in out.items()} == {"contrast": {"cnn", "transformer"}, "order": {"cnn"}}
    torch.testing.assert_close(out["contrast"]["cnn"], other.cnn_heads["contrast"](features))
    torch.testing.assert_close(out["order"]["cnn"], other.cnn_heads["order"](features))
    torch.testing.assert_close(out["contrast"]["transformer"], other.transformer_heads["contrast"](tokens))


@pytest.mark.parametrize(
    ("contrast", "order", "pairs", "expected"),
    [
        (1.0, 0.0, "cross", (True, True)),
        (1.0, 1.0, "cnn", (True, False)),
        (1.0, 0.0, "cnn", (True, False)),
        (1.0, 0.0, "transformer", (False, True)),
        (1.0, 1.0, "transformer", (True, True)),
        (0.0, 0.5, "cross", (True, False)),
    ],
)
def test_only_the_encoders_that_the_losses_need(
    contrast: float, order: float, pairs: str, expected: tuple[bool, bool]
) -> None:
    query = CACL(tiny(contrast_weight=contrast, order_weight=order, pairs=pairs)).query
    assert (query.cnn is not None, query.transformer is not None) == expected


def test_the_difference_head_takes_the_maps_and_leaves_the_contrast_as_it_is() -> None:
    published, model, batch = CACL(tiny()), CACL(tiny(order_head="difference")), a_batch()
    heads = {name: x for name, x in published.state_dict().items() if "heads.order" not in name}
    assert model.load_state_dict(heads, strict=False).unexpected_keys == []
    published_losses, losses = (each(batch, step=0).losses.metrics for each in (published, model))
    assert torch.equal(losses["contrast"], published_losses["contrast"])
    assert not torch.equal(losses["order"], published_losses["order"])

    query: Any = model.query
    clips = batch.query.float()
    maps = [query.cnn.forward_stages(x) for x in (clips, shuffle_frames(clips, batch.order))]
    assert torch.equal(query(clips, batch.order)["order"]["cnn"], query.cnn_heads["order"](*maps))


def test_the_difference_head_teaches_every_layer_of_the_cnn() -> None:
    model = CACL(tiny(order_head="difference", contrast_weight=0.0))
    model(a_batch(), step=0).losses.total.backward()
    for name, parameter in model.query.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def weights_at(seed: int, **changes: Any) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return CACL(tiny(**changes)).query.state_dict()


@pytest.mark.parametrize(
    "changes",
    [{"order_weight": 0.0}, {"contrast_weight": 0.0}, {"pairs": "cnn", "order_weight": 0.0}, {"pairs": "transformer"}],
    ids=lambda changes: " ".join(changes),
)
def test_what_is_left_out_leaves_the_first_weights_of_the_rest_alone(changes: dict[str, Any]) -> None:
    """Rows of an ablation would otherwise differ in their first weights, too."""
    whole, part = weights_at(3), weights_at(3, **changes)
    assert part.keys() < whole.keys()
    for name, value in part.items():
        assert torch.equal(value, whole[name]), name
    assert not torch.equal(whole["cnn.layers.0.weight"], weights_at(4)["cnn.layers.0.weight"])


@pytest.mark.parametrize(("part", "name"), [("cnn", "r3d10"), ("transformer", "video_transformer")])
def test_an_encoder_begins_as_it_does_alone(part: str, name: str) -> None:
    """The untrained encoders that an evaluation compares with are those that the run began with."""
    whole = weights_at(3)
    torch.manual_seed(3)
    for key, value in ENCODERS.load(name)(tiny()).state_dict().items():
        assert torch.equal(value, whole[f"{part}.{key}"]), key
