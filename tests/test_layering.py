"""Who may import whom, read from the source: nothing imports upwards, and help needs no torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.launch import ROOT

LEAVES = {"cacl.errors", "cacl.config", "cacl.clips", "cacl.files"}
MAY_IMPORT = {
    "cacl.errors": set(),
    "cacl.clips": set(),
    "cacl.config": {"cacl.config", "cacl.errors"},
    "cacl.kernels": {"cacl.kernels"},
    "cacl.models": {"cacl.config", "cacl.errors", "cacl.models"},
    "cacl.loaders": LEAVES | {"cacl.loaders", "cacl.kernels"},
    "cacl.method.losses": LEAVES | {"cacl.kernels", "cacl.method.pairs"},
}
"""All of cacl that a module, or the modules of a package, may import."""

COMMANDS = {"cacl.training.trainer", "cacl.evaluation.retrieval", "cacl.benchmarks", "cacl.profile"}
METHOD = ["learner", "encoders", "losses", "momentum", "queue", "optim", "models", "kernels"]
"""What computes. It knows neither files nor commands."""


PLACES = {"cacl": "cacl", "cacl.loaders": "loaders", "cacl.kernels": "kernels", "cacl.benchmarks": "benchmarks"}


def sources() -> dict[str, Path]:
    """The file of every module; the links inside cacl/ are left out, what they lead to is found in its own place."""
    found = {"cacl.cli": ROOT / "cli.py"}
    for package, folder in PLACES.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            if package == "cacl.benchmarks" and parts[0] in ("gpu", "scripts"):
                continue  # scripts of a checkout
            if package == "cacl" and parts[0] in ("benchmarks", "loaders", "kernels", "cli"):
                continue
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


SOURCES = sources()


def imported(module: str, source: str, modules: set[str]) -> Iterator[str]:
    """Every module that this one imports, anywhere in it: in functions and for the type checker too."""
    package = module if SOURCES.get(module, Path()).name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield name if name in modules else base


GRAPH = {
    module: set(imported(module, path.read_text(encoding="utf-8"), set(SOURCES))) for module, path in SOURCES.items()
}


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def of_cacl(module: str) -> set[str]:
    return {name for name in GRAPH[module] if within(name, "cacl")}


def test_the_graph_is_there() -> None:
    assert {"cacl", "cacl.training.trainer", "cacl.loaders.catalog.scan", "cacl.kernels", "cacl.models"} <= set(GRAPH)
    assert "cacl.loaders.catalog.scan" in GRAPH["cacl.training.trainer"]
    assert "cacl.training.trainer" in GRAPH["cacl.cli"], "imports inside functions are not seen"
    unknown = {name for module in GRAPH for name in of_cacl(module)} - set(GRAPH)
    assert not unknown, "imports of modules that do not exist"


def test_imports_are_seen_wherever_they_stand() -> None:
    source = "from .clips import A\nfrom . import errors\nimport os.path\n"
    source += "def f():\n    if g:\n        from cacl import cli\n"
    found = set(imported("cacl.files", source, {"cacl.clips", "cacl.errors", "cacl.cli"}))
    assert found == {"cacl.clips", "cacl.errors", "os.path", "cacl.cli"}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_what_a_package_may_import(package: str) -> None:
    modules = [module for module in GRAPH if within(module, package)]
    assert modules
    wrong = {
        f"{module} imports {name}"
        for module in modules
        for name in of_cacl(module)
        if not any(within(name, allowed) for allowed in MAY_IMPORT[package])
    }
    assert not wrong


def test_kernels_need_torch_triton_and_numpy_only() -> None:
    allowed = {"torch", "triton", "numpy", "cacl"} | sys.stdlib_module_names
    kernels = [module for module in GRAPH if within(module, "cacl.kernels")]
    assert not {f"{m} imports {name}" for m in kernels for name in GRAPH[m] if name.split(".")[0] not in allowed}


def test_the_leaves_need_no_torch() -> None:
    """Except to the type checker, in `clips`."""
    for module in ("cacl.errors", "cacl.config.schema", "cacl.config.rules", "cacl.config.loading"):
        assert "torch" not in {name.split(".")[0] for name in GRAPH[module]}


def test_nothing_imports_the_command_line() -> None:
    assert not {module for module in GRAPH if "cacl.cli" in GRAPH[module]}


def users(package: str) -> set[str]:
    return {module for module in GRAPH if any(within(name, package) for name in GRAPH[module])}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_only_the_command_line_imports_commands(command: str) -> None:
    allowed = COMMANDS | {"cacl.cli"}
    assert not {user for user in users(command) if not any(within(user, one) for one in allowed)}


def test_nothing_measured_knows_what_measures_it() -> None:
    """Not even the other commands."""
    assert "cacl.benchmarks.loader.command" in users("cacl.benchmarks")
    assert not {user for user in users("cacl.benchmarks") if user != "cacl.cli" and not within(user, "cacl.benchmarks")}


def test_the_method_knows_neither_files_nor_commands() -> None:
    method = [module for module in GRAPH if any(within(module, f"cacl.{part}") for part in METHOD)]
    above = {
        "cacl.loaders",
        "cacl.reporting.console",
        "cacl.checkpoints.checkpoint",
        "cacl.evaluation.features",
        *COMMANDS,
    }
    assert not {f"{m} imports {name}" for m in method for name in of_cacl(m) if any(within(name, a) for a in above)}


def test_nothing_imports_itself_in_a_circle() -> None:
    graph = {module: {name for name in GRAPH[module] if name in GRAPH and name != module} for module in GRAPH}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_nothing_that_is_installed_imports_what_is_not() -> None:
    outside = {"benchmarks", "tests", "loaders", "kernels", "cli"}
    assert not {f"{m} imports {name}" for m in GRAPH for name in GRAPH[m] if name.split(".")[0] in outside}


@pytest.mark.parametrize("module", ["cacl", "cacl.cli"])
def test_importing_leaves_the_heavy_packages_alone(module: str) -> None:
    heavy = ["torch", "nvidia.dali", "av", "torchvision", "timm"]
    code = f"import sys, {module}; print(*(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [], "")
