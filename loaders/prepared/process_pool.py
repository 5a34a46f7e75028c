"""Work on files in processes of their own: a file that crashes a decoder takes its process with it, and no other."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")


def map_unordered(
    work: Callable[[TaskT], ResultT], tasks: Iterable[TaskT], workers: int
) -> Generator[tuple[TaskT, ResultT | None], None, None]:
    """Works on tasks in processes of their own.

    A task whose process dies is tried again after all others and alone: others may have taken the memory it needed.
    Nothing is left running when the iteration ends, however it ends. Processes are spawned, so a script needs its
    `if __name__ == "__main__":`.

    Args:
        work: What is done with each task. Its result must not be None. What it raises ends everything, and is raised
            here.
        tasks: The tasks.
        workers: The number of processes that work at the same time.

    Yields:
        Every task with its result, in the order in which they are done. The result is None if the process that worked
        on the task died twice.
    """
    crashed: list[TaskT] = []
    for task, result in _map_once(work, tasks, workers):
        if result is None:
            crashed.append(task)
        else:
            yield task, result
    yield from _map_once(work, crashed, 1)


def _map_once(
    work: Callable[[TaskT], ResultT], tasks: Iterable[TaskT], workers: int
) -> Iterator[tuple[TaskT, ResultT | None]]:
    """Yields every task with its result, or with None if the process that worked on it died."""
    waiting = iter(tasks)
    idle: list[_WorkerProcess] = []
    busy: dict[Connection[Any, Any], tuple[_WorkerProcess, TaskT]] = {}
    try:
        while True:
            for task in islice(waiting, workers - len(busy)):
                worker = idle.pop() if idle else _WorkerProcess(work)
                busy[worker.connection] = (worker, task)
                with contextlib.suppress(BrokenPipeError):  # It died while idle: the end of the pipe is seen below.
                    worker.connection.send(task)
            if not busy:
                return
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                worker, task = busy[connection]
                try:
                    result = connection.recv()
                except (EOFError, ConnectionResetError):
                    result = None
                if isinstance(result, Exception):
                    raise result
                del busy[connection]
                if result is None:
                    worker.kill()
                else:
                    idle.append(worker)
                yield task, result
    finally:
        for worker in [*idle, *(worker for worker, _ in busy.values())]:
            worker.kill()


class _WorkerProcess:
    """A process that answers each task it is sent."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_run_worker, args=(work, theirs), daemon=True)
        # Ctrl-C reaches every process of a terminal; the one that started the others ends them.
        resource_tracker.ensure_running()  # It would undo the mask when it starts along with the first process.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _run_worker(work: Callable[[Any], Any], connection: Connection[Any, Any]) -> None:
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            result = work(task)
        except Exception as error:
            error.add_note(f"in a worker process, on {task}:\n{traceback.format_exc()}")
            result = error
        connection.send(result)


def _exit_with_parent() -> None:
    """Ends this process with its parent: a worker that outlived it could still write where another run has begun to."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
