"""The rows of an ablation: what the default ones train, and how others are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from cacl import config as configuration
from cacl.ablation.rows import Row, method_rows, parse_row, read_rows, with_recipe
from cacl.config import Config
from cacl.errors import ConfigError, UsageError
from cacl.method.cacl import CACL
from tests.tiny import tiny_config

METHOD = tiny_config("run", {"losses": {"order": 0.5}, "contrast": {"pairs": "official"}})


def heads_of(config: Config) -> dict[str, list[str]]:
    """Builds the method, and returns the losses that each of its encoders has a head for."""
    query = CACL(config).query
    heads = {"cnn": (query.cnn, query.cnn_heads), "transformer": (query.transformer, query.transformer_heads)}
    return {name: sorted(losses) for name, (encoder, losses) in heads.items() if encoder is not None}


def test_the_rows_of_the_method_train_what_they_say() -> None:
    rows = {row.name: row.config for row in method_rows(METHOD)}
    assert list(rows) == ["cnn alone", "transformer alone", "without order", "order alone"]
    assert heads_of(rows["cnn alone"]) == {"cnn": ["contrast"]}
    assert heads_of(rows["transformer alone"]) == {"transformer": ["contrast"]}
    assert heads_of(rows["without order"]) == {"cnn": ["contrast"], "transformer": ["contrast"]}
    assert heads_of(rows["order alone"]) == {"cnn": ["order"]}
    assert heads_of(METHOD) == {"cnn": ["contrast", "order"], "transformer": ["contrast"]}
    assert rows["without order"].contrast.pairs == "official"
    assert rows["order alone"].losses["order"] == 0.5
    for config in rows.values():  # Nothing but losses and pairs is another.
        changed = [line.partition(":")[0] for line in configuration.differences(METHOD, config)]
        assert changed
        assert set(changed) <= {"losses.order", "losses.contrast", "contrast.pairs"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"losses.order": 0.0}, ["cnn alone", "transformer alone"]),
        ({"contrast.pairs": "cnn"}, ["cnn alone", "transformer alone", "order alone"]),
        ({"losses.contrast": 0.0}, []),
        (
            {"contrast.reversed_weight": 1.0},
            ["cnn alone", "transformer alone", "without reversed", "without order", "order alone"],
        ),
        ({"contrast.pairs": "cnn", "losses.order": 0.0}, ["transformer alone"]),
    ],
)
def test_a_part_that_the_recipe_does_not_have_has_no_row(changes: dict[str, object], expected: list[str]) -> None:
    recipe = configuration.replace(METHOD, changes)
    rows = method_rows(recipe)
    assert [row.name for row in rows] == expected
    configs = [recipe, *(row.config for row in rows)]
    assert all(one != other for number, one in enumerate(configs) for other in configs[:number])


def test_a_row_of_the_command_line_and_of_a_file(tmp_path: Path) -> None:
    expected = configuration.replace(METHOD, {"contrast.negatives": "batch", "augment.crop": (0.5, 1.0)})
    row = parse_row("batch, wide: contrast.negatives=batch augment.crop=[0.5,1.0]", METHOD)
    assert (row.name, row.folder, row.config) == ("batch, wide", "batch,_wide", expected)
    assert parse_row("as it is:", METHOD).config == METHOD
    file = tmp_path / "rows.toml"
    file.write_text(
        '["batch, wide"]\ncontrast.negatives = "batch"\naugment.crop = [0.5, 1.0]\n["as it is"]\n'
        "[low]\noptim.lr = 1e-3\nlosses.order = 0.25\n"
    )
    rows = read_rows(file, METHOD)
    assert [read.name for read in rows] == ["batch, wide", "as it is", "low"]
    assert [read.config for read in rows[:2]] == [expected, METHOD]
    assert rows[2].config == configuration.replace(METHOD, {"optim.lr": 1e-3, "losses.order": 0.25})


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("optim.lr=1", UsageError, '--row "optim.lr=1": write it as "name: key=value key=value"'),
        ("crop: augment.crop=[0.5, 1.0]", UsageError, "values with blanks in them go into a file for --rows"),
        ("../up: optim.lr=1", UsageError, "row '../up': its folder is called after it"),
        (": optim.lr=1", UsageError, "row '': its folder is called after it"),
        ("untrained: optim.lr=1", UsageError, "row 'untrained': is what the table calls the untrained encoders"),
        ("low: optim.lrr=1", ConfigError, "row 'low': optim.lrr: no such key; did you mean optim.lr?"),
        ("none: losses.order=0 losses.contrast=0", ConfigError, "row 'none': losses = "),
        ("other: seed=3", UsageError, "row 'other': each run has its own seed; leave it out"),
        ("other: run=here", UsageError, "row 'other': each run has its own run; leave it out"),
    ],
)
def test_what_is_wrong_with_a_row_is_one_line(text: str, error: type[Exception], told: str) -> None:
    with pytest.raises(error) as caught:
        parse_row(text, METHOD)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "rows.toml"
    for text, told in (("optim = ", "is not valid TOML"), ("lr = 1", "lr is no row"), (None, "cannot be read")):
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_text(text)
        with pytest.raises(UsageError, match=told) as caught:
            read_rows(file, METHOD)
        assert str(caught.value).startswith(f"--rows {file}: ")


def test_the_recipe_stands_beside_its_rows() -> None:
    row = Row(name="a b", config=METHOD)
    assert [found.name for found in with_recipe([row], METHOD, "recipe")] == ["a b", "recipe"]
    assert [found.name for found in with_recipe([row], METHOD, "a b")] == ["a b"]
    own = Row(name="recipe", config=METHOD)
    assert with_recipe([own, row], METHOD, "recipe") == [own, row]
    with pytest.raises(UsageError, match=r"--reference b: there is no such row; there are a b"):
        with_recipe([row], METHOD, "b")
    with pytest.raises(UsageError, match=r"rows 'a b' and 'a_b' would share a folder"):
        with_recipe([row, Row(name="a_b", config=METHOD)], METHOD, "recipe")
