"""What a kernel takes of a GPU, told without one: it is compiled by the assembler that comes with Triton."""

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
"""The compute capabilities of A100, of H100 and H200, and of B200."""
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""The bytes of shared memory that one block may take (CUDA programming guide, technical specifications)."""

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
"""Instructions for tensor cores: HMMA and the like up to Ampere, HGMMA on Hopper, UTCHMMA on Blackwell."""


class Resources(NamedTuple):
    """What a kernel takes of a GPU."""

    registers: int
    """Registers of a thread."""
    shared: int
    """Bytes of shared memory of a block."""
    local_accesses: int
    """Loads from and stores to local memory, which registers that do not suffice cause."""
    tensor_cores: int
    """Instructions for tensor cores."""


def compile_ahead(kernel: Any, arguments: Mapping[str, Any], capability: int, **options: int) -> Resources:
    """Compiles a kernel as it would be for a launch with these arguments.

    Args:
        kernel: The kernel.
        arguments: The arguments by name. A torch.dtype stands for a tensor of it that begins at a multiple of 16 bytes;
            the rest are the values themselves.
        capability: The compute capability of the GPU, such as 90.
        options: num_warps and num_stages. Floating-point fusion is on, as in our launches.

    Raises:
        RuntimeError: TRITON_INTERPRET=1 is set, under which nothing is compiled.
    """
    if not isinstance(kernel, JITFunction):
        raise RuntimeError("TRITON_INTERPRET=1 is set, under which Triton compiles nothing")
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], list[list[Any]]] = {}
    for position, parameter in enumerate(kernel.params):
        value = arguments[parameter.name]
        if parameter.is_constexpr:
            signature[parameter.name], constants[parameter.name] = "constexpr", value
            continue
        if isinstance(value, torch.dtype):
            signature[parameter.name] = f"*{TYPES[value]}"
        else:
            signature[parameter.name] = "i32" if isinstance(value, int) else "fp32"
        # Triton itself finds this out at a launch. Without it loads are neither wide nor asynchronous.
        if isinstance(value, torch.dtype) or (isinstance(value, int) and value % 16 == 0):
            attributes[(position,)] = [["tt.divisibility", 16]]
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
