"""Draws which folder imports which, as docs/import_graph.svg: `python docs/import_graph.py`.

The rows below are the architecture: a module imports only what stands in its own folder or in a row further down.
tests/test_layering.py holds the source to that, and the picture to the source.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TypeAlias
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[1]

ROWS = (
    ("cli",),
    ("commands",),
    ("benchmarks", "ablation", "reports"),
    ("profiling",),
    ("training",),
    ("search", "export"),
    ("evaluation",),
    ("checkpoints", "reporting", "loaders.clip_loader"),
    ("method", "loaders.prepared", "loaders.backends"),
    ("loaders.catalog", "loaders.synthetic"),
    ("kernels", "models", "loaders.decode", "loaders.sampling"),
    ("config",),
    ("registry",),
    ("clips", "files", "distributed", "stages", "loaders.progress"),
    ("errors",),
)
"""Folders and single modules of `cacl`, the highest first. Those of one row do not import each other."""

ROW_OF = {folder: number for number, row in enumerate(ROWS) for folder in row}

TOP_LEVEL = {"cacl": "cacl", "cacl.loaders": "loaders", "cacl.kernels": "kernels", "cacl.benchmarks": "benchmarks"}
"""Where a package lies in the repository. Inside cacl/ there are links to the others."""
NOT_INSTALLED = ("gpu", "scripts")
"""Folders of benchmarks/ that hold scripts for a checkout and no part of the package."""

EVERYWHERE = ("config", "registry", "clips", "files", "distributed", "stages", "loaders.progress", "errors")
"""What stands at the bottom of the picture without arrows, since nearly every folder imports some of it."""

BOX_WIDTH, BOX_HEIGHT, GAP, ROW_HEIGHT, MARGIN = 140, 34, 26, 84, 20
"""Pixels."""
SWEEPS = 8
"""How often the rows are ordered by the means of their neighbours, down and up again."""
FILL = {"loaders": ("#eef3f8", "#7d93aa"), "method": ("#fbf1e4", "#c9a063"), "other": ("#e9f4ec", "#6fa57f")}
METHOD = ("kernels", "models", "method", "training", "profiling", "evaluation", "export", "ablation", "checkpoints")


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
    """Returns the entry of ROWS that a module belongs to, or "" for `cacl` and `cacl.loaders` themselves."""
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
    edges = sorted(
        (folder, other)
        for folder, others in without_detours(folder_graph()).items()
        for other in others
        if other not in EVERYWHERE
    )
    rows = _ordered_rows(edges)
    width = 2 * MARGIN + max(_width(row) for row in rows)
    height = 2 * MARGIN + len(rows) * ROW_HEIGHT + BOX_HEIGHT
    center = {item: (x, MARGIN + y * ROW_HEIGHT) for y, row in enumerate(rows) for item, x in _placed(row, width)}
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="14">',
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L10 5 L0 10 z" fill="#5b6470"/></marker></defs>',
        f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>',
        '<g fill="none" stroke="#5b6470" stroke-width="1.3" marker-end="url(#tip)">',
    ]
    for edge in edges:
        between = [center[(*edge, row)] for row in range(ROW_OF[edge[0]] + 1, ROW_OF[edge[1]])]
        lines.append(_arrow([center[edge[0]], *between, center[edge[1]]]))
    lines.append("</g>")
    for folder in ROW_OF:
        if folder not in EVERYWHERE:
            lines += _box(folder, *center[folder], BOX_WIDTH)
    shared = ", ".join(folder.replace(".", "/") for row in ROWS for folder in row if folder in EVERYWHERE)
    lines += _box(f"imported from everywhere: {shared}", width / 2, height - MARGIN - BOX_HEIGHT, width - 2 * MARGIN)
    return "\n".join([*lines, "</svg>", ""])


Item: TypeAlias = str | tuple[str, str, int]
"""What stands in a row of the picture: a folder, or the place where a long arrow passes through that row."""


def _ordered_rows(edges: list[tuple[str, str]]) -> list[list[Item]]:
    """Returns what stands in each row from left to right, so that few arrows cross and none runs through a box."""
    rows: list[list[Item]] = [[folder for folder in row if folder not in EVERYWHERE] for row in ROWS]
    rows = [row for row in rows if row]
    neighbours: dict[Item, list[Item]] = {}
    for start, end in edges:
        chain: list[Item] = [start, *((start, end, row) for row in range(ROW_OF[start] + 1, ROW_OF[end])), end]
        for item in chain[1:-1]:
            rows[item[2]].append(item)  # type: ignore[index]  # only the ends of a chain are folders
        for one, other in pairwise(chain):
            neighbours.setdefault(one, []).append(other)
            neighbours.setdefault(other, []).append(one)
    for _ in range(SWEEPS):  # the barycentre heuristic of Sugiyama et al. (1981)
        for number in (*range(len(rows)), *reversed(range(len(rows)))):
            center = {item: x for row in rows for item, x in _placed(row, 0)}
            mean_x = {item: fmean(center[other] for other in neighbours[item]) for item in rows[number]}
            rows[number].sort(key=lambda item: (round(mean_x[item], 3), str(item)))
    return rows


def _width(row: list[Item]) -> float:
    return sum(BOX_WIDTH if isinstance(item, str) else 0 for item in row) + GAP * (len(row) - 1)


def _placed(row: list[Item], width: float) -> Iterator[tuple[Item, float]]:
    """Yields the middle of each item of a row that is centred in this width, in pixels."""
    x = (width - _width(row)) / 2
    for item in row:
        half = BOX_WIDTH / 2 if isinstance(item, str) else 0
        yield item, round(x + half, 1)
        x += 2 * half + GAP


def _arrow(points: list[tuple[float, float]]) -> str:
    """Returns a path from the lower edge of the first box to the upper edge of the last one, straight in between."""
    (x, y), *between, (end_x, end_y) = points
    stops = [(x, y + BOX_HEIGHT)]
    for middle_x, middle_y in between:
        stops += [(middle_x, middle_y), (middle_x, middle_y + BOX_HEIGHT)]
    stops.append((end_x, end_y - 1))
    path = f"M{stops[0][0]:g} {stops[0][1]:g}"
    for (from_x, from_y), (to_x, to_y) in pairwise(stops):
        bend = (to_y - from_y) / 2
        path += f" C{from_x:g} {from_y + bend:g} {to_x:g} {to_y - bend:g} {to_x:g} {to_y:g}"
    return f'<path d="{path}"/>'


def _box(name: str, x: float, y: float, width: float) -> list[str]:
    kind = "loaders" if name.startswith("loaders") else "method" if name in METHOD else "other"
    fill, stroke = FILL[kind]
    return [
        f'<rect x="{x - width / 2:g}" y="{y:g}" width="{width:g}" height="{BOX_HEIGHT}" rx="7" fill="{fill}" '
        f'stroke="{stroke}"/>',
        f'<text x="{x:g}" y="{y + 22:g}" text-anchor="middle" fill="#1f2937">{escape(name.replace(".", "/"))}</text>',
    ]


if __name__ == "__main__":
    (ROOT / "docs/import_graph.svg").write_text(draw(), encoding="utf-8")
