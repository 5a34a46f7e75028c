"""One process or many (started by torchrun): who am I, and exchange of tensors. With one process nothing is started."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from cacl.errors import UsageError

T = TypeVar("T")

_groups: list[Any] = []
"""Groups that this process has been in. What wraps a network for data parallel training refers to its group, too. If
that is the last one, the group ends while Python's global lock is held, and waits for gloo's threads, of which one
may wait for that lock, to free a tensor (seen with torch 2.11). This reference is let go of without the lock."""


@contextmanager
def process_group(device: str) -> Iterator[torch.device]:
    """Joins the group that torchrun announces in the environment, and yields the device of this process."""
    chosen = _device(device)
    if "RANK" not in os.environ:
        yield chosen
        return
    # Not yet run on GPUs: what the ranks agree on goes over the CPU, so that no device is waited for.
    dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    _groups.append(dist.group.WORLD)
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


def exchange(*numbers: int) -> list[list[int]]:
    """The numbers of every rank, by rank. No device is waited for."""
    return gather(torch.tensor([numbers])).tolist()


def gather_objects(x: T) -> list[T]:
    """What every rank brings, by rank; anything that can be pickled."""
    if world() == 1:
        return [x]
    parts: list[Any] = [None] * world()
    dist.all_gather_object(parts, x)
    return parts


def gather(x: Tensor, counts: Sequence[int] | None = None) -> Tensor:
    """Concatenates the tensors of all ranks along the first dimension, in which rank r has counts[r] rows.

    Without counts, all have the same shape. No gradient.
    """
    if world() == 1:
        return x
    counts = counts or [len(x)] * world()
    missing = max(counts) - len(x)
    padded = torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x.contiguous()
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


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
