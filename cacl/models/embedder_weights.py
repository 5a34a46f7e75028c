"""Reads the weights of an image model, which turns frames into tokens, from a file of somebody else's training."""

from __future__ import annotations

import pickle

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cacl.errors import CheckpointError

_WEIGHT_PREFIXES = ("", "module.", "encoder_q.", "module.encoder_q.")
"""What training scripts put before the names of the weights. The last one is MoCo's."""

_CLASSIFIER_NAMES = {
    "fc",
    "head",
    "heads",
    "head_dist",
    "heads_dist",
    "classifier",
    "last_linear",
    "aux_head",
    "classif",
}
"""The first part of the names under which the models of timm and torchvision keep their last layer."""


def load_backbone(backbone: nn.Module, name: str, path: str) -> None:
    """Loads the weights of an image model from a file.

    Every weight of the model must be in the file, in its shape, and the file may hold nothing else but a classifier.
    The weights of a deeper sister model, whose first blocks fit, are therefore an error, too.

    Args:
        backbone: The image model, whose weights are replaced.
        name: The name of the timm model, for messages.
        path: The .safetensors or PyTorch file.

    Raises:
        CheckpointError: The file cannot be read, or its weights do not fit the model.
    """
    expected = backbone.state_dict()
    found = _read_weights(path)
    prefix = max(_WEIGHT_PREFIXES, key=lambda prefix: sum(prefix + key in found for key in expected))
    found = {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}

    # Batch norms count their batches only since PyTorch 0.4.1, and older files still serve.
    missing = [key for key in expected if key not in found and not key.endswith(".num_batches_tracked")]
    misshapen = [key for key in expected if key in found and found[key].shape != expected[key].shape]
    unknown = [key for key in found if key not in expected and key.split(".")[0] not in _CLASSIFIER_NAMES]
    problems = [
        *(f"{key} is missing" for key in missing),
        *(f"{key} is {list(found[key].shape)} in place of {list(expected[key].shape)}" for key in misshapen),
        *(f"{key} is not part of the model" for key in unknown),
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"{path}: weights do not fit the timm model {name}: {'; '.join(problems[:3])}{more}")
    backbone.load_state_dict(found, strict=False)  # not strict, as the classifier is left out


def _read_weights(path: str) -> dict[str, Tensor]:
    """Reads the tensors of a file by name, also where they lie in a dictionary under "state_dict" or "model"."""
    try:
        content = (
            load_file(path)
            if path.endswith(".safetensors")
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, pickle.UnpicklingError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CheckpointError(f"{path}: cannot be read as weights ({reason})") from None
    for nest in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(nest), dict):
            content = content[nest]
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__} in place of weights by name")
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}
