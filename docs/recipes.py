"""Writes docs/recipes.md, every recipe with what it is for, from cacl/recipes: `python docs/recipes.py`.

tests/config/test_recipes.py holds the page to the recipes.
"""

from __future__ import annotations

from pathlib import Path

from cacl.config import recipes

PAGE = Path(__file__).with_suffix(".md")

HEAD = """# Recipes

<!-- `python docs/recipes.py` writes this page from cacl/recipes. -->

A recipe is a configuration that is installed with `cacl`. `cacl train VIDEOS --config demo` trains by `demo`,
`cacl recipes` lists all of them, and `cacl recipes demo > mine.toml` makes a file to change.
[configuration.md](configuration.md) explains every key, and has the defaults of those that a recipe leaves out.
"""


def page() -> str:
    """Returns the page as Markdown."""
    texts = {name: recipes.read(name) for name in recipes.names()}
    rows = [f"| [`{name}`](#{name}) | {recipes.summary(text)} |" for name, text in texts.items()]
    table = "\n".join(["| recipe | what it is for |", "|---|---|", *rows, ""])
    return "\n".join([HEAD, table, *(f"## {name}\n\n```toml\n{text}```\n" for name, text in texts.items())])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
