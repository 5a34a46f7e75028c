"""Threads of torch wait for each other asleep, not spinning, where the command line started them, and nowhere else."""

import os
import subprocess
import sys

import pytest

from tests.commands.finished import Run


def test_openmp_reads_it_as_torch_is_loaded(interpreter: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As OpenMP tells itself when it is loaded; GNU's would spin 300,000 times before it sleeps."""
    monkeypatch.setenv("OMP_DISPLAY_ENV", "VERBOSE")
    told = interpreter("eval", "retrieval", "nowhere", without=("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")).stderr
    assert "cacl: nowhere: no such checkpoint" in told  # so torch is there
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in told
    assert "GOMP_SPINCOUNT = '0'" in told or "GOMP_SPINCOUNT" not in told, "GNU's OpenMP tells that by default, too"


@pytest.mark.parametrize("own", ["ACTIVE", "passive"])
def test_who_sets_it_is_left_alone(cacl: Run, monkeypatch: pytest.MonkeyPatch, own: str) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", own)
    assert cacl("--version").returncode == 0
    assert os.environ["OMP_WAIT_POLICY"] == own
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert cacl("--version").returncode == 0
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


def test_to_import_cacl_sets_nothing() -> None:
    program = "import os; before = dict(os.environ); import cacl, cacl.cli; assert dict(os.environ) == before"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)
