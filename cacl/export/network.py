"""What is exported: an encoder, with the classifier that it was fine-tuned with where there is one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from cacl.checkpoints.encoders import EncoderWeights
from cacl.config import AugmentConfig, Config
from cacl.evaluation.finetuned import load_finetuned
from cacl.models.create import TRANSFORMER
from cacl.models.encoder import Encoder
from cacl.models.video_classifier import CLASSIFIER


class FeaturesAndLogits(nn.Module):
    """An encoder with a linear classifier, which gives what both of them compute.

    Args:
        encoder: The encoder.
        num_classes: C, the number of classes.
    """

    def __init__(self, encoder: Encoder, num_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.num_features, num_classes)

    def forward(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the feature vector and the logits of each clip.

        Args:
            clips: Floats [B, 3, T, H, W], RGB in [0, 1].

        Returns:
            The feature vectors, floats [B, F], and the logits, floats [B, C].
        """
        features = self.encoder(clips)
        return features, self.classifier(features)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """An encoder that can be built, with its classifier where there is one."""

    name: str
    """`cnn` or `transformer`."""
    weights: EncoderWeights
    """The weights of the encoder, those of the classifier under `classifier.`, and a configuration that holds the keys
    of the encoder and of its clips and nothing else: no videos, no paths."""
    classes: tuple[str, ...]
    """The names of the C classes in the order of the logits; none without a classifier."""

    @property
    def architecture(self) -> str:
        """The name of the encoder among all that are registered."""
        return self.weights.config.model.cnn if self.name == "cnn" else TRANSFORMER

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """The shape of a clip: 3, T, H, W."""
        clip = self.weights.config.clip
        return 3, clip.frames, clip.size, clip.size

    @property
    def output_names(self) -> tuple[str, ...]:
        """What the outputs are called."""
        return ("features", "logits") if self.classes else ("features",)

    def build(self) -> nn.Module:
        """Builds the network with its weights.

        Returns:
            A module on the CPU, in evaluation mode. It turns clips, floats [B, 3, T, H, W], into feature vectors,
            floats [B, F], or with a classifier into feature vectors and logits, floats [B, C].

        Raises:
            CheckpointError: The weights do not fit the configuration.
        """
        encoder = self.weights.build(self.name)
        if not self.classes:
            return encoder
        both = FeaturesAndLogits(encoder, len(self.classes))
        both.classifier.load_state_dict(
            {name: self.weights.tensors[f"{CLASSIFIER}.{name}"] for name in ("weight", "bias")}
        )
        return both.eval()


def read_networks(path: Path, names: Sequence[str] = ()) -> list[Network]:
    """Reads what a training run can export.

    Args:
        path: A run folder, a checkpoint, or encoders.safetensors. The folder of a run of `cacl finetune` stands for the
            state that did best on the validation videos.
        names: The encoders, out of `cnn` and `transformer`. All that there are, if none is named.

    Returns:
        A network for each encoder.

    Raises:
        CheckpointError: The file is missing or damaged, or there is no such encoder in it.
    """
    saved = load_finetuned(path)
    if saved is None or saved.finetune is None:
        weights, classes, classifier = EncoderWeights.read(path), (), {}
    else:
        weights, classes = EncoderWeights.of_checkpoint(saved, str(path)), saved.finetune.classes
        classifier = {name: x for name, x in saved.model.items() if name.startswith(f"{CLASSIFIER}.")}
    networks = []
    for name in names or weights.names:
        own = weights.select(name)
        own = dataclasses.replace(own, config=_without_videos(own.config), tensors=own.tensors | classifier)
        networks.append(Network(name=name, weights=own, classes=classes))
    return networks


def _without_videos(config: Config) -> Config:
    """Keeps the keys that decide the encoder and the clips of an evaluation, and leaves the others at their defaults.

    So the files tell nobody where the videos and the weights of the run lay.
    """
    transformer = dataclasses.replace(config.model.transformer, weights="")
    return Config(
        clip=config.clip,
        augment=AugmentConfig(resize=config.augment.resize, crop=config.augment.crop),
        model=dataclasses.replace(config.model, transformer=transformer),
        retrieval=config.retrieval,
    )
