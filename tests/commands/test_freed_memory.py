"""Commands keep the memory that they free: large tensors of the next step lie in the pages of those of the last one."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")

PROGRAM = """
import contextlib, resource, sys
from cacl import cli
sys.argv = ["cacl", "--version"]
if sys.stdin.read() == "command":
    with contextlib.suppress(SystemExit):
        cli.main()
import torch
for _ in range(12):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    large = [torch.ones(MEGABYTES << 18) for _ in range(3)]
    del large
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""Prints how many pages the system had to bring in each of twelve rounds, each of which holds three large tensors."""

MEGABYTES = 40
"""The size of a tensor: more than the 32 MiB up to which glibc keeps blocks by itself."""

PAGES = 3 * (MEGABYTES << 20) // os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
"""The pages that the tensors of a round fill."""


def new_pages(said: str, **environment: str) -> list[int]:
    """Returns the new pages of each round, in a process that is told `said`, under these environment variables."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("MEGABYTES", str(MEGABYTES))],
        env=inherited | environment,
        input=said,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return [int(line) for line in process.stdout.split() if line.isdigit()]


def test_a_command_uses_its_pages_again() -> None:
    pages = new_pages("command")
    assert pages[0] > PAGES * 0.9
    assert max(pages[8:]) < PAGES * 0.01  # in the rounds before, small blocks come to lie in what became free


def test_without_one_and_with_settings_of_ones_own_glibc_does_as_it_likes() -> None:
    assert min(new_pages("nothing")) > PAGES * 0.9
    assert min(new_pages("command", MALLOC_TRIM_THRESHOLD_="131072")) > PAGES * 0.9
