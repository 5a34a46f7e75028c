"""Draws the charts of the results that are saved as JSON, without measuring anything.

    python benchmarks/scripts/draw_results.py [FOLDER]

FOLDER holds some of bench_loader.json, bench_kernels.json and bench_step.json, and gets the PNG files. By default it is
benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from cacl.benchmarks.kernels import output as kernel_output
from cacl.benchmarks.loader import output as loader_output
from cacl.benchmarks.step import output as step_output

DRAW = {"bench_loader": loader_output.draw, "bench_kernels": kernel_output.draw, "bench_step": step_output.draw}


def draw_results(source: Path, target: Path) -> None:
    """Draws the results in one folder, and writes the charts to another one."""
    for name, draw in DRAW.items():
        result = source / f"{name}.json"
        if result.exists():
            draw(json.loads(result.read_text()), target / f"{name}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parents[1] / "results")
    folder = parser.parse_args().folder
    draw_results(folder, folder)
