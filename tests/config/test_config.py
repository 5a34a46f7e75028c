"""The configuration: what is accepted, what each error says, and that what is written reads back the same."""

import ast
import dataclasses
import math
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cacl import config as configuration
from cacl.config import Config, differences, from_dict, load, override, to_dict, to_toml
from cacl.errors import ConfigError
from tests.launch import ROOT

CONFIGS = sorted((ROOT / "cacl/recipes").glob("*.toml"))


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


DEFAULTS = dict(leaves(dataclasses.asdict(Config())))
FLOATS = [key for key, value in DEFAULTS.items() if isinstance(value, float)]


def problems(*overrides: str) -> list[str]:
    """The lines of the error that these overrides of the defaults give."""
    with pytest.raises(ConfigError) as caught:
        load(None, overrides)
    return str(caught.value).splitlines()


def problem(*overrides: str) -> str:
    (line,) = problems(*overrides)
    return line


# --- Where values come from


def test_the_defaults_hold_together() -> None:
    assert load() == from_dict({}) == Config()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_published_configuration_loads(path: Path) -> None:
    loaded = load(path)
    written = dict(leaves(tomllib.loads(path.read_text())))
    found = dict(leaves(to_dict(loaded)))
    assert {key: list(v) if isinstance(v := found[key], tuple) else v for key in written} == written


def test_there_is_a_published_configuration() -> None:
    assert CONFIGS, "the glob above found nothing, so nothing was tested"


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


# --- --set


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
    assert problem("run=x", "run.here=1") == "--set run.here=1: run is a value, not a section"


@pytest.mark.parametrize(("text", "backend"), [("host", "cpu"), ("cpu", "cpu"), ("dali", "dali")])
def test_host_is_another_name_of_the_cpu_backend(text: str, backend: str) -> None:
    assert load(None, [f"loader.backend={text}"]).loader.backend == backend
    assert from_dict({"loader": {"backend": text}}).loader.backend == backend


# --- What errors say


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("clip.framse", "clip.frames"),
        ("framse", "clip.frames"),
        ("lr", "optim.lr"),
        ("heads", "model.transformer.heads"),
        ("model.transformer.hads", "model.transformer.heads"),
        ("data.max_rejections", "data.max_rejected"),
        ("seeds", "seed"),
    ],
)
def test_an_unknown_key_names_the_nearest(key: str, nearest: str) -> None:
    assert problem(f"{key}=1") == f"{key}: no such key; did you mean {nearest}?"


@pytest.mark.parametrize(
    ("key", "section", "nearest"),
    [("optimiser.lr", "optimiser", "optim"), ("transformer.heads", "transformer", "model.transformer")],
)
def test_an_unknown_section_names_the_nearest(key: str, section: str, nearest: str) -> None:
    assert problem(f"{key}=1") == f"{section}: no such key; did you mean {nearest}?"


def test_a_key_near_to_none_is_told_what_there_is() -> None:
    assert problem("zzz.bar=1").startswith("zzz: no such key; there are name, run, seed, data, clip, ")
    assert problem("optim.zzz=1").startswith("optim.zzz: no such key; optim has name, lr, ")


