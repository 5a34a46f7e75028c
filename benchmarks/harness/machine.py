"""What a benchmark ran on, and the processor time that it took."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import active_children
from pathlib import Path
from typing import Any, NamedTuple


class Usage(NamedTuple):
    """What this process and its worker processes have used since they started."""

    processor_seconds: float
    bytes_read: int
    """Bytes that system calls read, from the page cache or not."""

    def since(self, earlier: Usage) -> Usage:
        """What was used between an earlier time and this one."""
        return Usage(self.processor_seconds - earlier.processor_seconds, self.bytes_read - earlier.bytes_read)


def usage() -> Usage | None:
    """What was used until now; None where the system does not tell, since there is no /proc."""
    ticks = read = 0
    try:
        for process in ("self", *(worker.pid for worker in active_children())):
            folder = Path("/proc") / str(process)
            user, system = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
            ticks += int(user) + int(system)
            read += int((folder / "io").read_text().split()[1])
    except OSError:
        return None
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), read)


def describe(packages: Sequence[str]) -> dict[str, Any]:
    """Describes the processor, the versions and the commit, without anything that names the machine.

    Args:
        packages: The packages whose versions are told, if they are installed.
    """
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: found for name in packages if (found := _version(name))},
        "commit": _commit(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the repository that this file belongs to; None for an installed copy."""
    here = Path(__file__)
    try:
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        return _git(here.parent, "describe", "--always", "--dirty", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
