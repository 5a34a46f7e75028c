"""How Sphinx makes the site: `make docs` writes it to build/site.

The source is the repository itself, so every page and every link is the same on the site and in the repository.
README.md is the front page, and `CONTENTS` names all others.
"""

import shutil
from pathlib import Path

from sphinx.application import Sphinx

import cacl

CONTENTS = {
    "Guide": {
        "Getting started": "self",
        "Data": "docs/data",
        "Training": "docs/training",
        "Evaluation": "docs/evaluation",
        "Reports": "docs/reports",
        "Gallery": "docs/gallery",
        "Search": "docs/search",
        "Export": "docs/export",
        "Profiling": "docs/profiling",
        "Recipes": "docs/recipes",
        "Configuration": "docs/configuration",
    },
    "Development": {
        "Python interface": "docs/api",
        "Architecture": "docs/architecture",
        "Extending and contributing": "CONTRIBUTING",
        "Changelog": "CHANGELOG",
    },
    "Results": {
        "Trained encoders": "docs/results",
        "Loader": "docs/loader",
        "Kernels": "docs/kernels",
        "The authors' release": "docs/official",
        "Plan for a GPU": "benchmarks/gpu/README",
    },
}
"""The headings of the side bar, and the pages below each by the names that they have there. A page that is missing here
fails the build."""

project = "cacl"
author = "the authors of cacl"
release = cacl.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "benchmarks/gpu/*.md"]
exclude_patterns = [".*", "build", "demo", "dist", "runs"]
highlight_language = "none"
smartquotes_action = "D"  # Quotes stay as TOML wants them.
myst_heading_anchors = 3

# Docstrings have code in single backticks, and types only in the signature.
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = f"cacl {release}"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sourcelink = False
html_show_sphinx = False


def setup(app: Sphinx) -> None:
    """Connects what the pages and docstrings of this repository need."""
    app.connect("source-read", _add_contents)
    app.connect("autodoc-process-docstring", _keep_colons, priority=0)  # before napoleon
    app.connect("build-finished", _write_index)
    app.connect("build-finished", _copy_gallery)


def _add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """Adds the contents to the front page, where GitHub would show their directive as text."""
    if page == app.config.root_doc:
        for heading, pages in CONTENTS.items():
            entries = "\n".join(f"{name} <{path}>" for name, path in pages.items())
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {heading}\n\n{entries}\n```\n"


def _keep_colons(_app: Sphinx, what: str, _name: str, _thing: object, _options: object, lines: list[str]) -> None:
    """Puts an empty comment first: napoleon takes for a type what precedes a colon in the first line of a value."""
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]


def _write_index(app: Sphinx, error: Exception | None) -> None:
    """Lets the folder of the site open with the front page."""
    if error is None and app.builder.format == "html":
        shutil.copy(Path(app.outdir, "README.html"), Path(app.outdir, "index.html"))


def _copy_gallery(app: Sphinx, error: Exception | None) -> None:
    """Puts the reports of the gallery beside its page. They are pages of their own, without the frame of the site."""
    if error is None and app.builder.format == "html":
        shutil.copytree(Path(app.confdir, "gallery"), Path(app.outdir, "docs/gallery"), dirs_exist_ok=True)
