"""One process or many (started by torchrun): who am I, and exchange of tensors. With one process nothing is started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from cacl.errors import UsageError


@contextmanager
def process_group(device: str) -> Iterator[torch.device]:
    """Joins the group that torchrun announces in the environment, and yields the device of this process."""
    chosen = _device(device)
    if "RANK" not in os.environ:
        yield chosen
        return
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield chosen
    finally:
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def local_world() -> int:
    """Processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


@contextmanager
def main_first() -> Iterator[None]:
    """The first process does what is inside alone, the others after it, also if it fails there."""
    if rank() > 0:
        barrier()
    try:
        yield
    finally:
        if rank() == 0:
            barrier()


def agreed(number: int, device: torch.device) -> int:
    """The largest of the numbers that the ranks bring. With several ranks on a GPU this waits for the device."""
    if world() == 1:
        return number
    value = torch.tensor(number, device=device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return int(value)


def gather(x: Tensor) -> Tensor:
    """Concatenates the tensors of all ranks, which have the same shape, along the first dimension. No gradient."""
    if world() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(world())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError(f"train.device = {name!r}: say auto, cpu or cuda")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError(
                f"train.device = {name!r}: no CUDA device is visible; train.device = auto takes what is there"
            )
        if device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    return device
