"""Trained encoders without all else that training needs: `load_encoder`, and the file `encoders.safetensors`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cacl import config as configuration
from cacl.checkpoints import checkpoint
from cacl.checkpoints.checkpoint import Checkpoint, find_file, first_line, stored_config
from cacl.config import Config
from cacl.errors import CheckpointError
from cacl.files import atomic_write
from cacl.models.encoder import Encoder
from cacl.models.video_transformer import TimmEmbedder, video_transformer
from cacl.registry import ENCODERS

ENCODERS_NAME = "encoders.safetensors"
"""The name of the file in a run folder."""


def load_encoder(path: str | Path, which: str = "cnn") -> Encoder:
    """Loads a trained encoder onto the CPU, in evaluation mode.

    Args:
        path: A run folder, a checkpoint, or encoders.safetensors.
        which: `cnn` or `transformer`.

    Returns:
        The encoder. `encoder(clips)` turns floats [B, 3, T, H, W], RGB in [0, 1], into feature vectors, floats [B, F].
        `encoder.forward_features(clips)` gives what stands before the pooling: of a 3D CNN its last feature map, floats
        [B, C, T', H', W'], and of the transformer its tokens, floats [B, N, C].

    Raises:
        CheckpointError: There is no such file, or no such encoder in it.
    """
    return EncoderWeights.read(Path(path)).build(which)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderWeights:
    """The weights of the encoders of a training run, from which the encoders can be built."""

    source: str
    """The file that they come from, for messages."""
    config: Config
    """The configuration of the run."""
    step: int
    """The number of steps that the run had taken."""
    tensors: dict[str, Tensor]
    """The weights by name: cnn.* and transformer.*"""

    @classmethod
    def of_checkpoint(cls, saved: Checkpoint, source: str) -> EncoderWeights:
        """Takes the encoders out of a checkpoint, without heads, classifier, queue and optimiser.

        Of a run without labels these are the query CNN and the query transformer, of `cacl finetune` the one encoder.

        Args:
            saved: The checkpoint of a training run.
            source: The file that the checkpoint comes from, for messages.

        Returns:
            The weights, which are not copied.
        """
        beginnings = {"query.cnn.": "cnn.", "query.transformer.": "transformer."}
        if saved.finetune is not None:
            beginnings = {"encoder.": f"{saved.config.finetune.encoder}."}
        tensors = {
            new + name.removeprefix(old): x
            for old, new in beginnings.items()
            for name, x in saved.model.items()
            if name.startswith(old)
        }
        return cls(source=source, config=saved.config, step=saved.step, tensors=tensors)

    @classmethod
    def read(cls, path: Path) -> EncoderWeights:
        """Reads the encoders of a training run onto the CPU.

        Args:
            path: A run folder, a checkpoint, or encoders.safetensors.

        Returns:
            The weights.

        Raises:
            CheckpointError: The file is missing, damaged, or was not written by this version.
        """
        if path.suffix != ".safetensors":
            return cls.of_checkpoint(checkpoint.load(path), str(find_file(path)))
        path = find_file(path)
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: is damaged or no safetensors file ({first_line(error)})") from None
        if not {"config", "step"} <= metadata.keys():
            raise CheckpointError(f"{path}: was not written by cacl (it holds no configuration)")
        try:
            values, step = json.loads(metadata["config"]), int(metadata["step"])
        except ValueError:
            raise CheckpointError(f"{path}: its metadata is damaged") from None
        return cls(source=str(path), config=stored_config(path, values), step=step, tensors=tensors)

    def save(self, path: Path) -> None:
        """Writes a safetensors file that holds the weights, and the configuration and the step as its metadata.

        Args:
            path: The file to write. Its folder must exist.

        Raises:
            OSError: The file cannot be written.
        """
        metadata = {"config": json.dumps(configuration.to_dict(self.config)), "step": str(self.step)}
        tensors = {name: x.detach().cpu().contiguous() for name, x in self.tensors.items()}
        try:
            with atomic_write(path) as temporary:
                save_file(tensors, temporary, metadata)
        except SafetensorError as error:
            raise OSError(first_line(error)) from None

    @property
    def names(self) -> list[str]:
        """The encoders that there are, out of `cnn` and `transformer`."""
        return [which for which in ("cnn", "transformer") if any(n.startswith(f"{which}.") for n in self.tensors)]

    @property
    def digest(self) -> str:
        """The sha256 over the names and values of all weights, as hex digits."""
        digest = hashlib.sha256()
        for name in sorted(self.tensors):
            digest.update(name.encode())
            digest.update(self.tensors[name].contiguous().numpy().tobytes())
        return digest.hexdigest()

    def select(self, which: str) -> EncoderWeights:
        """Takes one of the encoders.

        Args:
            which: `cnn` or `transformer`.

        Returns:
            Its weights alone, which are not copied.

        Raises:
            CheckpointError: There is no such encoder.
        """
        self._check_held(which)
        tensors = {name: x for name, x in self.tensors.items() if name.startswith(f"{which}.")}
        return dataclasses.replace(self, tensors=tensors)

    def build(self, which: str) -> Encoder:
        """Builds an encoder with its trained weights.

        Args:
            which: `cnn` or `transformer`.

        Returns:
            The encoder on the CPU, in evaluation mode.

        Raises:
            CheckpointError: There is no such encoder, or its weights do not fit the configuration.
        """
        encoder = self.build_untrained(which)
        try:
            encoder.load_state_dict(self._weights_below(f"{which}."))
        except RuntimeError as error:
            raise CheckpointError(
                f"{self.source}: belongs to another model than its configuration says ({_first_mismatch(error)})"
            ) from None
        return encoder

    def build_untrained(self, which: str) -> Encoder:
        """Builds the same encoder with random weights. A frozen embedder keeps the weights that it was given.

        Args:
            which: `cnn` or `transformer`.

        Returns:
            The encoder on the CPU, in evaluation mode.

        Raises:
            CheckpointError: There is no such encoder.
        """
        self._check_held(which)
        model = self.config.model
        if which == "cnn":
            return ENCODERS.load(model.cnn)(self.config).eval()
        # The weights of the embedder are among the tensors.
        transformer = dataclasses.replace(model.transformer, weights="")
        config = dataclasses.replace(self.config, model=dataclasses.replace(model, transformer=transformer))
        encoder = video_transformer(config).eval()
        if isinstance(encoder.embedder, TimmEmbedder) and transformer.frozen:
            encoder.embedder.backbone.load_state_dict(self._weights_below("transformer.embedder.backbone."))
        return encoder

    def _check_held(self, which: str) -> None:
        if which not in self.names:
            raise CheckpointError(f"{self.source}: holds no encoder {which!r}, only {', '.join(self.names) or 'none'}")

    def _weights_below(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): x for name, x in self.tensors.items() if name.startswith(prefix)}


def _first_mismatch(error: RuntimeError) -> str:
    """The first thing that torch has against a state dict; the first line of its message only names the class."""
    lines = [line.strip() for line in str(error).splitlines()]
    return (lines[1:] or lines)[0][:200]
