"""What records a step on a GPU, as far as it can be seen without one: which calls are made, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from cacl.errors import CaclError
from cacl.profiling import recording
from cacl.profiling.recording import cuda_capture_range, memory_history, recorded_steps

GPU = torch.device("cuda")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was called of CUDA, which writes the name of a memory history into its file."""
    made: list[str] = []

    @contextmanager
    def nvtx() -> Iterator[None]:
        made.append("nvtx on")
        yield
        made.append("nvtx off")

    def history(enabled: str | None = "all", **_: object) -> None:
        made.append("history on" if enabled else "history off")

    def dump(file: str) -> None:
        made.append("dump")
        Path(file).write_text("history")

    monkeypatch.setattr(recording, "emit_nvtx", nvtx)
    for name in ("start", "stop"):
        monkeypatch.setattr(torch.cuda.profiler, name, lambda name=name: made.append(name))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: made.append("synchronize"))
    monkeypatch.setattr(torch.cuda.memory, "_record_memory_history", history)
    monkeypatch.setattr(torch.cuda.memory, "_dump_snapshot", dump)
    return made


def test_nsight_is_shown_only_the_steps_that_are_recorded(calls: list[str]) -> None:
    calls.extend(f"step {number}" for number in recorded_steps(iter(range(9)), 2, 4, cuda_capture_range()))
    assert calls == [
        *("step 0", "step 1", "nvtx on", "start", "step 2", "step 3"),
        *("synchronize", "stop", "nvtx off"),
    ]


def test_a_step_that_fails_ends_the_capture(calls: list[str]) -> None:
    with pytest.raises(ValueError, match="out of luck"), cuda_capture_range():
        raise ValueError("out of luck")
    assert calls[:3] == ["nvtx on", "start", "stop"]


def test_the_memory_history_is_written_at_the_end(calls: list[str], tmp_path: Path) -> None:
    with memory_history(GPU, tmp_path / "memory.pickle"):
        calls.append("training")
    assert calls == ["history on", "training", "dump", "history off"]
    assert (tmp_path / "memory.pickle").exists()


def test_the_memory_history_is_written_when_memory_runs_out(calls: list[str], tmp_path: Path) -> None:
    file = tmp_path / "memory.pickle"
    with pytest.raises(CaclError) as caught, memory_history(GPU, file):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has ...")
    assert str(caught.value) == f"CUDA out of memory; {file} shows on pytorch.org/memory_viz what held the memory"
    assert calls == ["history on", "dump", "history off"]
    assert file.exists()


def test_a_cpu_has_no_memory_history(calls: list[str], tmp_path: Path) -> None:
    with memory_history(torch.device("cpu"), tmp_path / "memory.pickle"):
        pass
    assert calls == []
    assert list(tmp_path.iterdir()) == []
