"""Chooses and builds the backend that turns plans into batches."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from cacl.clips import ClipBatch, ClipPlan
from cacl.config import Config, LoaderConfig
from cacl.errors import ConfigError
from cacl.loaders.backends import cpu, dali, reference
from cacl.loaders.backends.thread_pool import ThreadPoolBackend
from cacl.loaders.catalog.catalog import Catalog

REMOTE_READS = 16
"""Clips of a remote set that are fetched at once: its threads wait more than they compute."""


class Backend(Protocol):
    def batches(self, plans: Iterable[Sequence[ClipPlan]]) -> Iterator[ClipBatch]:
        """One batch for each sequence of plans, in order, with the clips that load and the failures of the others."""
        ...


class Choice(NamedTuple):
    name: str
    reason: str


def choose_backend(config: LoaderConfig, device: torch.device) -> Choice:
    """What `auto` stands for on this machine, and why. Raises ConfigError if a backend asked for by name cannot run."""
    unavailable_reason = dali.unavailable_reason(device)
    if config.backend == "dali" and unavailable_reason:
        raise ConfigError(
            f'loader.backend = "dali" cannot run here: {unavailable_reason}; "cpu" needs nothing but a CPU'
        )
    if config.backend != "auto":
        return Choice(config.backend, "as configured")
    if device.type == "cuda" and not unavailable_reason:
        # Its GPU branch has been tested only through its CPU twin; until it has run on a GPU, it must be asked for.
        return Choice("cpu", 'the GPU branch of "dali" is not yet verified on a GPU, ask for it by name')
    return Choice("cpu", f"decoding and augmenting on the CPU ({unavailable_reason or 'training on the CPU'})")


def build_backend(name: str, catalog: Catalog, config: Config, device: torch.device, processes: int = 1) -> Backend:
    """The backend of this name for the videos of a catalog. processes: how many share the cores of this machine."""
    size, prefetch = config.clip.size, config.loader.prefetch
    cores = max(1, (os.cpu_count() or 1) // processes)
    threads = config.loader.threads or (cores if isinstance(catalog.root, Path) else max(cores, REMOTE_READS))
    if name == "dali":
        pipelines, views = config.loader.dali_pipelines, config.loader.dali_views
        return dali.DaliBackend(
            catalog, size=size, threads=threads, prefetch=prefetch, pipelines=pipelines, device=device, views=views
        )
    load_clip = {"cpu": cpu.load_clip, "reference": reference.load_clip}[name]
    return ThreadPoolBackend(load_clip, catalog, size=size, threads=threads, prefetch=prefetch)
