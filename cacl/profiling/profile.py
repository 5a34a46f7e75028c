"""`cacl profile`: trains up to the last step that is recorded, and tells where its time went."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cacl import config as configuration
from cacl import distributed
from cacl.checkpoints.checkpoint import CHECKPOINT_NAME
from cacl.config import Config
from cacl.errors import ConfigError, UsageError
from cacl.files import atomic_write
from cacl.profiling.recording import cuda_capture_range, memory_history, recorded_steps, trace_of_torch
from cacl.profiling.stage_times import StageTable, read_stage_table
from cacl.reporting.console import Console
from cacl.reporting.scalars import ScalarLog
from cacl.training.checkpointer import Checkpointer
from cacl.training.choose_config import choose_config
from cacl.training.failure_log import FailureLog
from cacl.training.trainer import fit, set_up


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What was recorded."""

    steps: tuple[int, int]
    """How many steps were taken before the first one that was recorded, and how many up to the last one."""
    device: str
    tables: dict[int, StageTable]
    """The stages by the number of the process."""
    files: tuple[str, ...]
    """The names of the files that lie in the folder now."""

    def check(self) -> None:
        """Tells whether the stages of each process account for its steps.

        Raises:
            StageCoverageError: They do not.
        """
        for table in self.tables.values():
            table.check()

    def to_json(self) -> dict[str, Any]:
        """The result for programs."""
        return asdict(self)


def profile(
    config: Config, out: Path, *, given: Collection[str] | None = None, for_nsight: bool = False
) -> Profile | None:
    """Trains up to the last step of `profile.steps`, and records the steps that it names. No run is touched.

    Args:
        config: The configuration of a training, whose run folder is left alone.
        out: The folder for what is recorded, which exists.
        given: As for `train`: the keys that stay as they are, while others are chosen.
        for_nsight: Whether to only mark the steps for a profiler of NVIDIA that this process runs under.

    Returns:
        What was recorded; None where Nsight records.

    Raises:
        CaclError: Something went wrong that a user can mend. The message is one line.
    """
    if (out / CHECKPOINT_NAME).exists():
        raise UsageError(f"--out {out}: holds a run, which a profile must not touch; name another folder")
    with (
        distributed.process_group(config.train.device) as device,
        Console(enabled=distributed.rank() == 0) as console,
        tempfile.TemporaryDirectory() as run,
    ):
        _check(config, device, for_nsight=for_nsight)
        config = config if given is None else choose_config(config, given, device, console)
        table = _record(replace(config, run=run), out, device, console, for_nsight=for_nsight)
        tables = distributed.all_gather_objects(table)
        files = [name for rank in config.profile.ranks for name in _file_names(rank) if (out / name).exists()]
        result = Profile(
            steps=config.profile.steps,
            device=device.type if device.type == "cpu" else torch.cuda.get_device_name(device),
            tables={rank: table for rank, table in enumerate(tables) if table},
            files=("config.toml", "stages.json", *files),
        )
        if distributed.rank() == 0 and not for_nsight:
            (out / "config.toml").write_text(configuration.to_toml(config))
            with atomic_write(out / "stages.json") as temporary:
                temporary.write_text(json.dumps(result.to_json(), indent=2) + "\n")
    return None if for_nsight else result


def _record(
    config: Config, out: Path, device: torch.device, console: Console, *, for_nsight: bool
) -> StageTable | None:
    """Trains, and returns the stages of this process if it is one of those that are recorded."""
    first, last = config.profile.steps
    quiet = replace(config.train, checkpoint_every=last + 1, loggers=())
    state, loader = set_up(replace(config, train=quiet), device, console)
    if state.num_steps < last:
        raise ConfigError(
            f"profile.steps = [{first}, {last}]: the training has only {state.num_steps} steps; set smaller ones, or "
            "train.epochs higher"
        )
    is_recorded = distributed.rank() in config.profile.ranks
    trace, memory = (out / name for name in _file_names(distributed.rank()))
    recording = nullcontext()
    if is_recorded:
        recording = cuda_capture_range() if for_nsight else trace_of_torch(device, trace)
    history = memory_history(device, memory) if is_recorded and not for_nsight else nullcontext()
    writes = distributed.rank() == 0
    with history, ScalarLog(state.config, console, first_step=0, steps=last) as scalar_log:
        fit(
            state,
            loader.steps(0, last),
            Checkpointer(state.config, loader.catalog.fingerprint),
            FailureLog(loader.catalog, state.config, 0, writes=writes),
            scalar_log,
            watch=partial(recorded_steps, first=first, last=last, recording=recording),
        )
    return read_stage_table(trace) if is_recorded and not for_nsight else None


def _file_names(rank: int) -> tuple[str, str]:
    """The names of the trace and of the memory history of a process."""
    suffix = f".rank{rank}" if distributed.world_size() > 1 else ""
    return f"trace{suffix}.json.gz", f"memory{suffix}.pickle"


def _check(config: Config, device: torch.device, *, for_nsight: bool) -> None:
    world_size = distributed.world_size()
    if missing := [rank for rank in config.profile.ranks if rank >= world_size]:
        raise ConfigError(
            f"profile.ranks = {list(config.profile.ranks)}: there is no process {missing[0]}; they are numbered from 0 "
            f"to {world_size - 1}"
        )
    if for_nsight and device.type != "cuda":
        raise UsageError(
            f"--ranges: Nsight records CUDA, and this trains on {device.type}; without it, torch.profiler records any "
            "device"
        )
