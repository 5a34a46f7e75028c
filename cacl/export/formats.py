"""How each format is written, and read again with nothing but the file: `FORMATS` has the choices."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from cacl.errors import CaclError, UsageError
from cacl.export.network import Network

Outputs = tuple[Tensor, ...]
"""What a network computes of clips: the features float32 [B, F], and with a classifier the logits float32 [B, C]."""

ComputeOutputs = Callable[[Tensor], Outputs]
"""A function clips float32 [B, 3, T, H, W] -> outputs."""

INPUT_NAME = "clips"
"""What the input is called."""

MAX_ONNX_BYTES = 2**31 - 2**24
"""The most weights that fit into one ONNX file: the limit of protocol buffers, less 16 MiB for the graph."""


class ExportError(CaclError):
    """A network cannot be written in a format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format of files."""

    suffix: str
    """The end of the file's name."""
    packages: tuple[str, ...]
    """The packages that it needs and that are not installed with this one."""
    write: Callable[[Network, Path], None]
    """Writes a network to a file."""
    load: Callable[[Network, Path], ComputeOutputs]
    """Reads what `write` wrote. Of the network only the description is taken, and no weights."""


def check_packages(formats: Sequence[str]) -> None:
    """Checks that what the formats need is installed.

    Args:
        formats: The names of the formats.

    Raises:
        UsageError: A package is missing. The message says how to install it.
    """
    for name in formats:
        missing = [package for package in FORMATS[name].packages if importlib.util.find_spec(package) is None]
        if missing:
            others = " ".join(f"--format {other}" for other in FORMATS if not FORMATS[other].packages)
            raise UsageError(
                f"--format {name}: {', '.join(missing)} not installed; `pip install 'cacl[export]'` installs it, and "
                f"{others} does without"
            )


def as_outputs(outputs: Tensor | Sequence[Tensor]) -> Outputs:
    """Returns the outputs of a module as a tuple, where it has a single one, too."""
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def _write_safetensors(network: Network, path: Path) -> None:
    network.weights.save(path)


def _load_safetensors(network: Network, path: Path) -> ComputeOutputs:
    weights = dataclasses.replace(network.weights, tensors=load_file(path))
    module = dataclasses.replace(network, weights=weights).build()
    return lambda clips: as_outputs(module(clips))


def _write_torch(network: Network, path: Path) -> None:
    module, clips = network.build(), _example(network)
    program = torch.export.export(module, (clips,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # It names the files of this machine.
    program.example_inputs = None  # They would be pickled.
    with path.open("wb") as file:
        torch.export.save(program, file)


def _load_torch(network: Network, path: Path) -> ComputeOutputs:
    with path.open("rb") as file:
        module = torch.export.load(file).module()
    return lambda clips: as_outputs(module(clips))


def _write_onnx(network: Network, path: Path) -> None:
    size = sum(x.nbytes for x in network.weights.tensors.values())
    if size > MAX_ONNX_BYTES:
        raise ExportError(f"{size / 2**30:.1f} GiB of weights are more than one ONNX file holds, which is 2 GiB")
    with redirect_stdout(sys.stderr):  # Some versions of onnxscript print how they simplify a graph.
        program = torch.onnx.export(
            network.build(),
            (_example(network),),
            dynamo=True,
            input_names=[INPUT_NAME],
            output_names=network.output_names,
            dynamic_shapes=({0: "batch"},),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    graph = model.graph
    for item in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        item.ClearField("metadata_props")  # They name the files of this machine.
    path.write_bytes(model.SerializeToString())


def _load_onnx(network: Network, path: Path) -> ComputeOutputs:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def compute(clips: Tensor) -> Outputs:
        outputs = session.run(list(network.output_names), {INPUT_NAME: clips.numpy()})
        return tuple(torch.from_numpy(np.asarray(output)) for output in outputs)

    return compute


def _example(network: Network) -> Tensor:
    """Returns clips to trace a network with. Of a batch of one, tracers believe that it is always one."""
    return torch.rand(2, *network.clip_shape)


FORMATS = {
    "safetensors": Format(suffix=".safetensors", packages=(), write=_write_safetensors, load=_load_safetensors),
    "torch": Format(suffix=".pt2", packages=(), write=_write_torch, load=_load_torch),
    "onnx": Format(suffix=".onnx", packages=("onnx", "onnxscript", "onnxruntime"), write=_write_onnx, load=_load_onnx),
}
"""The formats by name."""
