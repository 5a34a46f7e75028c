"""`cacl finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cacl.commands.options import AsJson, ConfigName, Imports, Overrides
from cacl.commands.output import print_message, print_result

if TYPE_CHECKING:
    from cacl.config import Config

DEFAULT_RECIPE = "finetune"
"""The recipe where no configuration is given."""


def finetune(
    videos: Annotated[
        str | None,
        typer.Argument(help="Folder of labelled videos, list of them, or prepared set: data.root."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN_OR_CHECKPOINT",
            help="Encoder to begin with: finetune.weights. Without it, the weights are random.",
        ),
    ] = None,
    run: Annotated[str | None, typer.Option(metavar="DIR", help="Folder that the run is written into: run.")] = None,
    config: ConfigName = None,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in the run folder.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only print the resolved configuration.")] = False,
    imports: Imports = None,
    as_json: AsJson = False,
) -> None:
    """Train an encoder with a linear classifier on labelled videos.

    Without --config, the recipe `finetune` is taken. What it leaves open comes from the run that --from names.
    """
    from cacl.config import to_dict, to_toml

    arguments = {"data.root": videos, "run": run, "finetune.weights": weights}
    settings = _read_settings(config, overrides or [], arguments, resume=resume)
    if dry_run:
        print_result(to_dict(settings), as_json, lambda: print(to_toml(settings), end=""))
        return
    from cacl.training import finetuning

    summary = finetuning.finetune(settings, resume=resume)
    print_result(summary, as_json, lambda: _print_summary(summary))


def _read_settings(
    name_or_file: str | None, overrides: list[str], arguments: dict[str, str | None], *, resume: bool
) -> Config:
    from cacl.config import load

    if name_or_file is None and resume:
        begun = Path(load(DEFAULT_RECIPE, overrides, arguments).run) / "config.toml"
        if begun.is_file():
            print_message(f"{begun} has the settings of this run")
            return load(begun, overrides, arguments)
    name_or_file = name_or_file or DEFAULT_RECIPE
    weights = load(name_or_file, overrides, arguments).finetune.weights
    if not weights:
        return load(name_or_file, overrides, arguments)
    from cacl.training.finetuning import inherited_settings

    return load(name_or_file, overrides, arguments, inherited_settings(weights))


def _print_summary(summary: dict[str, Any]) -> None:
    best = summary["best"]
    print(f"{summary['run']}: {summary['steps_taken']} of {summary['steps']} steps in {summary['seconds']:.0f} s")
    print(f"best.pt: {100 * best['val_accuracy']:.1f} % of the validation videos, after step {best['step']}")
