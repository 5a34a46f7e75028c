"""Files stay under 400 lines and functions under 60, so that one can be read at a sitting."""

import ast

from tests.launch import ROOT

FOLDERS = ("benchmarks", "cacl", "docs", "examples", "kernels", "loaders", "tests")
LINKS = ("cacl/benchmarks", "cacl/kernels", "cacl/loaders", "cacl/cli.py")
FILE_LINES, FUNCTION_LINES = 400, 60


def test_no_file_and_no_function_is_long() -> None:
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    names = [name for path in paths if not (name := path.relative_to(ROOT).as_posix()).startswith(LINKS)]
    assert len(names) > 300
    long = []
    for name in names:
        source = (ROOT / name).read_text(encoding="utf-8")
        if source.count("\n") >= FILE_LINES:
            long.append(f"{name}: {source.count(chr(10))} lines")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines >= FUNCTION_LINES:
                    long.append(f"{name}: {node.name} has {lines} lines")
    assert not long
