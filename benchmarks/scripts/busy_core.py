"""How much of its speed does training on a CPU keep while one of the cores has other work?

    python benchmarks/scripts/busy_core.py > benchmarks/results/busy_core.json

The script runs `cacl train` with the recipe `demo` on videos of `cacl data synth`: alone and beside one busy
process of the lowest priority, with threads that wait asleep (as the command line sets it) and with threads that spin
(as OpenMP does when it is not told). The four runs take turns, each in a process of its own, and ratios are taken
within a repeat. A table goes to stderr. All of it takes about ten minutes on two cores, which should have nothing else
to do; with `--steps 2` it takes less than half.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cacl import config as configuration
from cacl.benchmarks.harness import machine
from cacl.benchmarks.harness.stats import Spread

RECIPE = "demo"
PACKAGES = ("cacl", "torch", "av", "numpy", "numba")
THREADS = {
    "asleep": ["-m", "cacl.cli"],
    "spinning": ["-c", "from cacl.cli import app; app()"],  # What the entry point does before is left out.
}
"""How threads wait, and the arguments with which Python is started for that."""
BUSY = ["nice", "-n", "19", sys.executable, "-c", "while True: pass"]
UNSET = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")


@contextmanager
def busy_core() -> Iterator[None]:
    """Keeps one core busy while the block runs.

    Yields:
        Nothing.
    """
    # This is as from another terminal: within one session Linux heeds the priority, among sessions it shares evenly.
    process = subprocess.Popen(BUSY, start_new_session=True)
    try:
        yield
        assert process.poll() is None, "the busy process ended before"
    finally:
        process.kill()
        process.wait()


def cacl(threads: str, *arguments: str) -> str:
    """Runs a command of cacl, and returns what it prints on stdout."""
    environment = {name: value for name, value in os.environ.items() if name not in UNSET}
    command = [sys.executable, *THREADS[threads], *arguments]
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def clips_per_second(threads: str, videos: Path, steps: int) -> float:
    """Measures the clips per second of `steps` training steps, after as many that are not counted."""
    count, recipe = len(list(videos.glob("videos/*.mp4"))), configuration.load(RECIPE)
    with tempfile.TemporaryDirectory() as run:
        own = {
            "data.cache": videos.parent / "cache",
            "train.device": "cpu",
            "train.epochs": 2 * steps * recipe.train.batch_size / count,
            "train.log_every": steps,
        }
        sets = [part for key, value in own.items() for part in ("--set", f"{key}={value}")]
        summary = json.loads(cacl(threads, "train", str(videos), "--config", RECIPE, "--run", run, *sets, "--json"))
    assert summary["steps_taken"] == 2 * steps
    return summary["scalars"]["clips_per_second"]


def measure(videos: Path, steps: int, repeats: int) -> list[dict[str, float]]:
    """Measures the clips per second of all four runs, by repeat."""
    rows: list[dict[str, float]] = []
    for _ in range(repeats):
        rows.append({})
        for threads in THREADS:
            rows[-1][f"{threads}, alone"] = clips_per_second(threads, videos, steps)
        for threads in THREADS:
            with busy_core():
                rows[-1][f"{threads}, beside a busy core"] = clips_per_second(threads, videos, steps)
    return rows


def ratios(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    """The ratios within each repeat."""
    pairs = {f"{threads}: beside a busy core / alone": threads for threads in THREADS}
    found = {
        name: [row[f"{threads}, beside a busy core"] / row[f"{threads}, alone"] for row in rows]
        for name, threads in pairs.items()
    }
    for load in ("alone", "beside a busy core"):
        found[f"{load}: asleep / spinning"] = [row[f"asleep, {load}"] / row[f"spinning, {load}"] for row in rows]
    return found


def table(values: dict[str, list[float]]) -> dict[str, Any]:
    """Each series of values with its median and range."""
    return {name: asdict(Spread.of(each)) | {"each": each} for name, each in values.items()}


def main() -> None:
    """Measures, and prints JSON on stdout and a table on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10, help="of a measurement; as many before are not counted")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        videos = Path(folder) / "videos"
        cacl("asleep", "data", "synth", str(videos), "--train", "1", "--test", "0")
        rows = measure(videos, given.steps, given.repeats)
    result = {
        "machine": machine.describe(PACKAGES),
        "threads": torch.get_num_threads(),
        "steps": given.steps,
        "clips_per_second": table({name: [row[name] for row in rows] for name in rows[0]}),
        "ratios": table(ratios(rows)),
    }
    for name, found in {**result["clips_per_second"], **result["ratios"]}.items():
        line = f"{name:45} {found['median']:6.2f}  ({found['min']:.2f} to {found['max']:.2f})"
        print(line, file=sys.stderr)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
