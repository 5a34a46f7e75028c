"""What the errors of a configuration say of unknown keys and wrong values."""

import math

import pytest

from cacl.config import load
from tests.config.keys import DEFAULTS, FLOATS, problem, problems


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("clip.framse", "clip.frames"),
        ("framse", "clip.frames"),
        ("lr", "optim.lr"),
        ("heads", "model.transformer.heads"),
        ("model.transformer.hads", "model.transformer.heads"),
        ("data.max_rejections", "data.max_rejected_share"),
        ("seeds", "seed"),
        ("data.rots", "data.roots"),
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
        ("model.cnn=r3d19", ["model.cnn", "'r3d19'", "no such encoder", "r3d18"]),
        ("augment.resize=[128]", ["augment.resize", "[128]"]),
        ("augment.color_arithmetic=pil", ["augment.color_arithmetic", "'pil'", "'linear'", "'pillow'"]),
        ("contrast.negatives=keys", ["contrast.negatives", "'keys'", "'queue'", "'batch'", "'both'"]),
        ("train.loggers=['weights']", ["train.loggers", "'weights'", "no such logger", "wandb", "trackio"]),
        ("train.loggers=wandb", ["train.loggers", "'wandb'"]),
        ("data.roots=[{root='a', weigth=2}]", ["data.roots.0.weigth", "no such key", "data.roots.weight?"]),
        ("data.roots=[{root='a'}, {root='b', weight=0}]", ["data.roots.1.weight", "0", "greater than 0"]),
        ("data.roots=['a']", ["data.roots.0", "'a'", "key = value"]),
        ("data.roots=a", ["data.roots", "'a'"]),
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


def test_the_seed_fits_the_random_streams() -> None:
    """`RandomStream` and torch take integers below 2**63."""
    assert load(None, [f"seed={2**63 - 1}"]).seed == 2**63 - 1
    assert problem(f"seed={2**63}").startswith(f"seed = {2**63}")


def test_the_floats_were_found() -> None:
    assert {"optim.lr", "train.epochs", "contrast.temperature"} <= set(FLOATS)
    assert all(math.isfinite(DEFAULTS[key]) for key in FLOATS)
