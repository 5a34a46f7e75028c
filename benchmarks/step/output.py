"""The tables, the JSON file and the chart of `cacl bench-step`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cacl.benchmarks.harness.output import Column, describe_machine, format_number, print_table, write_json
from cacl.benchmarks.harness.ratio_bars import ratio_bars
from cacl.benchmarks.step.command import PACKAGES, StepBenchmark
from cacl.benchmarks.step.contenders import BASELINE
from cacl.benchmarks.step.run import StepResult, StepStats
from cacl.benchmarks.step.scaling import Scaling
from cacl.reporting import charts


def _from_stats(heading: str, cell: Callable[[StepStats], str], otherwise: str = "") -> Column[StepResult]:
    return Column(heading, lambda row: cell(row.stats) if row.stats else otherwise)


COLUMNS: list[Column[StepResult]] = [
    Column("step", lambda row: row.contender, numeric=False, min_width=24),
    _from_stats("ms", lambda stats: _format_ms(stats.seconds.median), otherwise="-"),
    _from_stats("min..max", lambda stats: f"{_format_ms(stats.seconds.min)}..{_format_ms(stats.seconds.max)}"),
    Column("time /\nours", lambda row: format_number(row.ratio) if row.stats else ""),
    _from_stats("clips/s", lambda stats: format_number(stats.clips_per_second)),
    _from_stats("GFLOP", lambda stats: format_number(stats.flops / 1e9)),
    _from_stats("GFLOP/s", lambda stats: format_number(stats.flops_per_second / 1e9)),
    _from_stats("of peak", lambda stats: f"{stats.peak_share:.0%}"),
    _from_stats("MiB above\nweights", lambda stats: format_number(stats.memory_bytes and stats.memory_bytes / 2**20)),
    Column("largest\nerror", lambda row: f"{max(row.errors.values()):.1g}" if row.errors else ""),
]


SCALING_COLUMNS: list[Column[Scaling]] = [
    Column("processes", lambda row: str(row.ranks)),
    Column("threads\neach", lambda row: str(row.threads)),
    Column("ms", lambda row: _format_ms(row.seconds.median)),
    Column("min..max", lambda row: f"{_format_ms(row.seconds.min)}..{_format_ms(row.seconds.max)}"),
    Column("clips/s", lambda row: format_number(row.clips_per_second)),
    Column("clips/s of each,\nto the first row", lambda row: f"{row.efficiency:.0%}"),
]


def show(result: StepBenchmark) -> None:
    """Prints the result for people on stdout."""
    print_table(result.rows, COLUMNS)
    _show_stages(result)
    if result.scaling:
        print_table(result.scaling, SCALING_COLUMNS)
    for row in result.rows:
        print(f"{row.contender}: {row.description}")
    for row in result.rows:
        if row.reason:
            print(f"{row.contender}: {row.reason}")
    known = result.to_json()
    for line in (*_describe_settings(known), _describe_peak(known), describe_machine(known["machine"], PACKAGES[1:])):
        print(line)


def _show_stages(result: StepBenchmark) -> None:
    """Prints the stages of all contenders side by side, in milliseconds of the device or, on a CPU, of the host."""
    measured = {row.contender: row.stats.stages for row in result.rows if row.stats}
    on_device = {name: table.device_ms is not None for name, table in measured.items()}
    spent = {
        name: {row.stage: row.device_ms if on_device[name] else row.host_ms for row in table.rows}
        for name, table in measured.items()
    }
    paths = list(dict.fromkeys(path for stages in spent.values() for path in stages))
    where = "the GPU" if any(on_device.values()) else "the CPU"
    columns = [Column[str](f"stage, ms of {where} under a profiler", lambda path: _indented(path), numeric=False)]
    for name, stages in spent.items():
        columns.append(Column(name, lambda path, stages=stages: format_number(stages[path]) if path in stages else ""))
    print_table(paths, columns)


def _indented(path: str) -> str:
    return f"  {path.partition('/')[2]}" if "/" in path else path


def save(result: StepBenchmark, folder: Path) -> None:
    """Writes bench_step.json for programs, and bench_step.png for people."""
    known = result.to_json()
    write_json(folder / "bench_step.json", known)
    draw(known, folder / "bench_step.png")


def draw(result: dict[str, Any], file: Path) -> None:
    """Draws the chart of a result, as bench_step.json holds it."""
    setting, repeats = _describe_settings(result)
    charts.draw_ratios(
        file,
        title="Time of a training step, relative to cacl",
        subtitle=["to the right of 1: slower than cacl, on a logarithmic axis", repeats],
        sections={setting: ratio_bars(result["rows"], BASELINE, _describe_speed)},
        footnotes=[_describe_peak(result), describe_machine(result["machine"], PACKAGES[1:])],
    )


def _describe_settings(result: dict[str, Any]) -> tuple[str, str]:
    settings, clip = result["settings"], result["settings"]["clip"]
    model = settings["model"]
    return (
        f"{model['cnn']} and a transformer on {model['transformer']['embedder']}, {settings['batch_size']} clips of "
        f"{clip['frames']} frames of {clip['size']} x {clip['size']}, pairs {settings['contrast']['pairs']}, "
        f"{settings['precision']}",
        f"median of {settings['repeats']} repeats in turn, {settings['threads']} threads; load of the machine before: "
        f"{settings['load']:.1f}",
    )


def _describe_speed(stats: dict[str, Any]) -> str:
    return f"{format_number(stats['clips_per_second'])} clips/s"


def _describe_peak(result: dict[str, Any]) -> str:
    return f"peak {result['peak_flops_per_second'] / 1e9:,.3g} GFLOP/s: {result['peak']}"


def _format_ms(seconds: float) -> str:
    return format_number(1000 * seconds)
