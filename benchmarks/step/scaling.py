"""Our step on several processes: as many clips for each of them, whatever their number.

    python -m cacl.benchmarks.step.scaling CONFIG.toml SECONDS.json REPEATS [MODULE]...

is one of the processes. They find each other as those of torchrun do: by gloo on a CPU, and by NCCL on GPUs.
"""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from cacl import config as configuration
from cacl import distributed
from cacl.benchmarks.harness import timing
from cacl.benchmarks.harness.stats import Spread
from cacl.benchmarks.step.contenders import contenders
from cacl.config import Config
from cacl.errors import CaclError, UsageError
from cacl.registry import import_plugin


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """What some number of processes do together."""

    ranks: int
    """The number of processes."""
    threads: int
    """The threads that each of them has on the CPU."""
    seconds: Spread
    """Seconds of one step, over the repeats."""
    each_seconds: tuple[float, ...]
    clips_per_second: float
    """Clips of all processes over the median of the seconds."""
    efficiency: float
    """Clips per second of each process, relative to those of a process of the first number that was measured."""


def parse_ranks(text: str) -> tuple[int, ...]:
    """Reads numbers of processes, such as `1,2,4`; an empty string has none.

    Raises:
        UsageError: They are no numbers above 0, or one is there twice.
    """
    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(part.isdecimal() and int(part) > 0 for part in parts) or len(set(parts)) < len(parts):
        raise UsageError(f"--ranks {text}: give numbers of processes, each once, such as 1,2,4")
    return tuple(map(int, parts))


def measure_scaling(
    config: Config, device: torch.device, ranks: int, repeats: int, modules: Sequence[str], first: Scaling | None
) -> Scaling:
    """Starts processes that train together, and times their steps.

    Args:
        config: The configuration, whose batch is that of each process.
        device: The kind of device that they train on.
        ranks: The number of processes.
        repeats: Measurements.
        modules: The modules that register what the configuration names.
        first: What was measured first, which efficiency is relative to; None: this is it.

    Raises:
        UsageError: There are fewer GPUs than processes.
        CaclError: One of the processes failed.
    """
    if device.type == "cuda" and torch.cuda.device_count() < ranks:
        raise UsageError(f"--ranks {ranks}: there are {torch.cuda.device_count()} GPUs; give at most as many")
    threads = max(1, torch.get_num_threads() // ranks)
    with tempfile.TemporaryDirectory() as folder:
        settings, result = Path(folder) / "config.toml", Path(folder) / "seconds.json"
        settings.write_text(configuration.to_toml(replace(config, train=replace(config.train, device=device.type))))
        arguments = [str(settings), str(result), str(repeats), *modules]
        _run_together([sys.executable, "-m", __name__, *arguments], ranks, threads)
        each: list[float] = json.loads(result.read_text())
    spread = Spread.of(each)
    clips_per_second = ranks * config.train.batch_size / spread.median
    alone = first.clips_per_second / first.ranks if first else clips_per_second / ranks
    return Scaling(
        ranks=ranks,
        threads=threads,
        seconds=spread,
        each_seconds=tuple(each),
        clips_per_second=clips_per_second,
        efficiency=clips_per_second / ranks / alone,
    )


def _run_together(command: Sequence[str], ranks: int, threads: int) -> None:
    """Runs one process for each rank, and waits until all of them have ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    group = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with ExitStack() as ending:
        processes = []
        for rank in range(ranks):
            own = group | {"RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": threads}
            variables = os.environ | {name: str(value) for name, value in own.items()}
            process = subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True)
            ending.callback(process.kill)
            processes.append(process)
        for rank, process in enumerate(processes):
            said = process.communicate()[1].strip().splitlines()
            if process.returncode:
                why = said[-1] if said else f"exit code {process.returncode}"
                raise CaclError(f"--ranks {ranks}: process {rank} failed ({why})")


def main(settings: str, result: str, repeats: str, *modules: str) -> None:
    """Is one of the processes, whose rank stands in the environment."""
    for module in modules:
        import_plugin(module)
    config = configuration.load(settings)
    with distributed.process_group(config.train.device) as device:
        steps = contenders(config, compile=False)[0].prepare(config, device)
        taken = 0

        def seconds_of(count: int) -> float:
            """Seconds until all processes have taken some steps, by the slowest of them."""
            nonlocal taken
            distributed.barrier()
            timing.synchronize(device)
            start = time.perf_counter()
            for _ in range(count):
                steps.take(taken)
                taken += 1
            timing.synchronize(device)
            return max(distributed.all_gather_objects(time.perf_counter() - start))

        seconds_of(1)
        count = math.ceil(timing.MEASUREMENT_SECONDS / seconds_of(1))
        each = [seconds_of(count) / count for _ in range(int(repeats))]
        if distributed.rank() == 0:
            Path(result).write_text(json.dumps(each))


if __name__ == "__main__":
    main(*sys.argv[1:])
