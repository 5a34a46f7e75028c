"""Which learning rate each group of layers has in fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from cacl.config import FinetuneConfig
from cacl.models.video_classifier import CLASSIFIER, VideoClassifier


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRate:
    """The learning rate of one group of layers."""

    name: str
    """The name of the group, as `VideoClassifier.layer_groups` has it."""
    parameters: tuple[nn.Parameter, ...]
    """The parameters of the group that are trained."""
    scale: float
    """What the learning rate of the schedule is multiplied by."""
    constant: float = 0.0
    """The learning rate of all steps, in place of that of the schedule; 0: there is none."""

    def at(self, scheduled: float) -> float:
        """Returns the learning rate of a step.

        Args:
            scheduled: The learning rate of the schedule in this step.
        """
        return self.constant or self.scale * scheduled


def freeze_layers(model: VideoClassifier, config: FinetuneConfig) -> None:
    """Freezes what is not trained.

    Args:
        model: The encoder with its classifier.
        config: The section `finetune` of the configuration.
    """
    encoder = [name for name in model.layer_groups() if name != CLASSIFIER]
    trained = {"all": encoder, "last": encoder[-config.last_layers :], "classifier": []}[config.trained]
    model.freeze(set(encoder) - set(trained))


def layer_rates(model: VideoClassifier, config: FinetuneConfig) -> list[LayerRate]:
    """Returns the learning rate of each group of layers that is trained, the classifier first.

    The scale falls by `layer_decay` from each group to the one before it (Bao et al., BEiT, ICLR 2022).

    Args:
        model: The encoder with its classifier.
        config: The section `finetune` of the configuration.
    """
    rates = []
    for distance, (name, parameters) in enumerate(reversed(model.layer_groups().items())):
        trained = tuple(parameter for parameter in parameters if parameter.requires_grad)
        if trained:
            constant = config.last_lr if distance <= config.last_layers else 0.0
            scale = config.layer_decay**distance
            rates.append(LayerRate(name=name, parameters=trained, scale=scale, constant=constant))
    return rates
