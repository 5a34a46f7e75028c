"""Where the values of a configuration come from: the defaults, a file, and `--set`."""

import dataclasses
import tomllib
from pathlib import Path

import pytest

from cacl.config import Config, differences, from_dict, load, override, to_dict
from tests.config.keys import RECIPES, leaves, problem


def test_the_defaults_hold_together() -> None:
    assert load() == from_dict({}) == Config()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_published_configuration_loads(path: Path) -> None:
    loaded = load(path)
    written = dict(leaves(tomllib.loads(path.read_text())))
    found = dict(leaves(to_dict(loaded)))
    assert {key: list(v) if isinstance(v := found[key], tuple) else v for key in written} == written


def test_there_is_a_published_configuration() -> None:
    assert RECIPES, "the glob above found nothing, so nothing was tested"


def test_overrides_go_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('name = "café"\n[optim]\nlr = 0.5\nmomentum = 0.5\n', encoding="utf-8")
    loaded = load(path, ["optim.lr=0.25", "optim.lr=0.125", "train.batch_size=8"])
    assert differences(Config(), loaded) == [
        "name: cacl -> café",
        "optim.lr: 0.01 -> 0.125",
        "optim.momentum: 0.9 -> 0.5",
        "train.batch_size: 64 -> 8",
    ]


def test_override_keeps_the_other_keys() -> None:
    first = load(None, ["optim.lr=0.25", "augment.crop=[0.5, 0.75]"])
    second = override(first, ["retrieval.clips_per_video=3"])
    assert differences(first, second) == ["retrieval.clips_per_video: 10 -> 3"]
    assert second.augment.crop == (0.5, 0.75)


def test_a_configuration_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().optim.lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("train.batch_size=8", 8),
        ("train.batch_size = 8 ", 8),
        ("optim.lr=0.5", 0.5),
        ("optim.lr=1e-3", 0.001),
        ("optim.lr=1", 1.0),
        ("train.compile=true", True),
        ("train.compile=false", False),
        ("model.cnn=r3d18", "r3d18"),
        ('model.cnn="r3d18"', "r3d18"),
        ("model.cnn='r3d18'", "r3d18"),
        ("run=runs/a b", "runs/a b"),
        ("data.root=/videos/x=y", "/videos/x=y"),
        ("data.root=", ""),
        ('data.root=""', ""),
        (r"data.root=C:\videos", r"C:\videos"),
        (r'data.root="C:\\videos"', r"C:\videos"),
        ("augment.crop=[0.5, 0.75]", (0.5, 0.75)),
        ("model.transformer.width=12", 12),
    ],
)
def test_set_takes_toml_and_bare_words(text: str, value: object) -> None:
    key = text.partition("=")[0].strip()
    found = dict(leaves(to_dict(load(None, [text]))))[key]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["optim.lr", "=3", "", " = 3"])
def test_set_without_key_or_value_says_how_to_write_it(text: str) -> None:
    assert problem(text) == f"--set {text}: write it as section.key=value"


def test_set_below_a_value_says_so() -> None:
    assert problem("run=x", "run.here=1") == "run.here = 1: run is a value, not a section"


@pytest.mark.parametrize(("text", "backend"), [("host", "cpu"), ("cpu", "cpu"), ("dali", "dali")])
def test_host_is_another_name_of_the_cpu_backend(text: str, backend: str) -> None:
    assert load(None, [f"loader.backend={text}"]).loader.backend == backend
    assert from_dict({"loader": {"backend": text}}).loader.backend == backend


def test_what_lies_below_is_left_as_it_is() -> None:
    base = {"model": {"transformer": {"embedder": "light"}}}
    assert load(None, ["model.cnn=c3d", "model.transformer.depth=2"], base=base).model.transformer.depth == 2
    assert base == {"model": {"transformer": {"embedder": "light"}}}
