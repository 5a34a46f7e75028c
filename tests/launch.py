"""Groups of real processes that find each other as those of torchrun do, and leave what they return in files.

A test file is run as a script, which forks. `run_script` starts it from a fixture, `main` runs all of its launches
there, and `results_of` reads what they returned.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch

from tests import forked

Launches: TypeAlias = Mapping[str, tuple[int, Callable[[Path], Any]]]
"""The launches by name: the number of processes, and the function that each calls with the folder of the tests."""
ROOT = Path(__file__).parents[1]
"""The root of the repository."""


def run_script(script: str, folder: Path) -> None:
    """Runs all launches of a test file. If the test ends before, because its time is up, they are killed."""
    environment = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    process = forked.start(_run_alone, script, str(folder), environment=os.environ | environment)
    assert process.pid is not None
    try:
        process.join()
        assert process.exitcode == 0
    finally:
        process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _run_alone(script: str, folder: str) -> None:
    """Runs a script in a process group of its own."""
    os.setsid()
    forked.script(script, folder)


def main(launches: Launches, folder: Path) -> None:
    """Runs all launches, one after the other. The tests notice what fails, since its files are missing."""
    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    for name, (world_size, work) in launches.items():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        ranks = [
            context.Process(target=_rank, args=(name, work, rank, world_size, port, folder))
            for rank in range(world_size)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()


def _rank(name: str, work: Callable[[Path], Any], rank: int, world_size: int, port: int, folder: Path) -> None:
    """Is one process of a launch, in the environment that torchrun gives."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world_size)}
    os.environ |= {"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(world_size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for number, kind in ((1, "out"), (2, "err")):
        file = os.open(folder / f"{name}.{rank}.{kind}", os.O_CREAT | os.O_WRONLY)
        os.dup2(file, number)
    torch.save(work(folder), folder / f"{name}.{rank}.pt")


def results_of(launches: Launches, name: str, folder: Path) -> list[Any]:
    """Reads what each rank of a launch returned."""
    results = []
    for rank in range(launches[name][0]):
        file = folder / f"{name}.{rank}.pt"
        assert file.exists(), f"rank {rank} ended early: {(folder / f'{name}.{rank}.err').read_text()[-3000:]}"
        results.append(torch.load(file))
    return results
