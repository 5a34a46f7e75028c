"""Forked processes are processes of their own, and have imported what they need."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from tests import forked


def what_it_is() -> None:
    print(os.getpid(), os.getppid(), os.getcwd(), torch.get_num_threads())
    print(*sorted(os.environ))
    print(*(name for name in forked.IMPORTED if name not in sys.modules), file=sys.stderr)


def waits() -> None:
    print("ready", file=sys.stderr)
    time.sleep(600)


def fails() -> None:
    raise ValueError("of its own")


def test_it_has_what_it_is_given_and_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = forked.run(what_it_is, environment={"ONE": "1"})
    (own, parent, folder, threads), names = (line.split() for line in done.stdout.splitlines())
    assert os.getpid() not in (int(own), int(parent))
    assert (folder, threads, names, done.returncode) == (str(tmp_path), "1", ["ONE"], 0)
    assert done.stderr == "\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_signal_ends_it(number: signal.Signals) -> None:
    done = forked.run(waits, environment={}, send=number, when="ready\n".__eq__)
    assert (done.returncode, done.stdout, done.stderr) == (-number, "", "ready\n")


def test_an_interrupt_and_an_error_are_those_of_python() -> None:
    stopped = forked.run(waits, environment={}, send=signal.SIGINT)
    assert stopped.stderr.splitlines()[-1] == "KeyboardInterrupt"
    failed = forked.run(fails, environment={})
    assert (failed.returncode, failed.stderr.splitlines()[-1]) == (1, "ValueError: of its own")
