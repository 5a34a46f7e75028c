"""Writes a page: one HTML file that holds its styles, scripts, pictures and data, and loads nothing from elsewhere.

A content security policy in the page keeps browsers from loading anything, whatever stands in its data.
"""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from cacl import __version__
from cacl.errors import DataError, UsageError, reason_of
from cacl.files import atomic_write

PAGE_NAME = "index.html"
"""The name of the page in its folder."""

NAMED_PACKAGES = ("torch", "torchvision", "timm", "numpy", "av", "nvidia-dali-cuda130", "triton")
"""The packages whose versions a page tells, besides Python and cacl itself."""

_TEMPLATES = Environment(
    loader=PackageLoader("cacl.reports"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def make_report_folder(folder: Path, option: str = "--report") -> Path:
    """Makes the folder of a report, so that a command can say at once that it cannot.

    Args:
        folder: The folder; one that is there already is taken, and a page in it is replaced.
        option: The option of the command that names the folder, for the message.

    Returns:
        The folder.

    Raises:
        UsageError: No such folder can be made, or none of its files.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{option} {folder}: no such folder can be made ({reason_of(error)})") from None
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UsageError(f"{option} {folder}: cannot be written into ({reason_of(error)})") from None
    return folder


@contextmanager
def report_file(file: Path) -> Iterator[Path]:
    """Yields a temporary path, which becomes a file of a report when the block ends, as in `atomic_write`.

    Args:
        file: The file. Its folder must exist.

    Raises:
        DataError: The file cannot be written.
    """
    try:
        with atomic_write(file) as temporary:
            yield temporary
    except OSError as error:
        raise DataError(f"{file}: cannot be written ({reason_of(error)})") from None


def write_page(folder: Path, template: str, *, title: str, **values: Any) -> Path:
    """Writes a page.

    Args:
        folder: The folder of the page, which exists.
        template: The name of a template in `templates/`.
        title: The heading of the page.
        **values: What else the template takes. Text is escaped in it.

    Returns:
        The file that was written, whole or not at all.

    Raises:
        DataError: The file cannot be written.
    """
    file = folder / PAGE_NAME
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    text = _TEMPLATES.get_template(template).render(title=title, written=written, versions=_versions(), **values)
    with report_file(file) as temporary:
        temporary.write_text(printable(text), encoding="utf-8")
    return file


def printable(text: str) -> str:
    """Returns a text with backslashes for what is no UTF-8 in it, as in names of files."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _versions() -> Mapping[str, str]:
    found = {"cacl": __version__, "Python": platform.python_version()}
    for name in NAMED_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
