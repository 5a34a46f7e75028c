"""Exports each encoder, and prints how far the outputs of the files are from those of the original, as Markdown.

    python benchmarks/scripts/export_parity.py

Weights are random. Batch statistics are those of noise, since those of a new network leave everything as it is.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cacl.checkpoints.encoders import EncoderWeights
from cacl.config import from_dict
from cacl.export.export import ExportedFile, export
from cacl.export.formats import FORMATS
from cacl.export.network import read_networks
from cacl.models.create import TRANSFORMER, create_model, list_models

EMBEDDERS = ("light", "tubelet", "resnet18", "resnet50", "vit_tiny_patch16_224")
"""The embedders of the transformer. The last one is an image model that wants frames of a size of its own."""


def save_untrained(path: Path, name: str, *, frames: int = 16, size: int = 112, **overrides: Any) -> None:
    """Writes an encoder with random weights, as encoders.safetensors of a run has it.

    Args:
        path: The file to write.
        name: The name of the encoder, as `cacl.create_model` takes it.
        frames: T, the number of frames of a clip.
        size: The height and the width of a clip.
        **overrides: What else `cacl.create_model` takes.
    """
    torch.manual_seed(0)
    encoder = create_model(name, frames=frames, size=size, **overrides)
    with torch.no_grad():
        for _ in range(3):
            encoder(torch.rand(4, 3, frames, size, size))
    model = {"transformer": overrides} if name == TRANSFORMER else {"cnn": name, **overrides}
    which = "transformer" if name == TRANSFORMER else "cnn"
    EncoderWeights(
        source=str(path),
        config=from_dict({"clip": {"frames": frames, "size": size}, "model": model}),
        step=0,
        tensors={f"{which}.{key}": x for key, x in encoder.state_dict().items()},
    ).save(path)


def parity(name: str, formats: Sequence[str] = tuple(FORMATS), **settings: Any) -> list[ExportedFile]:
    """Exports an encoder into a folder that goes away.

    Args:
        name: The name of the encoder.
        formats: The formats.
        **settings: What `save_untrained` takes.

    Returns:
        What `cacl export` says of each file.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoders.safetensors"
        save_untrained(path, name, **settings)
        (network,) = read_networks(path)
        return export(network, formats, Path(folder))


def main() -> None:
    """Prints a row for each encoder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoders", nargs="*", help="names as the table has them; all of them, if none is given")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=112)
    settings = vars(parser.parse_args())
    chosen = settings.pop("encoders")
    known: dict[str, dict[str, str]] = {name: {} for name in list_models() if name != TRANSFORMER}
    known |= {f"{TRANSFORMER}, {embedder}": {"embedder": embedder} for embedder in EMBEDDERS}
    print(f"| encoder | {' | '.join(FORMATS)} | largest output | MiB of ONNX |")
    print(f"|---|{'---|' * len(FORMATS)}---|---|")
    for label in chosen or known:
        files = parity(label.partition(",")[0], **known[label], **settings)
        differences = " | ".join(f"{file.largest_difference:.1g}" for file in files)
        size = files[-1].bytes / 2**20
        print(f"| {label} | {differences} | {files[0].largest_output:.2g} | {size:.0f} |", flush=True)


if __name__ == "__main__":
    main()
