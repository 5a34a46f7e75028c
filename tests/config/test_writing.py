"""What is written reads back the same, and the differences of two configurations."""

import dataclasses
import tomllib
from pathlib import Path

import pytest

from cacl.config import RootConfig, differences, from_dict, load, to_toml
from tests.config.keys import DEFAULTS, RECIPES, leaves

STRINGS = {
    "quotes": """a "b" 'c'""",
    "backslashes": r"C:\new\table" + "\\",
    "both": r"\"",
    "umlauts": "café 视频 😀",
    "tab": "a\tb",
    "newline": "a\nb",
    "carriage return": "a\r\nb",
    "control characters": "a\x01\x1b\x7fb",
    "comment": "a # b = c",
    "empty": "",
}


@pytest.mark.parametrize("name", STRINGS)
def test_a_string_survives_toml(name: str) -> None:
    config = from_dict({"name": STRINGS[name], "data": {"root": STRINGS[name]}})
    assert from_dict(tomllib.loads(to_toml(config))) == config


@pytest.mark.parametrize("value", [1e-300, 5e-324, 1e300, 0.1 + 0.2, 1 / 3, 1e22, 3.0])
def test_a_number_survives_toml(value: float) -> None:
    config = from_dict({"optim": {"lr": value}, "train": {"epochs": value}})
    assert from_dict(tomllib.loads(to_toml(config))) == config


@pytest.mark.parametrize("path", [None, *RECIPES], ids=lambda path: path.stem if path else "defaults")
def test_a_configuration_survives_toml_with_every_key_in_it(path: Path | None, tmp_path: Path) -> None:
    config = load(path, ["augment.crop=[0.25, 0.75]", "train.compile=true", "model.transformer.frozen=false"])
    written = tmp_path / "config.toml"
    written.write_text(to_toml(config), encoding="utf-8")
    assert load(written) == config
    keys = {key.replace("losses", "losses.contrast") for key in DEFAULTS} | {"losses.order"}
    assert set(dict(leaves(tomllib.loads(written.read_text())))) == keys


def test_several_roots_are_read_from_a_file_and_from_the_command_line_and_written(tmp_path: Path) -> None:
    file = tmp_path / "roots.toml"
    file.write_text(
        "[data]\nmax_rejected_share = 0.5\n[[data.roots]]\nroot = 'a'\nlayout = 'kinetics'\nweight = 2\n"
        "[[data.roots]]\nroot = 'https://b/set'\nfold = 3\n"
    )
    config = load(file)
    assert config.data.roots == (
        RootConfig(root="a", layout="kinetics", weight=2.0),
        RootConfig(root="https://b/set", fold=3),
    )
    inline = "data.roots=[{root='a', layout='kinetics', weight=2}, {root='https://b/set', fold=3}]"
    assert load(None, [inline, "data.max_rejected_share=0.5"]) == config
    assert from_dict(tomllib.loads(to_toml(config))) == config
    (difference,) = differences(config, load(file, ["data.roots=[{root='a'}]"]))
    assert difference.startswith("data.roots: ({'root': 'a', ")


def test_differences_are_the_leaves_that_differ() -> None:
    old = load(None, ["run=a"])
    new = load(None, ["run=b", "model.transformer.width=12", "augment.crop=[0.5, 0.5]", "optim.name=sgd"])
    assert differences(old, old) == []
    assert differences(old, new) == [
        "run: a -> b",
        "augment.crop: (0.875, 0.875) -> (0.5, 0.5)",
        "model.transformer.width: 768 -> 12",
    ]
    assert len(differences(new, old)) == 3


def test_a_loss_that_only_one_configuration_has_is_a_difference() -> None:
    old = load(None, [])
    new = dataclasses.replace(old, losses={"contrast": 1.0, "order": 1.0, "variance": 0.1})
    assert differences(old, new) == ["losses.variance: unset -> 0.1"]
    assert differences(new, old) == ["losses.variance: 0.1 -> unset"]
