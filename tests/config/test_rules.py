"""Keys that contradict each other, and the bounds that are still allowed."""

import pytest

from cacl.config import load
from tests.config.keys import problem, problems

CONTRADICTIONS = {
    "crop the wrong way round": (["augment.crop=[0.9, 0.8]"], ["augment.crop = [0.9, 0.8]"]),
    "a logger twice": (["train.loggers=['wandb', 'wandb']"], ["train.loggers = ['wandb', 'wandb']", "once"]),
    "crop beyond the frame": (["augment.crop=[0.9, 1.5]"], ["augment.crop = [0.9, 1.5]"]),
    "a height without a width": (["augment.resize=[128, 0]"], ["augment.resize = [128, 0]", "height and width"]),
    "a root beside several": (["data.root=a", "data.roots=[{root='b'}]"], ["data.root = 'a'", "data.roots = []"]),
    "a layout beside several roots": (
        ["data.layout=classes", "data.roots=[{root='b'}]"],
        ["data.layout = 'classes'", "each root has its own", "data.roots = []"],
    ),
    "a root without a place": (["data.roots=[{root='a'}, {weight=2}]"], ["data.roots.1.root", "is not set"]),
    "a root twice": (
        ["data.roots=[{root='a'}, {root='b'}, {root='a', weight=2}]"],
        ["data.roots.2.root = 'a'", "root 0", "once"],
    ),
    "resizing in dali": (
        ["augment.resize=[128, 171]", "loader.backend=dali"],
        ["augment.resize = [128, 171]", 'loader.backend = "dali"', '"cpu" can'],
    ),
    "arithmetic of pillow in dali": (
        ["augment.color_arithmetic=pillow", "loader.backend=dali"],
        ['augment.color_arithmetic = "pillow"', 'loader.backend = "dali"', '"cpu" can'],
    ),
    "fewer remaining frames than a clip has": (
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
    "tubelets of an odd clip": (
        ["model.transformer.embedder=tubelet", "clip.frames=7"],
        ["clip.frames = 7", 'model.transformer.embedder = "tubelet"'],
    ),
    "nothing to train on": (["losses.contrast=0", "losses.order=0"], ["losses", "'order': 0.0"]),
    "groups that do not divide": (
        ["contrast.shuffle_bn_groups=3"],
        ["contrast.shuffle_bn_groups = 3", "train.batch_size = 64"],
    ),
    "groups of one": (["contrast.shuffle_bn_groups=64"], ["contrast.shuffle_bn_groups = 64", "train.batch_size = 64"]),
    "groups that do not divide parts": (
        ["contrast.shuffle_bn_groups=4", "train.gradient_accumulation=6"],
        [
            "contrast.shuffle_bn_groups = 4 times train.gradient_accumulation = 6 must divide train.batch_size = 64",
            "groups of at least 2",
        ],
    ),
    "parts of one": (["train.gradient_accumulation=64"], ["train.gradient_accumulation = 64", "train.batch_size = 64"]),
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
        ["augment.resize=[128, 171]", "augment.color_arithmetic=pillow", "loader.backend=reference"],
        ["clip.min_remaining_frames=31"],
        ["clip.min_remaining_frames=100", "clip.stride=1"],
        ["optim.schedule_per=epoch", "train.epochs=2"],
        ["optim.warmup_epochs=1", "train.epochs=2.5"],
        ["losses.contrast=0"],
        ["contrast.pairs=transformer"],
        ["contrast.shuffle_bn_groups=32"],
        ["contrast.shuffle_bn_groups=4", "train.gradient_accumulation=8"],
        ["clip.frames=8", "clip.size=32"],
        ["clip.frames=2", "clip.size=16", "model.cnn=r3d10"],
        ["clip.frames=2", "model.transformer.embedder=tubelet"],
    ],
    ids=" ".join,
)
def test_the_bounds_themselves_are_allowed(overrides: list[str]) -> None:
    load(None, overrides)
