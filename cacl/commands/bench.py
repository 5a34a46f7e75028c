"""`cacl bench-loader`, `bench-kernels` and `bench-step`: how fast it is, beside how others do the same."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from cacl.commands.options import AsJson, ConfigName, Imports, Overrides
from cacl.commands.output import print_result


def bench_loader(
    raw: Annotated[Path, typer.Argument(help="Folder of videos.")],
    prepared: Annotated[
        Path | None, typer.Option(help="The same videos as `cacl data prepare` made them.", show_default=False)
    ] = None,
    config: ConfigName = None,
    overrides: Overrides = None,
    clips: Annotated[int, typer.Option(help="Clips in a measurement, rounded down to whole batches.")] = 256,
    repeats: Annotated[int, typer.Option(help="Measurements of each loader.")] = 5,
    out: Annotated[Path | None, typer.Option(help="Folder for bench_loader.json and bench_loader.png.")] = None,
    imports: Imports = None,
    as_json: AsJson = False,
) -> None:
    """Time the loaders beside those that people write with torch's DataLoader, on the same clips of the same videos."""
    from cacl import config as configuration
    from cacl.benchmarks.harness.output import make_output_dir
    from cacl.benchmarks.loader import command, output
    from cacl.reporting.console import Console

    resolved = configuration.load(config, overrides or [])
    if out:
        make_output_dir(out)
    with Console() as console:
        result = command.bench_loader(raw, prepared, resolved, clips=clips, repeats=repeats, console=console)
    if out:
        output.save(result, out)
    print_result(result.to_json(), as_json, lambda: output.show(result))
    result.check()


def bench_kernels(
    operations: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OPERATION]...", help="contrast, symmetric, edit-distance, augment; none: all of them."
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Measurements of each implementation.")] = 5,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    compile: Annotated[bool, typer.Option(help="Time torch.compile too, which takes long to begin.")] = True,
    seconds: Annotated[
        float | None,
        typer.Option(min=0, help="Begin no problem after this many seconds; the most important come first."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for bench_kernels.json and bench_kernels.png, written after each problem."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Time the kernels beside other implementations, and count the registers and memory that they take on GPUs."""
    from cacl.benchmarks.harness.output import make_output_dir
    from cacl.benchmarks.kernels import command, output
    from cacl.reporting.console import Console

    if out:
        make_output_dir(out)
    with Console() as console:
        result = command.bench_kernels(
            operations or [],
            repeats=repeats,
            device=device,
            console=console,
            compile=compile,
            seconds=math.inf if seconds is None else seconds,
            on_result=lambda result: output.save(result, out) if out else None,
        )
    if out:
        output.save(result, out)
    print_result(result.to_json(), as_json, lambda: output.show(result))
    result.check()


def bench_step(
    config: ConfigName = None,
    overrides: Overrides = None,
    repeats: Annotated[int, typer.Option(help="Measurements of each step.")] = 5,
    compile: Annotated[bool, typer.Option(help="Time the compiled step too, which takes long to begin.")] = True,
    ranks: Annotated[
        str, typer.Option(metavar="N,...", help="Numbers of processes to time our step on, such as 1,2,4.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Folder for bench_step.json and bench_step.png.")] = None,
    imports: Imports = None,
    as_json: AsJson = False,
) -> None:
    """Time a training step on clips of noise, beside the step as the authors of the method wrote it.

    Without --config it is that of R3D-10 and ResNet-18, with 16 clips of 16 frames of 112 x 112.
    """
    from cacl import config as configuration
    from cacl.benchmarks.harness.output import make_output_dir
    from cacl.benchmarks.step import command, output, scaling
    from cacl.reporting.console import Console

    resolved = configuration.load(config, overrides or [], base={} if config else command.DEFAULTS)
    numbers = scaling.parse_ranks(ranks)
    if out:
        make_output_dir(out)
    with Console() as console:
        result = command.bench_step(
            resolved, repeats=repeats, console=console, compile=compile, ranks=numbers, modules=imports or []
        )
    if out:
        output.save(result, out)
    print_result(result.to_json(), as_json, lambda: output.show(result))
    result.check()
