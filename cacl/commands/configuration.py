"""`cacl recipes` and `cacl config`: the configurations that are installed, and what each key means."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from cacl.commands.completion import complete_part, complete_recipe
from cacl.commands.options import AsJson, Imports
from cacl.commands.output import print_result

if TYPE_CHECKING:
    from cacl.config.reference import Key, Section

WIDTH = 100
"""Characters of a line."""


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Recipe to print; none: list them all.", show_default=False, autocompletion=complete_recipe
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the recipes that --config takes by name, or print one, to be copied into a file and changed."""
    from cacl.config import recipes as installed

    if name is not None:
        text = installed.read(name)
        result = {"name": name, "summary": installed.summary(text), "toml": text}
        print_result(result, as_json, lambda: print(text, end=""))
        return
    summaries = {name: installed.summary(installed.read(name)) for name in installed.names()}
    width = max(map(len, summaries))
    print_result(
        [{"name": name, "summary": summary} for name, summary in summaries.items()],
        as_json,
        lambda: print(*(f"{name:{width}}  {summary}" for name, summary in summaries.items()), sep="\n"),
    )


def config(
    part: Annotated[
        str | None,
        typer.Argument(
            metavar="[SECTION_OR_KEY]",
            help="Part to show; none: all of it.",
            show_default=False,
            autocompletion=complete_part,
        ),
    ] = None,
    imports: Imports = None,
    as_json: AsJson = False,
) -> None:
    """Show the keys of the configuration: what each takes, its default, and its meaning."""
    from cacl.config import reference

    sections = reference.sections(part or "")
    keys = [asdict(key) for section in sections for key in section.keys]
    print_result(keys, as_json, lambda: print("\n\n".join(map(_as_text, sections))))


def _as_text(section: Section) -> str:
    heading = f"{section.heading}  # {section.meaning}" if section.name else f"# {section.meaning}"
    return "\n\n".join([heading, *map(_key_as_text, section.keys)])


def _key_as_text(key: Key) -> str:
    wrap = partial(textwrap.fill, width=WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join([f"{key.name} = {key.default_as_toml()}", wrap(key.type), wrap(key.meaning)])
