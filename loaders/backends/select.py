"""Chooses and builds the backend that turns plans into batches."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch

from cacl.clips import ClipBatch, ClipPlan
from cacl.config import Config, LoaderConfig
from cacl.errors import ConfigError
from cacl.loaders.backends import dali
from cacl.loaders.catalog.catalog import Catalog
from cacl.registry import BACKENDS

MIN_REMOTE_THREADS = 16
"""The least number of threads that load a remote set: they wait for the server more than they compute."""


class Backend(Protocol):
    """What turns plans into batches."""

    def batches(self, plans: Iterable[Sequence[ClipPlan]]) -> Iterator[ClipBatch]:
        """Loads one batch for each sequence of plans.

        Args:
            plans: The plans of each batch. They may be endless.

        Yields:
            The batches in the order of their plans, with the clips that load and the failures of the others.
        """
        ...


class Choice(NamedTuple):
    """Which backend was chosen."""

    name: str
    """The name of the backend, as `build_backend` takes it."""
    reason: str
    """Why it was chosen, in words."""


def choose_backend(config: LoaderConfig, device: torch.device) -> Choice | None:
    """Says what `auto` stands for on this machine, as far as this can be told without trying.

    Args:
        config: The backend that is asked for.
        device: Where the encoders are trained.

    Returns:
        The backend and why it was chosen. None: both `dali` and `cpu` run here, and `trial` tells which is right and
        faster.

    Raises:
        ConfigError: A backend that was asked for by name cannot run here.
    """
    unavailable_reason = dali.unavailable_reason(device)
    if config.backend == "dali" and unavailable_reason:
        raise ConfigError(
            f'loader.backend = "dali" cannot run here: {unavailable_reason}; "cpu" needs nothing but a CPU'
        )
    if config.backend != "auto":
        return Choice(config.backend, "as configured")
    if device.type == "cuda" and not unavailable_reason:
        return None
    return Choice("cpu", f"decoding and augmenting on the CPU ({unavailable_reason or 'the encoders are there, too'})")


def build_backend(name: str, catalog: Catalog, config: Config, device: torch.device, processes: int = 1) -> Backend:
    """Builds a backend for the videos of a catalog.

    Args:
        name: A name in `cacl.registry.BACKENDS`.
        catalog: The videos.
        config: The size of a view, and how much is done at once. Of `loader.threads`, 0 shares the cores.
        device: Where `dali` makes the views. The others make them on the CPU.
        processes: The number of processes that share the cores of this machine.

    Returns:
        The backend.

    Raises:
        ConfigError: The backend cannot run here.
    """
    cores = max(1, (os.cpu_count() or 1) // processes)
    threads = config.loader.threads or (max(cores, MIN_REMOTE_THREADS) if catalog.is_remote else cores)
    return BACKENDS.load(name)(catalog, config, device, threads)
