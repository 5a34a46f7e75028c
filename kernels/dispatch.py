"""Where an operation runs: its Triton kernel on NVIDIA GPUs, its readable form in torch on a CPU.

With TRITON_INTERPRET=1, set before the first import, tensors on a CPU go to the kernels too, which Triton's interpreter
then runs without a GPU: slow, for tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton.knobs
from torch import Tensor

INTERPRETED: bool = triton.knobs.runtime.interpret

_LIBRARY = torch.library.Library("cacl", "DEF")


def operation(
    schema: str,
    *,
    reference: Callable[..., Any],
    kernel: Callable[..., Any],
    shapes: Callable[..., Any],
    small: Callable[..., bool] = lambda *_: False,
) -> Any:
    """Registers an operation as torch.ops.cacl.NAME and returns it.

    schema: as torch.library takes it, `NAME(Tensor x, ...) -> ...`, a tensor or a list of them first. All functions
    take its arguments; `shapes` returns empty tensors like those that the operation returns. small: whether the launch
    of the kernel would take longer than the reference on the same GPU.
    """
    name = _LIBRARY.define(schema)

    def on_gpu(*arguments: Any) -> Any:
        tensor = arguments[0] if isinstance(arguments[0], Tensor) else arguments[0][0]
        with torch.cuda.device_of(tensor):  # Triton launches on the current device, wherever the tensors are
            return (reference if small(*arguments) else kernel)(*arguments)

    # The reference chooses its own precision: autocast must not.
    _LIBRARY.impl(name, kernel if INTERPRETED else torch.autocast("cpu", enabled=False)(reference), "CPU")
    _LIBRARY.impl(name, torch.autocast("cuda", enabled=False)(on_gpu), "CUDA")
    torch.library.register_fake(f"cacl::{name}", shapes, lib=_LIBRARY)
    return getattr(torch.ops.cacl, name).default


def widened(x: Tensor) -> bool:
    """Whether a kernel must make float32 of what it loads of this tensor: the interpreter computes with the bits of
    bfloat16 as if they were integers."""
    return INTERPRETED and x.dtype == torch.bfloat16
