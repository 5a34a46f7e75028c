"""`cacl recipes`, `cacl config`, and the arguments of `cacl train` that set keys."""

import tomllib
from pathlib import Path

import pytest

from cacl import config as configuration
from cacl.config import recipes
from cacl.config.reference import sections
from tests.commands.finished import Run, result
from tests.launch import ROOT


def test_recipes_are_listed_with_what_they_are(cacl: Run) -> None:
    finished = cacl("recipes")
    assert (finished.returncode, finished.stderr) == (0, "")
    rows = [line.split(maxsplit=1) for line in finished.stdout.splitlines()]
    told = [[name, recipes.summary(recipes.read(name))] for name in recipes.names()]
    assert rows == told
    assert result(cacl("recipes", "--json")) == [{"name": name, "summary": summary} for name, summary in told]


def test_a_recipe_is_printed_as_its_file(cacl: Run) -> None:
    text = (ROOT / "cacl/recipes/official.toml").read_text(encoding="utf-8")
    finished = cacl("recipes", "official")
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, text, "")
    assert result(cacl("recipes", "official", "--json"))["toml"] == text


def test_a_printed_recipe_trains_from_a_file(cacl: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(cacl("recipes", "demo").stdout)
    assert (
        cacl("train", "-c", tmp_path / "mine.toml", "--dry-run").stdout
        == cacl("train", "-c", "demo", "--dry-run").stdout
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["recipes", "dmo"], "cacl: dmo: is no recipe; did you mean demo? there are "),
        (["train", "-c", "dmo"], "cacl: dmo: is neither a recipe nor a file with a suffix; did you mean demo? "),
        (["bench-loader", "x", "-c", "dmo"], "cacl: dmo: is neither a recipe nor a file with a suffix; "),
        (["config", "clip.framse"], "cacl: clip.framse: no such key; did you mean clip.frames?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_name_is_one_line_with_the_nearest(cacl: Run, arguments: list[str], told: str) -> None:
    finished = cacl(*arguments)
    assert (finished.returncode, finished.stdout, finished.stderr.count("\n")) == (2, "", 1)
    assert finished.stderr.startswith(told)


def test_config_shows_every_key_and_its_meaning(cacl: Run) -> None:
    finished = cacl("config")
    assert (finished.returncode, finished.stderr) == (0, "")
    words = " ".join(finished.stdout.split())
    for section in sections():
        for key in section.keys:
            assert f"{key.name} = {key.default_as_toml()} {key.type} {key.meaning}" in words
    assert max(map(len, finished.stdout.splitlines())) <= 100


def test_config_shows_a_part(cacl: Run) -> None:
    assert [key["name"] for key in result(cacl("config", "losses", "--json"))] == ["losses"]
    assert cacl("config", "train.compile").stdout == (
        "[train]  # The length of a training, and how it is computed.\n\n"
        "train.compile = false\n    true or false\n    Whether the encoders are compiled with torch.compile.\n"
    )


@pytest.mark.parametrize("videos", ["path/to/videos", "2024", "true", "a b", 'quo"te', "C:\\videos", "[x]", ""])
def test_videos_and_run_are_taken_as_they_are_written(cacl: Run, videos: str) -> None:
    """They are no TOML: a folder may have the name of a number."""
    shown = tomllib.loads(cacl("train", videos, "--run", f"{videos}/run", "-c", "demo", "--dry-run").stdout)
    assert (shown["data"]["root"], shown["run"]) == (videos, f"{videos}/run")


def test_arguments_go_before_the_file_and_leave_the_rest(cacl: Run) -> None:
    shown = cacl("train", "mine", "--run", "here", "--config", "demo", "--set", "seed=7", "--dry-run").stdout
    assert shown == configuration.to_toml(configuration.load("demo", ["data.root=mine", "run=here", "seed=7"]))
    assert cacl("train", "-c", "demo", "--dry-run").stdout == configuration.to_toml(configuration.load("demo"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a", "-s", "data.root=b"], "data.root is given twice, as a and by --set data.root=b: leave one of them out"),
        (
            ["a", "-s", " data.root =a"],
            "data.root is given twice, as a and by --set data.root=a: leave one of them out",
        ),
        (["--run", "a", "-s", "run=3"], "run is given twice, as a and by --set run=3: leave one of them out"),
    ],
)
def test_a_key_that_is_given_twice_is_one_line(cacl: Run, arguments: list[str], told: str) -> None:
    finished = cacl("train", *arguments, "--dry-run")
    assert (finished.returncode, finished.stdout, finished.stderr) == (2, "", f"cacl: {told}\n")


def test_training_reads_the_videos_and_writes_the_run_that_are_given(
    cacl: Run, config_file: Path, videos: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    finished = cacl("train", videos, "--run", run, "-c", config_file, "-s", "train.epochs=0.5", "--json")
    assert (result(finished)["run"], result(finished)["steps"]) == (str(run), 1)
    saved = configuration.load(run / "config.toml")
    assert (saved.data.root, saved.run) == (str(videos), str(run))
