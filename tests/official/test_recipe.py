"""What the rest of the project makes of the recipe: what it refuses, what it says, and what the docs name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cacl.benchmarks.loader.command import bench_loader
from cacl.clips import VideoRecord
from cacl.config import Config, differences, to_dict
from cacl.errors import ConfigError, UsageError
from cacl.evaluation.features import cache_key
from cacl.evaluation.retrieval import describe_protocol
from cacl.loaders.backends.dali import DaliBackend
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.sampling.sampler import ClipSampler
from cacl.reporting.console import Console
from tests.launch import ROOT
from tests.official.second_implementation import (
    recipe,
)


@pytest.mark.parametrize("keys", [("augment.color_arithmetic=linear",), ("augment.resize=[0, 0]",)], ids=str)
def test_dali_refuses_what_it_cannot_do(film: tuple[VideoRecord, np.ndarray], keys: tuple[str, ...]) -> None:
    """It refuses even where nobody named it, since its views would be other ones."""
    config, (video, _) = recipe("augment.color_jitter_prob=1", *keys), film
    catalog = Catalog(root=Path("/"), layout="folder", videos=(video,), rejected=(), missing=())
    plan = ClipSampler([video], config.clip, config.augment, seed=1).plan(0)
    backend = DaliBackend(catalog, size=112, threads=1, prefetch=1, pipelines=1, device=torch.device("cpu"))
    with pytest.raises(ConfigError, match='"cpu" does'):
        next(backend.batches([[plan]]))


@pytest.mark.parametrize("keys", [("augment.color_arithmetic=linear",), ("augment.resize=[0, 0]",)], ids=str)
def test_loaders_are_not_timed_by_views_that_others_do_not_make(keys: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"augment\.resize and augment\.color_arithmetic"):
        bench_loader(Path("no folder"), None, recipe(*keys), clips=64, repeats=1, console=Console(enabled=False))


def test_an_evaluation_says_what_it_does_otherwise() -> None:
    assert describe_protocol(recipe()).split(":")[0].endswith("but for nothing")
    named = describe_protocol(recipe("augment.resize=[0, 0]", "retrieval.clip_starts=span", "model.cnn=r3d34"))
    assert "but for augment.resize, retrieval.clip_starts:" in named


@pytest.mark.parametrize("key", ["retrieval.clip_starts=span", "augment.resize=[128, 172]"])
def test_kept_features_are_those_of_the_same_clips(film: tuple[VideoRecord, np.ndarray], key: str) -> None:
    catalog = Catalog(root=Path("/"), layout="folder", videos=(film[0],), rejected=(), missing=())
    assert cache_key("weights", catalog, recipe(), "cpu") != cache_key("weights", catalog, recipe(key), "cpu")


def test_the_docs_name_every_key_of_the_recipe_that_is_not_the_default() -> None:
    page = (ROOT / "docs/official.md").read_text()
    changed = [line.partition(":")[0] for line in differences(Config(), recipe())]
    assert len(changed) > 12
    for key in set(changed) - {"name", "run", "data.root", "data.layout", "loader.backend"}:
        assert f"`{key} = {json.dumps(leaf(to_dict(recipe()), key))}`" in page, key


def leaf(values: Any, key: str) -> Any:
    for name in key.split("."):
        values = values[name]
    return values
