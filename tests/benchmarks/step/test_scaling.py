"""Several processes of the step benchmark: how they are started, and what is said when one fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cacl.benchmarks.step.scaling import _run_together
from cacl.errors import CaclError

WRITE = """
import os, sys
with open(sys.argv[1] + "/" + os.environ["RANK"], "w") as file:
    file.write(" ".join(os.environ[name] for name in sys.argv[2:]))
"""
FAIL = "import os, sys; sys.exit('out of luck' if os.environ['RANK'] == '1' else 0)"


def test_processes_find_each_other_as_those_of_torchrun_do(tmp_path: Path) -> None:
    names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "OMP_NUM_THREADS", "MASTER_PORT"]
    _run_together([sys.executable, "-c", WRITE, str(tmp_path), *names], ranks=2, threads=3)
    first, second = ((tmp_path / rank).read_text().split() for rank in "01")
    assert first[:-1] == ["0", "0", "2", "2", "127.0.0.1", "3"]
    assert second[:-1] == ["1", "1", "2", "2", "127.0.0.1", "3"]
    assert first[-1] == second[-1]


def test_a_process_that_fails_is_named() -> None:
    with pytest.raises(CaclError, match=r"^--ranks 2: process 1 failed \(out of luck\)$"):
        _run_together([sys.executable, "-c", FAIL], ranks=2, threads=1)
