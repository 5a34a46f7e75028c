"""`cacl train`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cacl.commands.options import AsJson, ConfigFile, Overrides
from cacl.commands.output import print_result


def train(
    config: ConfigFile = None,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in the run folder.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only print the resolved configuration.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train on the videos under data.root; everything goes into the run folder."""
    from cacl.config import load, to_dict, to_toml

    resolved = load(config, overrides or [])
    if dry_run:
        print_result(to_dict(resolved), as_json, lambda: print(to_toml(resolved), end=""))
        return
    from cacl.training import trainer

    summary = trainer.train(resolved, resume=resume)
    print_result(summary, as_json, lambda: _print_summary(summary))


def _print_summary(summary: dict[str, Any]) -> None:
    print(f"{summary['run']}: {summary['steps_taken']} of {summary['steps']} steps in {summary['seconds']:.0f} s")
