"""What a shell offers behind the Tab key: the names of recipes, sections and keys."""

from __future__ import annotations


def complete_recipe(incomplete: str) -> list[str]:
    """Returns the recipes whose names begin like this. Where there is none, the shell offers files."""
    from cacl.config import recipes

    return [name for name in recipes.names() if name.startswith(incomplete)]


def complete_part(incomplete: str) -> list[str]:
    """Returns the sections and keys of the configuration whose names begin like this."""
    from cacl.config import reference

    sections = reference.sections()
    names = dict.fromkeys(name for section in sections for name in (section.name, *(key.name for key in section.keys)))
    return [name for name in names if name and name.startswith(incomplete)]
