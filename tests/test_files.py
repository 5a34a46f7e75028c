"""Files appear whole or not at all, also when their writer is killed."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cacl.files import FileStamp, atomic_write, lines_until


def test_the_new_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    with atomic_write(file) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_who_may_read_a_file_is_up_to_the_umask(tmp_path: Path, umask: int) -> None:
    file, before = tmp_path / "file.safetensors", os.umask(umask)
    try:
        with atomic_write(file) as temporary:
            save_file({"x": np.zeros(2)}, temporary)  # It replaces the file by one that only its owner may read.
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask
    assert load_file(file)["x"].tolist() == [0, 0]


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(file) as temporary:  # noqa: PT012
        temporary.write_text("new")
        raise ZeroDivisionError
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    code = (
        "import os, signal, sys; from pathlib import Path; from cacl.files import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('new')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert file.read_text() == "old"


def test_concurrent_writers_do_not_meet(tmp_path: Path) -> None:
    file = tmp_path / "file"
    code = (
        "import sys; from pathlib import Path; from cacl.files import atomic_write\n"
        "with atomic_write(Path(sys.argv[1]), concurrent=True) as temporary:\n"
        "    temporary.write_text('theirs')\n"
    )
    with atomic_write(file, concurrent=True) as temporary:
        temporary.write_text("ours")
        subprocess.run([sys.executable, "-c", code, str(file)], timeout=60, check=True)
        assert file.read_text() == "theirs"
    assert file.read_text() == "ours"
    assert os.listdir(tmp_path) == ["file"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "file"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_stamp_changes_with_size_and_time(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("a")
    os.utime(file, ns=(0, 1))
    first = FileStamp.of(file.stat())
    assert first == (1, 1)
    os.utime(file, ns=(0, 2))
    assert FileStamp.of(file.stat()) == (1, 2)
    file.write_text("ab")
    assert FileStamp.of(file.stat()).size == 2


@pytest.mark.parametrize("torn", ["", '{"step": 3', '{"step": 3}', "\0\0\0"])
def test_lines_are_read_up_to_a_step_or_to_a_torn_one(tmp_path: Path, torn: str) -> None:
    file, lines = tmp_path / "file", ['{"step": 1}\n', '{"step": 3, "more": {}}\n', '{"step": 3}\n']
    file.write_text("".join(lines) + torn)
    assert [lines_until(file, step) for step in range(5)] == [[], lines[:1], lines[:1], lines, lines]
