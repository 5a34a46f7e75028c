"""What a kernel takes of a GPU, told without one: compiled ahead of time by the assembler that comes with Triton."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime import JITFunction

CAPABILITIES = (80, 90, 100)
"""A100, H100 and H200, B200."""
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""Bytes of shared memory that one block may take (CUDA programming guide, technical specifications)."""

TYPES = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.uint8: "u8",
    torch.int8: "i8",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
}
TENSOR_CORES = re.compile(r"U?T?C?[HQIO]G?MMA")
"""HMMA and the like up to Ampere, HGMMA on Hopper, UTCHMMA on Blackwell."""


class Resources(NamedTuple):
    registers: int
    """Of a thread."""
    shared: int
    """Bytes of a block."""
    local_accesses: int
    """Loads from and stores to local memory: registers that did not suffice."""
    tensor_cores: int
    """Instructions for them."""


def compile_ahead(kernel: Any, arguments: Mapping[str, Any], capability: int, **options: int) -> Resources:
    """Compiles a kernel as it would be for a launch with these arguments.

    arguments: by name; a torch.dtype stands for a tensor of it that begins at a multiple of 16 bytes, the rest are the
    values themselves. options: num_warps, num_stages; floating-point fusion is on, as in our launches.

    Raises RuntimeError under TRITON_INTERPRET=1, where nothing is compiled.
    """
    if not isinstance(kernel, JITFunction):
        raise RuntimeError("TRITON_INTERPRET=1 is set, under which Triton compiles nothing")
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], list[list[Any]]] = {}
    for place, parameter in enumerate(kernel.params):
        value = arguments[parameter.name]
        if parameter.is_constexpr:
            signature[parameter.name], constants[parameter.name] = "constexpr", value
            continue
        if isinstance(value, torch.dtype):
            signature[parameter.name] = f"*{TYPES[value]}"
        else:
            signature[parameter.name] = "i32" if isinstance(value, int) else "fp32"
        # What Triton itself finds out at a launch: without it loads are neither wide nor asynchronous.
        if isinstance(value, torch.dtype) or (isinstance(value, int) and value % 16 == 0):
            attributes[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    target = GPUTarget("cuda", capability, 32)
    compiled = triton.compile(source, target=target, options={"enable_fp_fusion": True, **options})
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(compiled.asm["cubin"])
        usage, assembly = _cuobjdump(binary, "-res-usage"), _cuobjdump(binary, "--dump-sass")
    found = re.search(r"REG:(\d+)", usage)
    assert found, usage
    instructions = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_.]+)", assembly)
    return Resources(
        registers=int(found[1]),
        shared=compiled.metadata.shared,
        local_accesses=sum(name.startswith(("LDL", "STL")) for name in instructions),
        tensor_cores=sum(bool(TENSOR_CORES.match(name)) for name in instructions),
    )


def _cuobjdump(binary: Path, what: str) -> str:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return subprocess.run([tool, what, binary], check=True, capture_output=True, text=True).stdout
