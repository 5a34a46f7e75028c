"""Where a feature can be taken from the encoders: `FEATURE_POINTS` has the choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cacl.checkpoints.encoders import EncoderWeights
from cacl.config import Config
from cacl.errors import UsageError
from cacl.evaluation import baselines
from cacl.evaluation.features import FeatureFunction, encoder_feature, feature_vector, token_features
from cacl.models.encoder import Encoder

FEATURE_POINTS = {
    "published": "what the release takes: the map of a CNN, the vector of an encoder of tokens",
    "map": "the last feature map, max-pooled by (1, 2, 2) and flattened; only encoders with a map have it",
    "vector": "the feature vector: the average pool of a CNN, CLS of the video transformer",
    "concatenation": "the vectors of all encoders, each brought to length 1, one after the other",
}
"""The choices, with what each of them is."""


UNTRAINED, TRAINED = ", untrained", ", trained"
"""What stands behind the name of a feature of encoders in the features that an evaluation compares."""


class MissingFeatureError(UsageError):
    """None of the encoders has any of the features that were asked for."""


def check_points(points: Sequence[str]) -> None:
    """Checks that there are features of these names.

    Args:
        points: The names.

    Raises:
        UsageError: There is no such feature.
    """
    if unknown := [point for point in points if point not in FEATURE_POINTS]:
        raise UsageError(f"--features {unknown[0]}: say {', '.join(FEATURE_POINTS)}")


def evaluated_features(
    weights: EncoderWeights, config: Config, device: torch.device, points: Sequence[str], *, tokens: bool = False
) -> dict[str, FeatureFunction]:
    """Makes the features that an evaluation compares: of encoders untrained and trained, and of baselines.

    Args:
        weights: The trained encoders.
        config: The configuration of the evaluation.
        device: The device of the encoders.
        points: Where the features of encoders are taken, as for `feature_functions`. There may be none with `tokens`.
        tokens: Whether to take the tokens of each encoder, too, under its name with `tokens` behind it.

    Returns:
        The features by name.

    Raises:
        UsageError: There is no such point, or none of the encoders has any of them.
    """
    untrained, trained = {}, {}
    for which in weights.names:
        torch.manual_seed(config.seed)
        untrained[which] = weights.build_untrained(which).to(device)
        trained[which] = weights.build(which).to(device)

    def of(encoders: Mapping[str, Encoder]) -> dict[str, FeatureFunction]:
        found = feature_functions(encoders, points, config) if points or not tokens else {}
        return found | {f"{which} tokens": token_features(encoder) for which, encoder in encoders.items() if tokens}

    functions: dict[str, FeatureFunction] = {**baselines.BASELINES_OF_CLIPS}
    of_untrained = of(untrained)
    for name, of_trained in of(trained).items():
        functions[name + UNTRAINED] = of_untrained[name]
        functions[name + TRAINED] = of_trained
    return functions


def feature_functions(
    encoders: Mapping[str, Encoder], points: Sequence[str], config: Config
) -> dict[str, FeatureFunction]:
    """Makes the features that were asked for.

    Args:
        encoders: The encoders by name, in evaluation mode.
        points: Where the features are taken. An encoder that has no such point gives no feature for it.
        config: The configuration of the evaluation, whose clips the encoders take.

    Returns:
        The features by name: that of the encoder for `published`, with the point behind it for `map` and `vector`, and
        `concatenation`.

    Raises:
        UsageError: There is no such point.
        MissingFeatureError: None of the encoders has any of the points.
    """
    check_points(points)
    functions: dict[str, FeatureFunction] = {}
    for point in points:
        if point == "concatenation" and len(encoders) > 1:
            functions[point] = _concatenation([feature_vector(encoder) for encoder in encoders.values()])
        for which, encoder in encoders.items():
            if point == "published":
                functions[which] = encoder_feature(encoder)
            elif point == "vector":
                functions[f"{which} vector"] = feature_vector(encoder)
            elif point == "map" and _has_map(encoder, config):
                functions[f"{which} map"] = encoder_feature(encoder)
    if not functions:
        asked, known = ", ".join(points), " and ".join(encoders)
        raise MissingFeatureError(
            f"--features {asked}: {known} has no such feature; a map needs an encoder whose forward_features gives "
            "[B, C, T', H', W'], and a concatenation two encoders; vector is there in any case"
        )
    return functions


def _concatenation(vectors: Sequence[FeatureFunction]) -> FeatureFunction:
    def concatenation(clips: Tensor, order: Tensor) -> Tensor:
        return torch.cat([F.normalize(vector(clips, order), dim=1) for vector in vectors], 1)

    return concatenation


@torch.no_grad()
def _has_map(encoder: Encoder, config: Config) -> bool:
    """Whether the encoder gives a feature map, found by a clip of zeros."""
    device = next(encoder.parameters()).device
    clip = torch.zeros(1, 3, config.clip.frames, config.clip.size, config.clip.size, device=device)
    return encoder.forward_features(clip).dim() == 5
