"""The tables, the JSON file and the chart of `cacl bench-kernels`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cacl.benchmarks.harness.output import Column, describe_machine, format_number, print_table, write_json
from cacl.benchmarks.kernels.command import PACKAGES, KernelBenchmark
from cacl.benchmarks.kernels.run import BASELINE, KernelResult, KernelStats, ProblemResult
from cacl.kernels.dispatch import INTERPRETED


def _from_stats(heading: str, cell: Callable[[KernelStats], str], otherwise: str = "") -> Column[KernelResult]:
    return Column(heading, lambda row: cell(row.stats) if row.stats else otherwise)


COLUMNS: list[Column[KernelResult]] = [
    Column("contender", lambda row: row.contender, numeric=False, min_width=24),
    _from_stats("ms", lambda stats: _format_ms(stats.seconds.median), otherwise="-"),
    _from_stats("min..max", lambda stats: f"{_format_ms(stats.seconds.min)}..{_format_ms(stats.seconds.max)}"),
    Column("time /\nours", lambda row: format_number(row.ratio) if row.stats else ""),
    _from_stats("roofline /\ntime", lambda stats: f"{100 * stats.roofline_share:.2g} %"),
    _from_stats("MiB above\ninputs", lambda stats: format_number(stats.memory_bytes and stats.memory_bytes / 2**20)),
]


def show(result: KernelBenchmark) -> None:
    """Prints the result for people on stdout."""
    for problem in result.problems:
        _show_problem(problem)
    descriptions = {
        (problem.operation, row.contender): row.description for problem in result.problems for row in problem.rows
    }
    for operation in dict.fromkeys(problem.operation for problem in result.problems):
        for (described, name), description in descriptions.items():
            if described == operation:
                print(f"{operation}, {name}: {description}")
    for problem in result.problems:
        for row in problem.rows:
            if row.reason:
                print(f"{problem.operation}, {problem.setting}, {row.contender}: {row.reason}")
    for name in result.left_out:
        print(f"no time for {name}")
    _show_resources(result)
    known = result.to_json()
    print(_describe_settings(known))
    print(describe_machine(known["machine"], PACKAGES[1:]))


def _show_problem(problem: ProblemResult) -> None:
    print(f"{problem.operation}: {problem.setting}")
    print(f"roofline {_format_ms(problem.roofline_seconds)} ms: {problem.roofline}")
    print(f"error: {problem.error_unit}")
    names = list(next((row.errors for row in problem.rows if row.errors), {}))
    errors = Column[KernelResult](
        f"error (allowed)\n{', '.join(names)}", lambda row: ", ".join(_format_error(row, name) for name in names)
    )
    print_table(problem.rows, [*COLUMNS, errors])


def _format_error(row: KernelResult, name: str) -> str:
    if row.errors is None:
        return ""
    return f"{row.errors[name]:.2g}" + (f" ({row.limits[name]:.2g})" if name in row.limits else "")


def _show_resources(result: KernelBenchmark) -> None:
    if not result.resources:
        why = "TRITON_INTERPRET=1 is set: our kernels ran in Triton's interpreter" if INTERPRETED else "no time left"
        print(f"{why}, and none was compiled ahead of time")
        return
    gpus = [name for name in result.resources[0] if name.startswith("sm_")]
    print_table(
        result.resources,
        [
            Column("kernel", lambda row: row["kernel"], numeric=False, min_width=24),
            Column("for", lambda row: row["setting"], numeric=False),
            *(
                Column(f"{gpu}: registers,\nKiB shared, local accesses", lambda row, gpu=gpu: _format_used(row[gpu]))
                for gpu in gpus
            ),
        ],
    )


def _format_used(used: dict[str, int]) -> str:
    shared_kib = format_number(round(used["shared"] / 1024, 1))
    return f"{used['registers']}, {shared_kib}, {used['local_accesses']}"


def save(result: KernelBenchmark, folder: Path) -> None:
    """Writes bench_kernels.json for programs, and bench_kernels.png for people."""
    save_json(result, folder)
    draw(result.to_json(), folder / "bench_kernels.png")


def save_json(result: KernelBenchmark, folder: Path) -> None:
    """Writes bench_kernels.json only."""
    write_json(folder / "bench_kernels.json", result.to_json())


def draw(result: dict[str, Any], file: Path) -> None:
    """Draws the chart of a result, as bench_kernels.json holds it."""
    # The GPU machine of benchmarks/gpu has no matplotlib.
    from cacl.benchmarks.harness.ratio_bars import ratio_bars
    from cacl.reporting import charts

    charts.draw_ratios(
        file,
        title="Time of a call, relative to cacl",
        subtitle=["to the right of 1: slower than cacl, on a logarithmic axis", _describe_settings(result)],
        sections={
            f"{problem['operation']}: {problem['setting']}": ratio_bars(problem["rows"], BASELINE, _describe_time)
            for problem in result["problems"]
        },
        footnotes=[describe_machine(result["machine"], PACKAGES[1:])],
    )


def _describe_time(stats: dict[str, Any]) -> str:
    return f"{_format_ms(stats['seconds']['median'])} ms"


def _describe_settings(result: dict[str, Any]) -> str:
    settings = result["settings"]
    where = "on the GPU, from a cold L2 cache" if settings["device"] == "cuda" else f"{settings['threads']} threads"
    return (
        f"median of {settings['repeats']} repeats in turn, {where}; the range is from the fastest to the slowest; "
        f"load of the machine before: {settings['load']:.1f}"
    )


def _format_ms(seconds: float) -> str:
    return format_number(1000 * seconds)
