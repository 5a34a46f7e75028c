"""Training in one process or in many that torchrun starts: which rank this is, and what the ranks exchange.

With one process nothing is started, and every function returns at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cacl.errors import UsageError

T = TypeVar("T")

_past_groups: list[Any] = []
"""The groups that this process has been in. A network that is wrapped for data-parallel training refers to its group,
too. If that reference is the last one, the group ends while Python's global lock is held, and waits for gloo's threads,
of which one may wait for that lock to free a tensor (seen with torch 2.11). This list is freed without the lock."""


@contextmanager
def process_group(device: str) -> Iterator[torch.device]:
    """Joins the process group that torchrun announces in the environment, if it does, until the block ends.

    A block within another one stays in the group of the outer one.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:N`, as `train.device` has it.

    Yields:
        The device of this process.

    Raises:
        UsageError: There is no such device.
    """
    chosen = _device(device)
    if "RANK" not in os.environ or dist.is_initialized():
        yield chosen
        return
    # Not yet run on GPUs: what the ranks agree on goes over the CPU, so that no device is waited for.
    dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    _past_groups.append(dist.group.WORLD)
    try:
        yield chosen
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Returns the number of this process, from 0 to `world_size() - 1`."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Returns the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_world_size() -> int:
    """Returns the number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def barrier() -> None:
    """Waits until all ranks have come here."""
    if dist.is_initialized():
        dist.barrier()


@contextmanager
def main_first() -> Iterator[None]:
    """Lets rank 0 execute the block alone, and the other ranks after it, also if the block fails in rank 0."""
    if rank() > 0:
        barrier()
    try:
        yield
    finally:
        if rank() == 0:
            barrier()


def all_gather_numbers(*numbers: int) -> list[list[int]]:
    """Exchanges a few integers without waiting for any device.

    Args:
        numbers: The integers of this rank, as many on each rank.

    Returns:
        The integers of every rank, by rank.
    """
    return all_gather(torch.tensor([numbers])).tolist()


def all_gather_objects(x: T) -> list[T]:
    """Exchanges objects of any kind that can be pickled.

    Args:
        x: The object of this rank.

    Returns:
        The objects of all ranks, by rank.
    """
    if world_size() == 1:
        return [x]
    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, x)
    return parts


def all_gather(x: Tensor, counts: Sequence[int] | None = None) -> Tensor:
    """Concatenates the tensors of all ranks along the first dimension. No gradient flows through it.

    Args:
        x: The tensor of this rank.
        counts: The number of rows that each rank brings; None: all bring as many.

    Returns:
        The rows of rank 0, then those of rank 1, and so on, on every rank.
    """
    if world_size() == 1:
        return x
    counts = counts or [len(x)] * world_size()
    missing = max(counts) - len(x)
    padded = torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x.contiguous()
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def data_parallel(module: nn.Module, device: torch.device) -> nn.Module:
    """Wraps a module so that its backward pass averages the gradients over all ranks.

    Buffers are not broadcast before every forward pass: batch statistics are used by nobody but the rank that saves
    them, and whatever else a module keeps in buffers must change on all ranks alike.

    Args:
        module: The module, with the same weights on every rank.
        device: The device that it lies on.

    Returns:
        The wrapped module, or the module itself where there is one process.
    """
    if world_size() == 1:
        return module
    device_ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(module, device_ids=device_ids, broadcast_buffers=False)


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
