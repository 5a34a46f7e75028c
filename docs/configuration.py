"""Writes docs/configuration.md, every key of the configuration, from its schema: `python docs/configuration.py`.

tests/config/test_reference.py holds the page to the schema.
"""

from __future__ import annotations

from pathlib import Path

from cacl.config.reference import Section, sections

PAGE = Path(__file__).with_suffix(".md")

HEAD = """# Configuration

<!-- `python docs/configuration.py` writes this page from cacl/config/schema.py. -->

A configuration is a TOML file. What it leaves out has the default below. Without any, `cacl train` chooses some keys to
fit the videos and the machine ([training.md](training.md#without-a-configuration)). `cacl config` shows the same as
this page, and `cacl config clip` or `cacl config clip.frames` a part of it.

* `--config NAME_OR_FILE` reads a file. A bare name is that of a recipe, which `cacl recipes` lists and
  `cacl recipes NAME` prints. What has a slash is a file, and what has a suffix is one if it is there: `./mine` and
  `mine.toml` are files, and `mine` is not.
* `--set KEY=VALUE` sets a key after that, as in `--set optim.lr=0.1`, and may be repeated. The value is written as in
  TOML, and a string needs no quotes.
* `cacl train VIDEOS` sets `data.root`, and `--run DIR` sets `run`.
* `cacl train --dry-run` prints what comes of it, with all keys. The run folder keeps it as `config.toml`.

An unknown key, a value out of bounds and keys that contradict each other end the command before any video is read.
"""


def page() -> str:
    """Returns the page as Markdown."""
    return "\n".join([HEAD, *map(_chapter, sections())])


def _chapter(section: Section) -> str:
    heading = f"## {section.heading}\n\n{section.meaning}" if section.name else "## Before all sections"
    rows = [
        f"| `{key.name}` | {key.type} | `{key.default_as_toml()}` | {key.meaning} |".replace("[a, b]", "`[a, b]`")
        for key in section.keys
    ]
    return "\n".join([heading, "", "| key | values | default | meaning |", "|---|---|---|---|", *rows, ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
