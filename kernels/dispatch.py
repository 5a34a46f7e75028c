"""Where an operation runs: its Triton kernel on NVIDIA GPUs, on a CPU its form for CPUs or its reference in torch.

With TRITON_INTERPRET=1, set before the first import, tensors on a CPU go to the kernels too, which Triton's interpreter
then runs without a GPU. That is slow and meant for tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton.knobs
from torch import Tensor

INTERPRETED: bool = triton.knobs.runtime.interpret
"""Whether Triton's interpreter runs the kernels, on CPU tensors too."""

_LIBRARY = torch.library.Library("cacl", "DEF")


def register_operation(
    schema: str,
    *,
    reference: Callable[..., Any],
    kernel: Callable[..., Any],
    fake: Callable[..., Any],
    cpu: Callable[..., Any] | None = None,
    prefers_reference: Callable[..., bool] = lambda *_: False,
) -> Any:
    """Registers an operation as `torch.ops.cacl.NAME`.

    All functions take the arguments of the operation.

    Args:
        schema: The schema as torch.library takes it, `NAME(Tensor x, ...) -> ...`. The first argument is a tensor or a
            list of tensors.
        reference: The readable form in torch.
        kernel: The function that launches the Triton kernel. It runs on a GPU, and on a CPU under TRITON_INTERPRET=1.
        fake: Returns empty tensors of the shapes and dtypes that the operation returns.
        cpu: What runs on a CPU. None means the reference.
        prefers_reference: Tells whether the reference is quicker than a launch of the kernel on the same GPU.

    Returns:
        The overload of the operation that was registered, ready to be called.
    """
    name = _LIBRARY.define(schema)

    def run_on_gpu(*arguments: Any) -> Any:
        tensor = arguments[0] if isinstance(arguments[0], Tensor) else arguments[0][0]
        with torch.cuda.device_of(tensor):  # Triton launches on the current device, wherever the tensors are.
            return (reference if prefers_reference(*arguments) else kernel)(*arguments)

    # These forms choose their own precision, so autocast must not.
    _LIBRARY.impl(name, kernel if INTERPRETED else torch.autocast("cpu", enabled=False)(cpu or reference), "CPU")
    _LIBRARY.impl(name, torch.autocast("cuda", enabled=False)(run_on_gpu), "CUDA")
    torch.library.register_fake(f"cacl::{name}", fake, lib=_LIBRARY)
    return getattr(torch.ops.cacl, name).default
