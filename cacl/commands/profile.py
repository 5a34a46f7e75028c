"""`cacl profile`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cacl.commands.options import AsJson, ConfigName, Imports, Overrides
from cacl.commands.output import print_result, print_table

if TYPE_CHECKING:
    from cacl.profiling.profile import Profile
    from cacl.profiling.stage_times import StageTable, StageTimes


def profile(
    videos: Annotated[
        str | None,
        typer.Argument(help="Folder of videos, list of them, or folder or address of a prepared set: data.root."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for what is recorded.")] = Path("profile"),
    config: ConfigName = None,
    overrides: Overrides = None,
    nsys: Annotated[bool, typer.Option("--nsys", help="Let Nsight Systems record the steps instead.")] = False,
    kernels: Annotated[
        bool, typer.Option("--kernels", help="Let Nsight Compute measure the Triton kernels of the steps instead.")
    ] = False,
    ranges: Annotated[
        bool, typer.Option("--ranges", help="Only mark the steps for an Nsight that this command runs under.")
    ] = False,
    imports: Imports = None,
    as_json: AsJson = False,
) -> None:
    """Train for a few steps as `cacl train` would, and show where their time goes.

    profile.steps tells which steps are recorded. No run is touched.
    """
    from cacl.benchmarks.harness.output import make_output_dir
    from cacl.config import load, load_given
    from cacl.profiling import nsight

    make_output_dir(out)
    arguments = _arguments(videos, out, config, overrides or [], imports or [])
    by_nsight = {"nsys": nsight.nsys_command(out, arguments), "ncu": nsight.ncu_command(out, arguments)}
    for tool, wanted in (("nsys", nsys), ("ncu", kernels)):
        if wanted and (code := nsight.run(by_nsight[tool])):
            raise typer.Exit(code)
    if nsys or kernels:
        return
    from cacl.profiling.profile import profile

    named = {"data.root": videos}
    if config is None:
        settings, given = load_given(overrides or [], named)
    else:
        settings, given = load(config, overrides or [], named), None
    result = profile(settings, out, given=given, for_nsight=ranges)
    if result is None:
        return
    print_result(result.to_json() | by_nsight, as_json, lambda: _show(result, out, by_nsight.values()))
    result.check()


def _arguments(
    videos: str | None, out: Path, config: str | None, overrides: Sequence[str], imports: Sequence[str]
) -> list[str]:
    """The arguments of this command that another process of it needs."""
    options = [("--config", config)] if config is not None else []
    options += [("--set", each) for each in overrides] + [("--import", each) for each in imports]
    options.append(("--out", str(out)))
    return [*([videos] if videos is not None else []), *(part for option in options for part in option)]


def _show(result: Profile, out: Path, by_nsight: Any) -> None:
    first, last = result.steps
    for rank, table in result.tables.items():
        of_rank = f", process {rank}" if len(result.tables) > 1 else ""
        print(f"steps {first + 1} to {last} on {result.device}{of_rank}, milliseconds of a step:")
        _show_table(table)
    print(f"{out}: {', '.join(result.files)}")
    for command in by_nsight:
        print(f"on a machine with CUDA and {command[0]}: {shlex.join(command)}")


def _show_table(table: StageTable) -> None:
    on_gpu = table.device_ms is not None
    header = ["stage", "calls", "host ms", *(["device ms"] if on_gpu else []), "share", "peak MiB"]
    rows = [_cells(row, on_gpu=on_gpu) for row in table.rows]
    whole = [f"{table.device_ms:.2f}"] if on_gpu else []
    print_table(header, [*rows, ["step", "1", f"{table.step_ms:.2f}", *whole, "100.0 %", ""]])


def _cells(row: StageTimes, *, on_gpu: bool) -> list[str]:
    outer, _, inner = row.stage.partition("/")
    return [
        f"  {inner}" if inner else outer,
        f"{row.calls:g}" if row.calls else "",
        f"{row.host_ms:.2f}",
        *([f"{row.device_ms:.2f}"] if on_gpu else []),
        f"{100 * row.share:.1f} %",
        "" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:.1f}",
    ]
