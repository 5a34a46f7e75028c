"""`cacl train`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cacl.commands.options import AsJson, ConfigName, Overrides
from cacl.commands.output import print_result


def train(
    videos: Annotated[
        str | None,
        typer.Argument(help="Folder of videos, list of them, or folder or address of a prepared set: data.root."),
    ] = None,
    run: Annotated[str | None, typer.Option(metavar="DIR", help="Folder that the run is written into: run.")] = None,
    config: ConfigName = None,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in the run folder.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only print the resolved configuration.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train on videos; everything goes into the run folder."""
    from cacl.config import load, to_dict, to_toml

    resolved = load(config, overrides or [], {"data.root": videos, "run": run})
    if dry_run:
        print_result(to_dict(resolved), as_json, lambda: print(to_toml(resolved), end=""))
        return
    from cacl.training import trainer

    summary = trainer.train(resolved, resume=resume)
    print_result(summary, as_json, lambda: _print_summary(summary))


def _print_summary(summary: dict[str, Any]) -> None:
    print(f"{summary['run']}: {summary['steps_taken']} of {summary['steps']} steps in {summary['seconds']:.0f} s")
