"""The command lines of NVIDIA's profilers, Nsight Systems (nsys) and Nsight Compute (ncu), around `cacl profile`.

Both record only what lies between cudaProfilerStart and cudaProfilerStop, and the names of the stages are NVTX ranges.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cacl.errors import CaclError, UsageError

KERNELS = "^(augment|scan|finish|backward|logsumexp|gradient|to_identity|sequences)_kernel$"
"""The names of the Triton kernels of this package."""


def nsys_command(out: Path, arguments: Sequence[str]) -> list[str]:
    """The command by which Nsight Systems records the profiled steps of a training: kernels, copies, stages, the host.

    Args:
        out: The folder that nsys.nsys-rep is written to.
        arguments: Those of `cacl profile`.
    """
    options = ["--capture-range=cudaProfilerApi", "--capture-range-end=stop", "--trace=cuda,nvtx,osrt,cudnn,cublas"]
    return ["nsys", "profile", *options, "--force-overwrite=true", f"--output={out / 'nsys'}", *_marked(arguments)]


def ncu_command(out: Path, arguments: Sequence[str]) -> list[str]:
    """The command by which Nsight Compute measures the Triton kernels of the profiled steps.

    Args:
        out: The folder that ncu.ncu-rep is written to.
        arguments: Those of `cacl profile`.
    """
    options = ["--profile-from-start=off", "--target-processes=all", "--nvtx", f"--kernel-name=regex:{KERNELS}"]
    return ["ncu", *options, "--set=full", "--force-overwrite", f"--export={out / 'ncu'}", *_marked(arguments)]


def _marked(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "cacl.cli", "profile", *arguments, "--ranges"]


def run(command: Sequence[str]) -> int:
    """Runs a profiler of NVIDIA.

    Args:
        command: What one of the functions above returned.

    Returns:
        Its exit code.

    Raises:
        UsageError: This process is one of several that torchrun started.
        CaclError: The profiler is not there.
    """
    tool = command[0]
    if "RANK" in os.environ:
        raise UsageError(f"{tool}: starts a single process; run it before torchrun, and give cacl profile --ranges")
    if shutil.which(tool) is None:
        raise CaclError(
            f"{tool}: no such program on PATH; it is part of NVIDIA's CUDA toolkit. cacl profile alone prints the "
            "command for a machine that has it"
        )
    return subprocess.run(command, check=False).returncode