def test_the_section_alone_makes_no_key_near() -> None:
    """`optim.learning_rate` and `optim.name` share nothing but their section."""
    assert "optim.name" not in problem("optim.learning_rate=0.1")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("optim.lr=-1", ["optim.lr", "-1", "greater than 0"]),
        ("optim.lr=fast", ["optim.lr", "'fast'", "number"]),
        ("clip.frames=1", ["clip.frames", "1", "greater than or equal to 2"]),
        ("clip.frames=256", ["clip.frames", "256", "less than or equal to 255"]),
        ("clip.frames=8.5", ["clip.frames", "8.5", "integer"]),
        ("clip.frames=many", ["clip.frames", "'many'", "integer"]),
        ("augment.flip_prob=1.5", ["augment.flip_prob", "1.5", "less than or equal to 1"]),
        ("augment.hue=0.6", ["augment.hue", "0.6", "less than or equal to 0.5"]),
        ("augment.crop=[0.5]", ["augment.crop", "[0.5]"]),
        ("augment.crop=0.5", ["augment.crop", "0.5"]),
        ("augment.crop=[0, 1]", ["augment.crop", "0", "greater than 0"]),
        ("augment.crop=[0.5, 0.6, 0.7]", ["augment.crop", "[0.5, 0.6, 0.7]", "2"]),
        ("model.cnn=r3d19", ["model.cnn", "'r3d19'", "'r3d18'"]),
        ("augment.resize=[128]", ["augment.resize", "[128]"]),
        ("augment.arithmetic=pil", ["augment.arithmetic", "'pil'", "'linear'", "'pillow'"]),
        ("contrast.negatives=keys", ["contrast.negatives", "'keys'", "'queue'", "'batch'", "'both'"]),
        ("train.compile=perhaps", ["train.compile", "'perhaps'", "boolean"]),
        ("run=3", ["run", "3", "string"]),
        ("seed=-1", ["seed", "-1", "greater than or equal to 0"]),
        ("data=x", ["data", "'x'"]),
        ("optim.lr.value=1", ["optim.lr", "{'value': 1}", "number"]),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_bound(text: str, parts: list[str]) -> None:
    line = problem(text)
    assert line.startswith(parts[0])
    assert all(part in line for part in parts), line


def test_all_problems_are_told_at_once_one_a_line() -> None:
    found = problems("clip.framse=8", "optim.lr=-1", "model.cnn=r3d19", "model.transformer.depth=0")
    assert {line.split(" ")[0].rstrip(":") for line in found} == {
        "clip.framse",
        "optim.lr",
        "model.cnn",
        "model.transformer.depth",
    }
    assert len(found) == 4


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("key", FLOATS)
def test_no_number_may_be_infinite_or_none_at_all(key: str, value: str) -> None:
    assert problem(f"{key}={value}").startswith(f"{key} = {value}")


@pytest.mark.parametrize("key", ["optim.lr", "train.epochs", "train.log_every"])
def test_true_is_no_number(key: str) -> None:
    assert problem(f"{key}=true").startswith(f"{key} = True")


def test_the_seed_fits_the_draws() -> None:
    """`Draws` and torch take integers below 2**63."""
    assert load(None, [f"seed={2**63 - 1}"]).seed == 2**63 - 1
    assert problem(f"seed={2**63}").startswith(f"seed = {2**63}")


# --- Keys that contradict each other


