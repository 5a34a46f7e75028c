"""The options that several commands share, spelt the same way everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cacl.commands.completion import complete_recipe


def _import_plugins(modules: list[str] | None) -> list[str] | None:
    from cacl.registry import import_plugin

    for module in modules or []:
        import_plugin(module)
    return modules


ConfigName = Annotated[
    str | None,
    typer.Option(
        "--config",
        "-c",
        metavar="NAME_OR_FILE",
        help="Recipe (see `cacl recipes`) or TOML file.",
        autocompletion=complete_recipe,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a key, such as optim.lr=0.1; see `cacl config`."),
]
# Typer calls the function of this option before the command, which needs not look at it.
Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="MODULE",
        help="Import a module that registers encoders, losses, layouts, ...; may be repeated.",
        callback=_import_plugins,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Labels = Annotated[
    list[str] | None, typer.Option("--label", help="Column of the data set's lists to judge by; may be repeated.")
]
Report = Annotated[
    Path | None, typer.Option("--report", metavar="DIR", help="Write a page with the results into this folder, too.")
]
PublishedByDefault = Annotated[
    list[str] | None, typer.Option("--features", help="Feature of the encoders; may be repeated. Default: published.")
]
TrainingReportFolder = Annotated[
    Path | None,
    typer.Option(
        "--report", metavar="DIR", help="Folder for a page of curves and clips, which is there while training goes on."
    ),
]
