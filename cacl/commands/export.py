"""`cacl export`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cacl.commands.options import AsJson, Imports
from cacl.commands.output import print_message, print_result, print_table
from cacl.errors import UsageError, reason_of

if TYPE_CHECKING:
    from cacl.export.export import ExportedFile


class EncoderName(StrEnum):
    """The encoders of a run."""

    CNN = "cnn"
    TRANSFORMER = "transformer"


class FormatName(StrEnum):
    """The keys of `FORMATS` in cacl/export/formats.py, which would have to be imported for them."""

    SAFETENSORS = "safetensors"
    TORCH = "torch"
    ONNX = "onnx"


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Run folder, checkpoint, or encoders.safetensors.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the files.")],
    encoders: Annotated[
        list[EncoderName] | None,
        typer.Option("--encoder", help="Encoder to export; may be repeated. All of the run, if none is given."),
    ] = None,
    formats: Annotated[
        list[FormatName] | None,
        typer.Option("--format", help="Format to write; may be repeated. All, if none is given."),
    ] = None,
    imports: Imports = None,
    as_json: AsJson = False,
) -> None:
    """Write trained encoders as safetensors, as a program of torch.export, and as ONNX.

    A JSON file beside them says what goes in, what comes out, and how a clip is made of a video. Each file is read
    again and must compute what the encoder computes, within 0.0001. Of a run of `cacl finetune`, the classifier is
    written with its encoder.
    """
    from cacl.export.export import export as export_network
    from cacl.export.formats import FORMATS, check_packages
    from cacl.export.network import read_networks

    names = [name.value for name in dict.fromkeys(formats or [])] or list(FORMATS)
    check_packages(names)
    exported = {}
    for network in read_networks(checkpoint, [name.value for name in dict.fromkeys(encoders or [])]):
        print_message(f"{network.name} ({network.architecture}): {', '.join(names)}")
        try:
            exported[network.name] = export_network(network, names, out)
        except OSError as error:
            raise UsageError(f"--out {out}: cannot be written ({reason_of(error)})") from None
    result = {name: [asdict(file) for file in files] for name, files in exported.items()}
    print_result({"out": str(out), "encoders": result}, as_json, lambda: _print_files(out, exported))


def _print_files(out: Path, exported: Mapping[str, Sequence[ExportedFile]]) -> None:
    from cacl.export.export import BATCH_SIZES, MAX_DIFFERENCE

    rows = [
        [file.name, f"{file.bytes / 2**20:.1f}", f"{file.largest_difference:.2g}", f"{file.largest_output:.3g}"]
        for files in exported.values()
        for file in files
    ]
    print_table(["file", "MiB", "largest difference", "largest output"], rows)
    sizes = " and ".join(map(str, BATCH_SIZES))
    print(f"{out}: absolute differences of outputs from the original, in batches of {sizes} clips of noise")
    print(f"at most {MAX_DIFFERENCE:g} is right; the .json beside each says what goes in and how clips are made")
