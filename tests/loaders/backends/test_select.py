"""Which backend is chosen, and what the configuration says about it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cacl.config import AugmentConfig, ClipConfig, Config, LoaderConfig
from cacl.errors import ConfigError
from cacl.loaders.backends import cpu, reference
from cacl.loaders.backends.dali import DaliBackend, unavailable_reason
from cacl.loaders.backends.dali_views import DaliViews, KernelViews
from cacl.loaders.backends.select import MIN_REMOTE_THREADS, build_backend, choose_backend
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.sampling.sampler import evaluation_plans
from tests.loaders.backends.clips import (
    CPU,
    load,
    stream,
)


def test_auto_chooses_the_cpu_and_says_why(videos: Catalog) -> None:
    choice = choose_backend(LoaderConfig(), CPU)
    assert choice
    assert choice.name == "cpu"
    assert "on the CPU" in choice.reason
    for name in ("cpu", "reference"):
        named = LoaderConfig(backend=name, threads=2)  # pyright: ignore[reportArgumentType]
        assert choose_backend(named, CPU) == (name, "as configured")
        backend = build_backend(name, videos, Config(clip=ClipConfig(size=32), loader=named), CPU)
        plans = stream(videos)[:1]
        (batch,) = backend.batches(plans)
        load_clip = {"cpu": cpu.load_clip, "reference": reference.load_clip}[name]
        alone = load(load_clip, videos.videos[plans[0][0].video], plans[0][0], 32)
        assert torch.equal(torch.stack(batch.views)[:, 0].double(), alone)


def test_the_configuration_says_how_much_is_done_at_once(videos: Catalog) -> None:
    """Without a number of threads, a process takes its share of the cores, and more where they wait for a server."""
    asked = Config(clip=ClipConfig(size=32), loader=LoaderConfig(threads=3, prefetch=5, dali_pipelines=4))
    cores = os.cpu_count() or 1
    for name in ("cpu", "reference", "dali"):
        if name == "dali" and unavailable_reason(CPU):
            continue

        def built(config: Config, processes: int = 1, root: Path | str = videos.root, name: str = name) -> Any:
            return build_backend(name, replace(videos, root=root), config, CPU, processes)

        backend = built(asked)
        assert (backend.threads, backend.prefetch, backend.size) == (3, 5, 32)
        assert name != "dali" or backend.pipelines == 4
        assert [built(Config(), processes).threads for processes in (1, 2, 4 * cores)] == [cores, max(1, cores // 2), 1]
        assert built(Config(), root="https://server/set").threads == max(cores, MIN_REMOTE_THREADS)
        assert built(asked, root="https://server/set").threads == 3


@pytest.mark.parametrize(("maker", "kind"), [("dali", DaliViews), ("triton", KernelViews)])
def test_the_configuration_says_what_makes_the_views_of_dali(videos: Catalog, maker: str, kind: type) -> None:
    pytest.importorskip("nvidia.dali")
    loader = LoaderConfig(backend="dali", dali_views=maker)  # pyright: ignore[reportArgumentType]
    backend = build_backend("dali", videos, Config(loader=loader), CPU)
    assert isinstance(backend, DaliBackend)
    assert isinstance(backend.view_maker, kind)


def test_evaluation_with_views_of_the_kernel(videos: Catalog) -> None:
    pytest.importorskip("nvidia.dali")
    clip = ClipConfig(frames=6, size=32)
    config = Config(clip=clip, loader=LoaderConfig(backend="dali", dali_views="triton", threads=2))
    plans = [list(evaluation_plans(videos.videos, range(3), 2, clip, AugmentConfig()))]
    (mine,) = build_backend("dali", videos, config, CPU).batches(plans)
    (theirs,) = build_backend("reference", videos, config, CPU).batches(plans)
    assert mine.index.tolist() == theirs.index.tolist() == list(range(6))
    assert [view.shape for view in mine.views] == [(6, 3, 6, 32, 32)]
    assert torch.equal(mine.views[0], theirs.views[0])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_dali_without_a_gpu_is_an_error_and_auto_is_not() -> None:
    device = torch.device("cuda")
    with pytest.raises(ConfigError, match=r'^loader\.backend = "dali" cannot run here: .*; "cpu" needs nothing but'):
        choose_backend(LoaderConfig(backend="dali"), device)
    choice = choose_backend(LoaderConfig(), device)
    assert choice
    assert choice.name == "cpu"
    assert "no CUDA device" in choice.reason or "not installed" in choice.reason
