"""Writing files whole or not at all, reading what was written line by line, and telling whether a file has changed."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class FileStamp(NamedTuple):
    """What tells that a file is the same as before without reading it."""

    size: int
    """Bytes."""
    modified_ns: int
    """Modification time in nanoseconds."""

    @staticmethod
    def of(status: os.stat_result) -> FileStamp:
        """The stamp of a file from its status, as `os.stat` returns it."""
        return FileStamp(status.st_size, status.st_mtime_ns)


@contextmanager
def atomic_write(path: Path, *, concurrent: bool = False) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which takes its place when the block ends without an error.

    A reader, or a process that is killed now, finds the old file or the new one, and never a part of either. The
    temporary file has reached the disk before it is renamed, so that the same holds when the machine goes down.

    Args:
        path: The file to write. Its folder must exist.
        concurrent: Whether other processes may write the same file at the same time. Each then has a temporary file of
            its own, and the last one to finish wins. What a killed process leaves is not overwritten by the next one.

    Yields:
        The path to write to, in the same folder. After an error nothing is left there.

    Raises:
        OSError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.writing" if concurrent else f".{path.name}.writing")
    try:
        mode = _mode_of_new_file(temporary)
        yield temporary
        if stat.S_IMODE(temporary.stat().st_mode) != mode:  # safetensors makes files that only their owner may read.
            temporary.chmod(mode)
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _mode_of_new_file(path: Path) -> int:
    """Returns the permissions that a new file has there. Making one tells it without changing the umask."""
    path.unlink(missing_ok=True)
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    path.unlink()
    return mode


def lines_until(file: Path, step: int) -> list[str]:
    """Reads what a process that was cut off wrote up to some step into a file with one JSON object on each line.

    Args:
        file: The file. Its objects have a "step", which does not fall from line to line.
        step: The last step to read.

    Returns:
        The lines of the steps up to this one, with their ends. A line that was torn when the process was killed or the
        machine went down is not among them, nor what follows it.
    """
    kept = []
    with file.open() as lines:
        for line in lines:
            if not line.endswith("}\n") or json.loads(line)["step"] > step:
                break
            kept.append(line)
    return kept
