"""Runs `cacl bench-kernels` on a machine without matplotlib: JSON is written after each problem, and no chart is drawn.

    python -m benchmarks.gpu.kernels --out DIR [--device cuda] [--repeats 3] [--seconds 75]

torch.compile is left out, since it takes longer than all other measurements. Where there is matplotlib,
`python benchmarks/scripts/draw_results.py DIR` draws the chart.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from cacl.benchmarks.harness.output import make_output_dir
from cacl.benchmarks.kernels.command import bench_kernels
from cacl.benchmarks.kernels.output import save_json, show
from cacl.reporting.console import Console


def main() -> None:
    """Measures, writes bench_kernels.json and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for bench_kernels.json")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=75, help="no new problem is begun after this many")
    args = parser.parse_args()
    make_output_dir(args.out)
    with Console() as console:
        result = bench_kernels(
            [],
            repeats=args.repeats,
            device=args.device,
            console=console,
            compile=False,
            seconds=args.seconds,
            on_result=partial(save_json, folder=args.out),
        )
    save_json(result, args.out)
    show(result)
    result.check()


if __name__ == "__main__":
    main()
