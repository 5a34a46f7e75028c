"""Processes that are forked from a server, which has imported what takes a new interpreter six seconds.

Each is a process like any other, with an environment, a working directory, signals and memory of its own. What Python
and its libraries read of the environment as they start is that of the server, though: a test of that starts an
interpreter.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from multiprocessing import forkserver, reduction
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

IMPORTED = (
    "cacl.ablation.runs",
    "cacl.evaluation.finetuned",
    "cacl.evaluation.recognition",
    "cacl.evaluation.retrieval",
    "cacl.loaders.backends.yuv_to_rgb_resize",
    "cacl.training.finetuning",
    "cacl.training.trainer",
    "tests.compiled_code",
    "torch.utils.tensorboard",
)
"""The modules that the server imports, with all that they need."""
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(list(IMPORTED))
ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # where the processes find this file


def start(
    program: Callable[..., object],
    *arguments: object,
    environment: Mapping[str, str],
    stdout: int = 1,
    stderr: int = 2,
) -> BaseProcess:
    """Starts a process that calls a function of a module, with one thread of torch.

    Args:
        program: The function.
        arguments: Its arguments.
        environment: All variables of the process.
        stdout: The file descriptor that the process has as its own.
        stderr: Likewise.
    """
    with contextlib.chdir(ROOT):  # where the server, which starts with the first process, finds the tests
        forkserver.ensure_running()
    arguments = (program, arguments, dict(environment), _Sent(stdout), _Sent(stderr))
    process = SERVER.Process(target=_run, args=arguments)
    process.start()
    return process


class _Sent:
    """A file descriptor on its way to another process, which receives a number of its own."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Callable[..., int], tuple[object]]:
        return _received, (reduction.DupFd(self.number),)


def _received(duplicate: Any) -> int:
    return duplicate.detach()


def _run(
    program: Callable[..., object], arguments: tuple[object, ...], environment: dict[str, str], stdout: int, stderr: int
) -> None:
    for number, file in ((1, stdout), (2, stderr)):
        os.dup2(file, number)
        os.close(file)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    program(*arguments)


def cacl(*arguments: str) -> None:
    """Is the command `cacl`."""
    from cacl.cli import main

    sys.argv = ["cacl", *arguments]
    main()


def script(path: str, *arguments: str) -> None:
    """Is the script at this path."""
    sys.argv = [path, *arguments]
    runpy.run_path(path, run_name="__main__")


def module(name: str, *arguments: str) -> None:
    """Is `python -m` with this module."""
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__")


def run(
    program: Callable[..., object],
    *arguments: object,
    environment: Mapping[str, str],
    send: signal.Signals | None = None,
    when: Callable[[str], bool] = bool,
) -> subprocess.CompletedProcess[str]:
    """Waits for a process that calls a function of a module, such as `cacl`.

    Args:
        program: The function.
        arguments: Its arguments, which become strings.
        environment: All variables of the process.
        send: A signal that the process gets when it has written a certain line to stderr. It cannot run far ahead: the
            pipe that is read holds 4 KiB.
        when: Tells which line that is.
    """
    command = [str(argument) for argument in arguments]
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    with tempfile.TemporaryFile() as stdout, open(reader, "rb", buffering=0) as pipe:
        process = start(program, *command, environment=environment, stdout=stdout.fileno(), stderr=writer)
        os.close(writer)
        try:
            stderr = _signalled(process, pipe, send, when) if send else b""
            stderr += pipe.read()
            process.join()
        finally:
            process.kill()  # if the time of the test is up
        assert process.exitcode is not None
        stdout.seek(0)
        written = stdout.read().decode(), stderr.decode()
        return subprocess.CompletedProcess(command, process.exitcode, *written)


def _signalled(process: BaseProcess, pipe: io.FileIO, send: signal.Signals, when: Callable[[str], bool]) -> bytes:
    """Sends the signal at the line, and returns what was read up to it."""
    seen = b""
    for line in pipe:
        seen += line
        if when(line.decode()):
            assert process.pid is not None
            os.kill(process.pid, send)
            break
    return seen
