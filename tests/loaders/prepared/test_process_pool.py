"""Tasks in processes that die, raise, and are given up; `eval` stands for the work, since processes can import it."""

import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cacl.loaders.prepared.process_pool import map_unordered

DIE = "__import__('os').kill(__import__('os').getpid(), 9)"


def running(process: int) -> bool:
    """Returns whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_results_come_with_their_tasks() -> None:
    tasks = [f"{number} + 1" for number in range(20)]
    assert dict(map_unordered(eval, tasks, 2)) == {task: eval(task) for task in tasks}
    assert list(map_unordered(eval, [], 2)) == []
    assert not multiprocessing.active_children()


def test_a_task_that_kills_its_process_takes_no_other_along() -> None:
    tasks = ["1", DIE, "2", "3", DIE + " or 4", "5"]
    results = dict(map_unordered(eval, tasks, 2))
    assert results == {"1": 1, "2": 2, "3": 3, "5": 5, DIE: None, DIE + " or 4": None}


def test_a_process_that_dies_once_is_forgiven(tmp_path: Path) -> None:
    """The first worker that opens the file exclusively dies, and leaves nothing but the file."""
    flag = tmp_path / "flag"
    task = f"open({str(flag)!r}, 'x') and {DIE} if not __import__('os').path.exists({str(flag)!r}) else 'alive'"
    assert list(map_unordered(eval, [task, "1"], 1)) == [("1", 1), (task, "alive")]


def test_what_the_work_raises_is_raised_here() -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        list(map_unordered(eval, ["1", "1 / 0", "__import__('time').sleep(60)"], 2))
    (note,) = raised.value.__notes__
    assert note.startswith("in a worker process, on 1 / 0:\nTraceback")
    assert not multiprocessing.active_children()


def test_nothing_is_left_running_when_it_is_given_up() -> None:
    results = map_unordered(eval, ["1", *["__import__('time').sleep(60)"] * 3], 3)
    assert next(results) == ("1", 1)
    assert multiprocessing.active_children()
    results.close()
    assert not multiprocessing.active_children()


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from cacl.loaders.prepared.process_pool import map_unordered\n"
        "if __name__ == '__main__':\n"
        "    tasks = [\"__import__('os').getpid()\", \"__import__('time').sleep(60)\"]\n"
        "    for _, process in map_unordered(eval, tasks, 1):\n"
        "        print(process, flush=True)\n"
    )
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert running(worker)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while running(worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not running(worker)


CTRL_C = """
import os, signal
from cacl.loaders.prepared.process_pool import map_unordered
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Whoever runs the tests may have it ignored.
    process = "__import__('os').getpid()"
    results = map_unordered(eval, [process, f"{process} + 0"], 1)
    _, worker = next(results)
    os.kill(worker, signal.SIGINT)
    print([again == worker for _, again in results], signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""


def test_ctrl_c_is_for_the_process_that_started_them(tmp_path: Path) -> None:
    """A worker that is told to stop goes on: otherwise another one would take its place, and the task again. The script
    shows it for the first worker of a process, with which multiprocessing starts a process of its own."""
    (tmp_path / "script.py").write_text(CTRL_C)
    finished = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, check=True)
    assert (finished.stdout, finished.stderr) == ("[True] False\n", "")
