"""Where features are taken, of encoders of this package and of others, against what the encoders give themselves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cacl.errors import UsageError
from cacl.evaluation.feature_points import FEATURE_POINTS, feature_functions
from cacl.evaluation.features import token_features
from cacl.models.encoder import Encoder
from tests.tiny import tiny_config

CONFIG = tiny_config("never written")
FRAMES, SIZE = CONFIG.clip.frames, CONFIG.clip.size
CLIPS, ORDER = torch.rand(3, 3, FRAMES, SIZE, SIZE), torch.arange(FRAMES).expand(3, -1)


class MapEncoder(Encoder):
    """An encoder of another package, with a map of 4 x 6 at two times."""

    num_features = 5

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 5)

    def forward_features(self, clips: Tensor) -> Tensor:
        means = self.layer(clips.mean((2, 3, 4)))
        return means[:, :, None, None, None] * torch.linspace(-1, 1, 48).view(1, 1, 2, 4, 6)

    def forward(self, clips: Tensor, order: Tensor | None = None) -> Tensor:
        return self.layer(clips.mean((2, 3, 4)))


class TokenEncoder(MapEncoder):
    """An encoder of another package, with seven tokens."""

    def forward_features(self, clips: Tensor) -> Tensor:
        return self.layer(clips.mean((2, 3, 4)))[:, None].expand(-1, 7, -1)


@torch.no_grad()
def test_points_of_encoders_of_other_packages() -> None:
    one, other = MapEncoder(), TokenEncoder()
    found = feature_functions({"cnn": one, "transformer": other}, list(FEATURE_POINTS), CONFIG)
    names = ["cnn", "transformer", "cnn map", "cnn vector", "transformer vector", "concatenation"]
    assert list(found) == names
    values = {name: function(CLIPS, ORDER) for name, function in found.items()}
    maps, vectors, tokens = one.forward_features(CLIPS), one(CLIPS), other(CLIPS)
    pooled = [maps[..., y : y + 2, x : x + 2].amax((3, 4)) for y in (0, 2) for x in (0, 2, 4)]
    assert torch.equal(values["cnn map"], torch.stack(pooled, -1).flatten(1))
    assert torch.equal(values["cnn map"], values["cnn"])
    assert torch.equal(values["cnn vector"], vectors)
    assert torch.equal(values["transformer vector"], tokens)
    assert torch.equal(values["transformer"], tokens)
    unit = [x / x.norm(dim=1, keepdim=True) for x in (vectors, tokens)]
    torch.testing.assert_close(values["concatenation"], torch.cat(unit, 1))


@torch.no_grad()
def test_the_tokens_of_encoders_of_other_packages() -> None:
    one, other = MapEncoder(), TokenEncoder()
    maps, found = one.forward_features(CLIPS), token_features(one)(CLIPS, ORDER)
    places = [(time, row, column) for time in range(2) for row in range(4) for column in range(6)]
    assert torch.equal(found, torch.stack([maps[:, :, *place] for place in places], 1))
    assert torch.equal(token_features(other)(CLIPS, ORDER), other.forward_features(CLIPS))


def test_points_that_no_encoder_has() -> None:
    alone = {"transformer": TokenEncoder()}
    for point in ("map", "concatenation"):
        with pytest.raises(
            UsageError, match=f"^--features {point}: transformer has no such feature; .*vector is there"
        ):
            feature_functions(alone, [point], CONFIG)
        assert list(feature_functions(alone, [point, "vector"], CONFIG)) == ["transformer vector"]
    with pytest.raises(UsageError, match=r"^--features pool: say published, map, vector, concatenation$"):
        feature_functions(alone, ["pool"], CONFIG)
