"""The options that several commands share, spelt the same way everywhere."""

from __future__ import annotations

from typing import Annotated

import typer

from cacl.commands.completion import complete_recipe

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
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
