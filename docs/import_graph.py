"""Draws which folder imports which, as docs/import_graph.svg: `python docs/import_graph.py`.

The rows below are the architecture: a module imports only what stands in its own folder or in a row further down.
tests/test_layering.py holds the source to that, and the picture to the source.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[1]

ROWS = (
    ("cli",),
    ("benchmarks",),
    ("training", "evaluation"),
    ("checkpoints", "reporting"),
    ("method", "loaders.prepared", "loaders.backends"),
    ("loaders.catalog", "loaders.synthetic"),
    ("kernels", "models", "loaders.decode", "loaders.sampling"),
    ("config",),
    ("clips", "files", "distributed", "loaders.progress"),
    ("errors",),
)
"""Folders and single modules of `cacl`, the highest first. Those of one row do not import each other."""

TOP_LEVEL = {"cacl": "cacl", "cacl.loaders": "loaders", "cacl.kernels": "kernels", "cacl.benchmarks": "benchmarks"}
"""Where a package lies in the repository. Inside cacl/ there are links to the others."""
NOT_INSTALLED = ("gpu", "scripts")
"""Folders of benchmarks/ that hold scripts for a checkout and no part of the package."""

BOX_WIDTH, BOX_HEIGHT, GAP, ROW_HEIGHT, MARGIN = 150, 34, 36, 78, 20
"""Pixels."""
FILL = {"loaders": ("#eef3f8", "#7d93aa"), "method": ("#fbf1e4", "#c9a063"), "other": ("#e9f4ec", "#6fa57f")}
METHOD = ("kernels", "models", "method", "training", "evaluation", "checkpoints")


def source_files() -> dict[str, Path]:
    """Returns the file of every module of the package by its dotted name."""
    found = {"cacl.cli": ROOT / "cli.py"}
    for package, folder in TOP_LEVEL.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            if package == "cacl" and parts[0] in ("benchmarks", "loaders", "kernels", "cli"):
                continue  # Python 3.13 follows links here; what they lead to is found in its own place.
            if package == "cacl.benchmarks" and parts[0] in NOT_INSTALLED:
                continue
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


def imported_modules(module: str, source: str, modules: set[str], *, is_package: bool) -> Iterator[str]:
    """Yields every module that this source imports, also within functions and for the type checker only.

    Args:
        module: Its dotted name, to which relative imports refer.
        source: Its text.
        modules: The known modules, which tell `from package import module` from `from module import name`.
        is_package: Whether the source is an `__init__.py`.
    """
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield name if name in modules else base


@cache
def import_graph() -> dict[str, set[str]]:
    """Returns the modules that each module of the package imports, its own and those of others."""
    files = source_files()
    return {
        module: set(
            imported_modules(
                module, path.read_text(encoding="utf-8"), set(files), is_package=path.name == "__init__.py"
            )
        )
        for module, path in files.items()
    }


def folder_of(module: str) -> str:
    """Returns the entry of ROWS that a module belongs to, or an empty string for `cacl` and `cacl.loaders` themselves."""
    parts = module.split(".")[1:]
    return ".".join(parts[:2] if parts[:1] == ["loaders"] else parts[:1]) if parts != ["loaders"] else ""


def folder_graph() -> dict[str, set[str]]:
    """Returns the folders that each folder imports, without itself."""
    graph: dict[str, set[str]] = {}
    for module, imports in import_graph().items():
        if folder := folder_of(module):
            others = {folder_of(name) for name in imports if name.split(".")[0] == "cacl"}
            graph.setdefault(folder, set()).update(others - {folder, ""})
    return graph


def without_detours(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Returns the graph without the edges that a longer path implies: its transitive reduction.

    Raises:
        graphlib.CycleError: Folders import each other in a circle.
    """
    reachable: dict[str, set[str]] = {}
    for folder in TopologicalSorter(graph).static_order():
        reachable[folder] = graph[folder].union(*(reachable[other] for other in graph[folder]))
    return {
        folder: {other for other in others if not any(other in reachable[between] for between in others)}
        for folder, others in graph.items()
    }


def draw() -> str:
    """Returns the picture as SVG."""
    widest = max(map(len, ROWS))
    width = 2 * MARGIN + widest * BOX_WIDTH + (widest - 1) * GAP
    height = 2 * MARGIN + (len(ROWS) - 1) * ROW_HEIGHT + BOX_HEIGHT
    center = {}
    for number, row in enumerate(ROWS):
        left = (width - len(row) * BOX_WIDTH - (len(row) - 1) * GAP) / 2
        for column, folder in enumerate(row):
            x = left + column * (BOX_WIDTH + GAP) + BOX_WIDTH / 2
            center[folder] = (x, MARGIN + number * ROW_HEIGHT)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="14">',
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L10 5 L0 10 z" fill="#5b6470"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        '<g fill="none" stroke="#5b6470" stroke-width="1.3" marker-end="url(#tip)">',
    ]
    for folder, others in sorted(without_detours(folder_graph()).items()):
        lines += [_arrow(*center[folder], *center[other]) for other in sorted(others)]
    lines.append("</g>")
    for folder, (x, y) in center.items():
        lines += _box(folder, x, y)
    return "\n".join([*lines, "</svg>", ""])


def _arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    start, end = y + BOX_HEIGHT, to_y - 1
    bend = min(40.0, (end - start) / 2)
    return f'<path d="M{x:g} {start:g} C{x:g} {start + bend:g} {to_x:g} {end - bend:g} {to_x:g} {end:g}"/>'


def _box(folder: str, x: float, y: float) -> list[str]:
    kind = "loaders" if folder.startswith("loaders") else "method" if folder in METHOD else "other"
    fill, stroke = FILL[kind]
    name = folder.replace(".", "/")
    return [
        f'<rect x="{x - BOX_WIDTH / 2:g}" y="{y:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="7" fill="{fill}" '
        f'stroke="{stroke}"/>',
        f'<text x="{x:g}" y="{y + 22:g}" text-anchor="middle" fill="#1f2937">{escape(name)}</text>',
    ]


if __name__ == "__main__":
    (ROOT / "docs/import_graph.svg").write_text(draw(), encoding="utf-8")
