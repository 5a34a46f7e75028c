"""Writes the files of a network, each checked against the original before any of them appears."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cacl.checkpoints.checkpoint import first_line
from cacl.errors import CaclError, UsageError
from cacl.export.description import describe
from cacl.export.formats import FORMATS, ComputeOutputs, ExportError, Outputs, as_outputs
from cacl.export.network import Network
from cacl.files import atomic_write

MAX_DIFFERENCE = 1e-4
"""The most by which an output of a file may differ from that of the original."""
BATCH_SIZES = (1, 3)
"""The numbers of clips in the batches that files are checked with. None of them is that of the example of a tracer."""


class DifferenceError(CaclError):
    """A file does not compute what the original computes."""

    exit_code = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedFile:
    """A file that computes what the original computes."""

    format: str
    """The name of its format."""
    name: str
    """Its name in the folder."""
    bytes: int
    """Its size."""
    sha256: str
    """The digest of its content, as hex digits."""
    largest_difference: float
    """The largest absolute difference of an output from that of the original."""
    largest_output: float
    """The largest absolute value among the outputs of the original."""


def export(network: Network, formats: Sequence[str], out: Path) -> list[ExportedFile]:
    """Writes a network in several formats, and a description of it as JSON beside them.

    Each file is read again, and run on batches of noise. None of them appears before all of them are right, and the
    JSON file comes last.

    Args:
        network: The network.
        formats: The names of the formats.
        out: The folder of the files, which is made if it is missing. Files of these names are replaced.

    Returns:
        What was written, a file for each format.

    Raises:
        UsageError: The folder holds the network in another format, which the JSON file would not describe any more.
        ExportError: A format cannot hold the network.
        DifferenceError: A file computes something else than the original.
        OSError: A file cannot be written.
    """
    for name in FORMATS.keys() - set(formats):
        if (left := out / f"{network.name}{FORMATS[name].suffix}").exists():
            raise UsageError(
                f"{left}: belongs to an earlier export; remove it, add --format {name}, or name another --out"
            )
    out.mkdir(parents=True, exist_ok=True)
    expected = _expected_outputs(network)
    files = []
    with ExitStack() as written:
        # What is entered first is renamed last.
        description = written.enter_context(atomic_write(out / f"{network.name}.json"))
        for name in formats:
            final = out / f"{network.name}{FORMATS[name].suffix}"
            temporary = written.enter_context(atomic_write(final))
            files.append(_write_and_check(network, name, temporary, final, expected))
        facts = {
            file.name: {
                "bytes": file.bytes,
                "sha256": file.sha256,
                "largest_difference": file.largest_difference,
                "largest_output": file.largest_output,
            }
            for file in files
        }
        text = json.dumps(describe(network, expected[0][1], facts), indent=2)
        description.write_text(f"{text}\n", encoding="utf-8")
    return files


def _expected_outputs(network: Network) -> list[tuple[Tensor, Outputs]]:
    """Returns batches of clips, each with what the original computes of it."""
    module, generator = network.build(), torch.Generator().manual_seed(0)
    with torch.inference_mode():
        batches = [torch.rand(size, *network.clip_shape, generator=generator) for size in BATCH_SIZES]
        return [(clips, as_outputs(module(clips))) for clips in batches]


def _write_and_check(
    network: Network, name: str, temporary: Path, final: Path, expected: Sequence[tuple[Tensor, Outputs]]
) -> ExportedFile:
    try:
        FORMATS[name].write(network, temporary)
        difference = _largest_difference(FORMATS[name].load(network, temporary), expected)
    except OSError:
        raise
    except Exception as error:  # Tracers and runtimes raise anything at what they cannot do.
        reason = first_line(_first_cause(error)).rstrip(".")
        raise ExportError(
            f"{network.name} ({network.architecture}): cannot be exported as {name}: {reason}; name the other formats "
            "with --format to leave it out"
        ) from error
    largest = max(x.abs().max().item() for _, outputs in expected for x in outputs)
    if not difference <= MAX_DIFFERENCE:  # NaN is not, either.
        raise DifferenceError(
            f"{final}: differs from the original by {difference:.2g}, at most {MAX_DIFFERENCE:g} is right (its largest "
            f"output is {largest:.3g}); nothing was written"
        )
    content = temporary.read_bytes()
    return ExportedFile(
        format=name,
        name=final.name,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        largest_difference=difference,
        largest_output=largest,
    )


@torch.inference_mode()
def _largest_difference(compute: ComputeOutputs, expected: Sequence[tuple[Tensor, Outputs]]) -> float:
    differences = [
        (found - original.view_as(found)).abs().max()
        for clips, originals in expected
        for found, original in zip(compute(clips), originals, strict=True)
    ]
    return torch.stack(differences).max().item()  # NaN, if one is among them


def _first_cause(error: Exception) -> Exception:
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error
