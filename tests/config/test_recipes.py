"""Recipes are found by name, files by their path, and what is neither is told in one line."""

import re
from pathlib import Path

import pytest

from cacl.config import load, recipes
from cacl.errors import ConfigError
from docs import recipes as recipes_page
from tests.config.keys import RECIPES
from tests.launch import ROOT

LISTED = ", ".join(path.stem for path in RECIPES)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_names_are_those_of_the_files() -> None:
    assert "demo" in recipes.names()
    assert recipes.names() == [path.stem for path in RECIPES]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_found_by_name_from_anywhere(path: Path) -> None:
    assert load(path.stem) == load(path)
    assert load(path.stem).name == path.stem
    assert recipes.read(path.stem) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_in_a_sentence_of_its_own_what_it_is(path: Path) -> None:
    told = recipes.summary(path.read_text(encoding="utf-8"))
    assert told.startswith("This ")
    assert told.endswith(".")
    assert [recipes.summary(recipes.read(name)) for name in recipes.names()].count(told) == 1


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("# One sentence. Another one.\n", "One sentence."),
        ("# It goes on\n# here. And ends.\nname = 1\n# later\n", "It goes on here."),
        ("# By Guo et al. (2022), see demo.toml for more.\n", "By Guo et al. (2022), see demo.toml for more."),
        ("# no end", "no end"),
        ("name = 1\n# late.\n", ""),
    ],
)
def test_the_summary_is_the_first_sentence(text: str, summary: str) -> None:
    assert recipes.summary(text) == summary


def test_a_bare_name_is_a_recipe_whatever_lies_there() -> None:
    Path("demo").write_text('name = "mine"')
    assert load("demo").name == "demo"
    assert load("./demo").name == "mine"


def test_what_has_a_suffix_is_a_file_if_it_is_there() -> None:
    Path("mine.toml").write_text('name = "mine"')
    assert load("mine.toml").name == load(Path("mine.toml")).name == "mine"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("dmo", f"dmo: is neither a recipe nor a file with a suffix; did you mean demo? there are {LISTED}"),
        (
            "demo.toml",
            f"demo.toml: is neither a recipe nor a file with a suffix; did you mean demo? there are {LISTED}",
        ),
        ("qqq", f"qqq: is neither a recipe nor a file with a suffix; there are {LISTED}"),
        ("", f": is neither a recipe nor a file with a suffix; there are {LISTED}"),
        ("../gone/demo.toml", "../gone/demo.toml: cannot be read (No such file or directory)"),
    ],
)
def test_what_is_neither_is_one_line(given: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(given)
    assert str(caught.value) == told


def test_a_file_without_a_suffix_is_told_how_it_is_named() -> None:
    Path("mine").write_text('name = "mine"')
    with pytest.raises(
        ConfigError, match=r"^mine: is neither a recipe nor a file with a suffix \(\./mine is the file\); "
    ):
        load("mine")


def test_no_recipe_is_read_from_outside() -> None:
    for name in ("../config/demo", "mine", "demo.toml"):
        with pytest.raises(ConfigError, match=f"is no recipe; .*there are {LISTED}$"):
            recipes.read(name)


def test_the_pages_and_scripts_name_recipes_that_are_there() -> None:
    places = [ROOT / "README.md", ROOT / "Makefile", ROOT / "benchmarks/gpu/device.sh", *(ROOT / "docs").glob("*.md")]
    recipe = re.compile(r"--config (\w+)(?![\w/.])")  # not the path of a file
    named = {name for place in places for name in recipe.findall(place.read_text(encoding="utf-8"))}
    assert {"demo", "official"} <= named
    assert named - {"NAME_OR_FILE"} <= set(recipes.names())


def test_the_page_of_recipes_is_written_from_them() -> None:
    assert recipes_page.PAGE.read_text(encoding="utf-8") == recipes_page.page(), "run python docs/recipes.py"
    assert all(f"\n## {path.stem}\n" in recipes_page.page() for path in RECIPES)