CONTRADICTIONS = {
    "crop the wrong way round": (["augment.crop=[0.9, 0.8]"], ["augment.crop = [0.9, 0.8]"]),
    "crop beyond the frame": (["augment.crop=[0.9, 1.5]"], ["augment.crop = [0.9, 1.5]"]),
    "a height without a width": (["augment.resize=[128, 0]"], ["augment.resize = [128, 0]", "height and width"]),
    "resizing in dali": (
        ["augment.resize=[128, 171]", "loader.backend=dali"],
        ["augment.resize = [128, 171]", 'loader.backend = "dali"', '"cpu" can'],
    ),
    "jitter in dali": (
        ["augment.arithmetic=pillow", "loader.backend=dali"],
        ['augment.arithmetic = "pillow"', 'loader.backend = "dali"', '"cpu" can'],
    ),
    "a window shorter than a clip": (
        ["clip.min_remaining_frames=30"],
        ["clip.min_remaining_frames = 30", "clip.stride = 2", "span 31"],
    ),
    "warm-up by epochs": (
        ["optim.schedule_per=epoch", "optim.warmup_epochs=1"],
        ["optim.warmup_epochs = 1.0", 'optim.schedule_per = "epoch"', "set it to 0"],
    ),
    "half an epoch": (
        ["optim.schedule_per=epoch", "train.epochs=2.5"],
        ["train.epochs = 2.5", 'optim.schedule_per = "epoch"', "whole number"],
    ),
    "an epoch without a rate": (
        ["optim.schedule_per=epoch", "train.epochs=1"],
        ["train.epochs = 1.0", 'optim.schedule_per = "epoch"', "at least 2"],
    ),
    "heads": (["model.transformer.heads=5"], ["model.transformer.width = 768", "model.transformer.heads = 5"]),
    "nothing to train on": (["contrast.pairs=none", "order.weight=0"], ["contrast.pairs", "order.weight"]),
    "order without a CNN": (["contrast.pairs=transformer"], ["contrast.pairs", "order.weight"]),
    "groups that do not divide": (
        ["contrast.shuffle_bn_groups=3"],
        ["contrast.shuffle_bn_groups = 3", "train.batch_size = 64"],
    ),
    "groups of one": (["contrast.shuffle_bn_groups=64"], ["contrast.shuffle_bn_groups = 64", "train.batch_size = 64"]),
    "c3d in space": (["model.cnn=c3d", "clip.size=31"], ["clip.size = 31", "c3d", "32"]),
    "c3d in time": (["model.cnn=c3d", "clip.frames=7"], ["clip.frames = 7", "c3d", "8"]),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_contradiction_names_both_keys(name: str) -> None:
    overrides, parts = CONTRADICTIONS[name]
    line = problem(*overrides)
    assert all(part in line for part in parts), line


def test_several_contradictions_are_told_at_once() -> None:
    names = ["crop the wrong way round", "heads", "nothing to train on", "groups that do not divide", "c3d in space"]
    found = problems(*(override for name in names for override in CONTRADICTIONS[name][0]))
    assert len(found) == len(names)
    for line, name in zip(found, names, strict=True):
        assert all(part in line for part in CONTRADICTIONS[name][1]), line


@pytest.mark.parametrize(
    "overrides",
    [
        ["augment.crop=[0.5, 1]"],
        ["augment.crop=[1, 1]"],
        ["augment.resize=[128, 171]", "augment.arithmetic=pillow", "loader.backend=reference"],
        ["clip.min_remaining_frames=31"],
        ["clip.min_remaining_frames=100", "clip.stride=1"],
        ["optim.schedule_per=epoch", "train.epochs=2"],
        ["optim.warmup_epochs=1", "train.epochs=2.5"],
        ["contrast.pairs=none"],
        ["contrast.pairs=transformer", "order.weight=0"],
        ["contrast.shuffle_bn_groups=32"],
        ["clip.frames=8", "clip.size=32"],
        ["clip.frames=2", "clip.size=16", "model.cnn=r3d10"],
    ],
    ids=" ".join,
)
def test_the_bounds_themselves_are_allowed(overrides: list[str]) -> None:
    load(None, overrides)


# --- Writing


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


@pytest.mark.parametrize("path", [None, *CONFIGS], ids=lambda path: path.stem if path else "defaults")
def test_a_configuration_survives_toml_with_every_key_in_it(path: Path | None, tmp_path: Path) -> None:
    config = load(path, ["augment.crop=[0.25, 0.75]", "train.compile=true", "model.transformer.frozen=false"])
    written = tmp_path / "config.toml"
    written.write_text(to_toml(config), encoding="utf-8")
    assert load(written) == config
    assert list(dict(leaves(tomllib.loads(written.read_text())))) == list(DEFAULTS)


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


# --- Documentation

SHARED = {"AugmentConfig.contrast", "AugmentConfig.saturation"}
"""Keys that the docstring of an earlier one speaks for."""


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
    source = Path(configuration.__file__).read_text(encoding="utf-8")
    assert sorted(set(undocumented(source)) - SHARED) == []


def test_the_check_of_documentation_sees_what_is_missing() -> None:
    source = 'class A:\n    x: int = 1\n    "Doc."\n    y: int = 2\n    z: BConfig = B()\n    w: int = 3\n'
    assert list(undocumented(source)) == ["A.y", "A.w"]


def test_the_floats_were_found() -> None:
    assert {"optim.lr", "train.epochs", "contrast.temperature"} <= set(FLOATS)
    assert all(math.isfinite(DEFAULTS[key]) for key in FLOATS)
