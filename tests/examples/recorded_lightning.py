"""Runs examples/lightning_trainer.py several times and notes the clips of every step; a run may kill itself before one.

Each run is a process of its own. All are forked from one that has imported Lightning, which takes as long as they.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from cacl.clips import ClipBatch
from tests.launch import ROOT


def main(*runs: str) -> None:
    """Runs the example several times, one after the other, and prints how each of these processes ended.

    Args:
        runs: In JSON, the file for the notes, the step before which it is killed, and the arguments of the example.
    """
    import lightning  # noqa: F401

    for run in runs:
        process = multiprocessing.get_context("fork").Process(target=_record, args=json.loads(run))
        process.start()
        process.join()
        print("exit code", process.exitcode, flush=True)


def _record(notes: str, killed_before: int, arguments: Sequence[str]) -> None:
    example = runpy.run_path(str(ROOT / "examples/lightning_trainer.py"))
    training = example["ContrastiveTraining"]
    training_step = training.training_step

    def recorded_step(self: object, batch: ClipBatch, batch_idx: int) -> Tensor:
        step = self.global_step  # type: ignore[attr-defined]
        if step == killed_before:
            os.kill(os.getpid(), signal.SIGKILL)
        pixels = hashlib.sha256(b"".join(view.numpy().tobytes() for view in batch.views)).hexdigest()
        with Path(notes).open("a") as file:
            print(step, *batch.index.tolist(), *batch.video.tolist(), pixels, file=file)
        return training_step(self, batch, batch_idx)

    training.training_step = recorded_step
    sys.argv[1:] = arguments
    example["main"]()
