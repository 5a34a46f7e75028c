"""Who may import whom, read from the source: nothing imports upwards, and help needs no torch."""

import subprocess
import sys

import pytest

from docs import import_graph
from docs.import_graph import NOT_INSTALLED, ROW_OF, ROWS, TOP_LEVEL, folder_graph, folder_of, imported_modules
from tests.launch import ROOT

GRAPH = import_graph.import_graph()


def modules_in(folder: str) -> list[str]:
    return [module for module in GRAPH if folder_of(module) == folder]


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def test_the_graph_is_there() -> None:
    assert {"cacl", "cacl.training.trainer", "cacl.loaders.catalog.scan", "cacl.kernels", "cacl.models"} <= set(GRAPH)
    assert "cacl.loaders.catalog.scan" in GRAPH["cacl.training.training_videos"]
    assert any(
        "cacl.training.trainer" in GRAPH[module] for module in GRAPH if folder_of(module) in ("commands", "cli")
    ), "imports inside functions are not seen"
    unknown = {name for imports in GRAPH.values() for name in imports if name.split(".")[0] == "cacl"} - set(GRAPH)
    assert not unknown, "imports of modules that do not exist"


def test_imports_are_seen_wherever_they_stand() -> None:
    source = "from .clips import A\nfrom . import errors\nimport os.path\n"
    source += "def f():\n    if g:\n        from cacl import cli\n"
    known = {"cacl.clips", "cacl.errors", "cacl.cli"}
    found = set(imported_modules("cacl.files", source, known, is_package=False))
    assert found == {"cacl.clips", "cacl.errors", "os.path", "cacl.cli"}


def test_every_folder_has_its_row() -> None:
    assert set(folder_graph()) == set(ROW_OF)
    assert sum(map(len, ROWS)) == len(ROW_OF)


@pytest.mark.parametrize("folder", ROW_OF)
def test_a_folder_imports_only_what_stands_further_down(folder: str) -> None:
    wrong = {
        f"{module} imports {name}"
        for module in modules_in(folder)
        for name in GRAPH[module]
        if name.split(".")[0] == "cacl" and folder_of(name) not in ("", folder)
        if ROW_OF[folder_of(name)] <= ROW_OF[folder]
    }
    assert modules_in(folder)
    assert not wrong


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("cacl.models", ("cacl.models", "cacl.config", "cacl.errors", "cacl.registry")),
        (
            "cacl.loaders.catalog.layouts",
            ("cacl.loaders.catalog.layouts", "cacl.config", "cacl.errors", "cacl.registry"),
        ),
        ("cacl.loaders.sampling", ("cacl.loaders.sampling", "cacl.clips", "cacl.config")),
        ("cacl.loaders.progress", ()),
    ],
)
def test_what_needs_little_imports_little(package: str, allowed: tuple[str, ...]) -> None:
    modules = [module for module in GRAPH if within(module, package)]
    imports = {f"{m} imports {name}" for m in modules for name in GRAPH[m] if not any(within(name, a) for a in allowed)}
    assert modules
    assert not {line for line in imports if " imports cacl" in line}


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {module: {name for name in GRAPH[module] if name in GRAPH and name != module} for module in GRAPH}
    assert len(import_graph.without_detours(graph)) == len(GRAPH)


def test_the_picture_is_drawn_from_this_source() -> None:
    drawn = (ROOT / "docs/import_graph.svg").read_text(encoding="utf-8")
    assert drawn == import_graph.draw(), "draw it again: python docs/import_graph.py"


def test_kernels_need_torch_triton_numpy_and_numba_only() -> None:
    allowed = {"torch", "triton", "numpy", "numba", "cacl"} | sys.stdlib_module_names
    kernels = modules_in("kernels")
    assert not {f"{m} imports {name}" for m in kernels for name in GRAPH[m] if name.split(".")[0] not in allowed}
    assert {name for m in kernels for name in GRAPH[m] if name.startswith("cacl")} <= {*kernels, "cacl"}


@pytest.mark.parametrize("folder", ["errors", "files", "config", "registry"])
def test_what_every_command_imports_needs_no_torch(folder: str) -> None:
    assert "torch" not in {name.split(".")[0] for module in modules_in(folder) for name in GRAPH[module]}


def test_only_commands_and_their_own_folder_import_what_runs() -> None:
    for folder in ("benchmarks", "commands", "cli"):
        users = {other for other, imports in folder_graph().items() if folder in imports}
        assert users <= {"commands", "cli"}, folder


def test_nothing_that_is_installed_imports_what_is_not() -> None:
    outside = {"tests", "docs", "cli", *TOP_LEVEL.values()} - {"cacl"}
    assert not {f"{m} imports {name}" for m in GRAPH for name in GRAPH[m] if name.split(".")[0] in outside}
    scripts = tuple(f"cacl.benchmarks.{folder}" for folder in NOT_INSTALLED)
    assert not {f"{m} imports {name}" for m in GRAPH for name in GRAPH[m] if name.startswith(scripts)}


@pytest.mark.parametrize("module", ["cacl", "cacl.cli"])
def test_importing_leaves_the_heavy_packages_alone(module: str) -> None:
    heavy = ["torch", "nvidia.dali", "av", "torchvision", "timm", "matplotlib"]
    code = f"import sys, {module}; print(*(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [], "")
