"""Every key has a docstring."""

import ast
import inspect
from collections.abc import Iterator

from cacl.config import data_schema, schema


def undocumented(source: str) -> Iterator[str]:
    """Class.field of every annotated assignment without a docstring after it; sections speak through their fields."""
    for cls in ast.parse(source).body:
        if not isinstance(cls, ast.ClassDef):
            continue
        for statement, after in zip(cls.body, [*cls.body[1:], None], strict=True):
            if not isinstance(statement, ast.AnnAssign) or ast.unparse(statement.annotation).endswith("Config"):
                continue
            documented = (
                isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
                and after.value.value.strip() != ""
            )
            if not documented:
                yield f"{cls.name}.{ast.unparse(statement.target)}"


def test_every_key_has_its_meaning_beside_it() -> None:
    for module in (schema, data_schema):
        assert list(undocumented(inspect.getsource(module))) == []


def test_the_check_of_documentation_sees_what_is_missing() -> None:
    source = 'class A:\n    x: int = 1\n    "Doc."\n    y: int = 2\n    z: BConfig = B()\n    w: int = 3\n'
    assert list(undocumented(source)) == ["A.y", "A.w"]
