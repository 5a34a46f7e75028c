"""Groups of real processes that find each other as those of torchrun do, and leave what they return in files.

A test file that is run as a script imports torch once and forks: `main` runs all of its launches, `launched` starts it
from a fixture, and `left_by` is for its tests.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch

Launches: TypeAlias = Mapping[str, tuple[int, Callable[[Path], Any]]]
"""By name: how many processes, and what each of them does with the folder of the tests."""
ROOT = Path(__file__).parents[1]


PATIENT = pytest.mark.timeout(900)
"""Seconds, for tests that wait for launches; two idle cores take twenty. It is for ranks that wait for ever."""


def launched(script: str, folder: Path) -> None:
    """Returns when all launches have ended; if the test ends before, because its time is up, they are killed."""
    environment = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = str(ROOT)  # for what the test files share
    process = subprocess.Popen(
        [sys.executable, script, str(folder)], env=os.environ | environment, start_new_session=True
    )
    try:
        assert process.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def main(launches: Launches, folder: Path) -> None:
    """All launches, one after the other. What fails is seen by the tests, which miss its files."""
    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    for name, (world, does) in launches.items():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        ranks = [context.Process(target=_rank, args=(name, does, rank, world, port, folder)) for rank in range(world)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()


def _rank(name: str, does: Callable[[Path], Any], rank: int, world: int, port: int, folder: Path) -> None:
    """One process of a launch, in the environment that torchrun gives."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for number, kind in ((1, "out"), (2, "err")):
        file = os.open(folder / f"{name}.{rank}.{kind}", os.O_CREAT | os.O_WRONLY)
        os.dup2(file, number)
    torch.save(does(folder), folder / f"{name}.{rank}.pt")


def left_by(launches: Launches, name: str, folder: Path) -> list[Any]:
    """What each rank of a launch returned."""
    results = []
    for rank in range(launches[name][0]):
        file = folder / f"{name}.{rank}.pt"
        assert file.exists(), f"rank {rank} ended early: {(folder / f'{name}.{rank}.err').read_text()[-3000:]}"
        results.append(torch.load(file))
    return results
