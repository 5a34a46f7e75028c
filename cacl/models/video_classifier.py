"""A video classifier: an encoder with dropout and a linear layer on its features."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Self

from torch import Tensor, nn

from cacl.models.encoder import Encoder
from cacl.models.recompute import recompute_in_parts

CLASSIFIER = "classifier"
"""The name of the last group of layers."""


class VideoClassifier(nn.Module):
    """An encoder with a linear classifier, of which some layers may be frozen.

    Args:
        encoder: Any encoder.
        num_classes: C, the number of classes.
        dropout: The probability with which a feature is dropped in training.
        parts: The number of parts of a batch that the encoder gets one after the other in training, to save memory.
    """

    def __init__(self, encoder: Encoder, num_classes: int, dropout: float, parts: int = 1) -> None:
        super().__init__()
        self.parts = parts
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(encoder.num_features, num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        """Classifies clips.

        Args:
            clips: Floats [B, 3, T, H, W], RGB in about [0, 1].

        Returns:
            The logits, floats [B, C].
        """
        return self.classifier(self.dropout(recompute_in_parts(self.encoder, self.parts, clips)))

    def layer_groups(self) -> dict[str, list[nn.Parameter]]:
        """Returns the parameters by group of layers, from the input to the classifier.

        The groups of the encoder are those that its own `layer_groups` gives; an encoder without that is one group.
        """
        own: Any = getattr(self.encoder, "layer_groups", None)
        groups = own() if own else {"encoder": list(self.encoder.parameters())}
        return {**groups, CLASSIFIER: list(self.classifier.parameters())}

    def freeze(self, groups: Collection[str]) -> None:
        """Leaves groups of layers as they are from now on, their batch statistics included.

        Args:
            groups: The names of the groups.
        """
        for name, parameters in self.layer_groups().items():
            if name in groups:
                for parameter in parameters:
                    parameter.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Sets training or evaluation mode, except for layers that are frozen, which stay in evaluation mode.

        Args:
            mode: Whether to train.

        Returns:
            The module itself.
        """
        super().train(mode)
        for module in self.modules():
            parameters = list(module.parameters(recurse=False))
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        return self
