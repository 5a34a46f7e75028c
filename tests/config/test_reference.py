"""What is told of the keys is what the schema takes, and the page of them is up to date."""

import dataclasses
import json
import tomllib
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from cacl.config import Config, RootConfig
from cacl.config.reference import Key, sections
from cacl.errors import ConfigError
from docs import configuration
from tests.config.keys import DEFAULTS

KEYS = {key.name: key for section in sections() for key in section.keys}
ENTRIES = {key.name: key for section in sections() if section.is_list for key in section.keys}
"""The keys of sections that are entries of a list."""


def test_every_key_is_told_with_its_default() -> None:
    assert {name: key.default for name, key in KEYS.items() if name not in ENTRIES} == DEFAULTS
    of_a_root = dataclasses.asdict(RootConfig())
    assert {name: key.default for name, key in ENTRIES.items()} == {f"data.roots.{k}": v for k, v in of_a_root.items()}
    for key in KEYS.values():
        default = tomllib.loads(f"value = {key.default_as_toml()}")["value"]
        assert default == (list(key.default) if isinstance(key.default, tuple) else key.default)
        assert type(default) is (list if isinstance(key.default, tuple) else type(key.default))


def test_every_key_has_a_meaning_in_whole_sentences_on_one_line() -> None:
    for key in KEYS.values():
        assert key.meaning.endswith(".")
        assert "\n" not in key.meaning
        assert "  " not in key.meaning
    assert len({key.meaning for key in KEYS.values()}) > 0.9 * len(KEYS)
    assert KEYS["clip.frames"].meaning == "T, the number of frames in a clip."
    assert KEYS["model.transformer.heads"].meaning.endswith("They divide the width.")


def test_sections_come_in_their_order() -> None:
    names = [section.name for section in sections()]
    assert names[:4] == ["", "data", "data.roots", "clip"]
    assert names[names.index("model") + 1] == "model.transformer"
    assert all(section.meaning for section in sections())


def taken(name: str, value: Any) -> bool:
    """Whether the schema takes a value of a key, which may still contradict another key."""
    values: Any = value
    for part in reversed(name.split(".")):
        values = {part: [values] if part == "roots" and name in ENTRIES else values}
    try:
        TypeAdapter(Config).validate_python(values)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("key", [key for key in KEYS.values() if key.choices], ids=lambda key: key.name)
def test_the_choices_are_those_that_are_taken(key: Key) -> None:
    assert all(taken(key.name, choice) for choice in key.choices)
    assert not taken(key.name, "another")
    assert all(json.dumps(choice) in key.type for choice in key.choices)


@pytest.mark.parametrize(
    ("name", "told", "inside", "outside"),
    [
        ("clip.frames", "whole number, at least 2, at most 255", [2, 255], [1, 256, 2.5]),
        ("seed", "whole number, at least 0, below 2^63", [0, 2**63 - 1], [-1, 2**63]),
        ("optim.lr", "number, above 0", [1e-9, 5], [0, "fast"]),
        ("augment.hue", "number, at least 0, at most 0.5", [0, 0.5], [-0.1, 0.51]),
        ("train.compile", "true or false", [True, False], [2, "perhaps"]),
        ("optim.name", "string", ["sgd"], [1, True]),
        ("data.roots", "a list of sections", [[], [{"root": "a"}, {"weight": 2}]], [["a"], {"root": "a"}, "a"]),
        ("data.roots.weight", "number, above 0", [1, 0.01], [0, "1"]),
        ("augment.crop", "[a, b], each a number, above 0", [[0.5, 1.0]], [[0.5], [0, 1.0], 0.5]),
    ],
)
def test_the_bounds_are_those_that_are_held(name: str, told: str, inside: list[Any], outside: list[Any]) -> None:
    assert KEYS[name].type == told
    assert all(taken(name, value) for value in inside)
    assert not any(taken(name, value) for value in outside)


def test_a_part_is_a_section_with_those_in_it_or_a_key() -> None:
    assert [section.name for section in sections("model")] == ["model", "model.transformer"]
    assert [section.name for section in sections("model.transformer")] == ["model.transformer"]
    assert [section.name for section in sections("data")] == ["data", "data.roots"]
    (section,) = sections("data.roots")
    assert section.heading == "[[data.roots]]"
    (section,) = sections("data.roots.weight")
    assert (section.heading, section.keys) == ("[[data.roots]]", (KEYS["data.roots.weight"],))
    (section,) = sections("clip.frames")
    assert section.heading == "[clip]"
    assert section.keys == (KEYS["clip.frames"],)
    (section,) = sections("seed")
    assert section.keys == (KEYS["seed"],)


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("clip.framse", "clip.framse: no such key; did you mean clip.frames?"),
        ("optm", "optm: no such key; did you mean optim?"),
        ("clip.q", "clip.q: no such key; clip has frames, stride, min_remaining_frames, max_frames_apart, size"),
        ("data.roots.wight", "data.roots.wight: no such key; did you mean data.roots.weight?"),
        ("clip.", "clip.: no such key; clip has frames, stride, min_remaining_frames, max_frames_apart, size"),
    ],
)
def test_an_unknown_part_is_one_line_with_the_way_out(part: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sections(part)
    assert str(caught.value) == told


def test_the_page_is_written_from_this_schema() -> None:
    assert configuration.PAGE.read_text(encoding="utf-8") == configuration.page(), "run python docs/configuration.py"


def test_the_page_has_a_row_of_four_cells_for_every_key() -> None:
    rows = [line for line in configuration.page().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == list(KEYS)
    assert {row.count("|") for row in rows} == {5}
