"""The short loops around ClipLoader and around DataLoader that a script compares. Nothing is timed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cacl.benchmarks.scripts.clip_loader_loop import BASELINE, FRAMES, STRIDE, color_jitter, matrix_jitter, random_clip
from cacl.config import DataConfig
from cacl.loaders.prepared.prepare import prepare
from cacl.loaders.prepared.transcode import TranscodeSettings
from tests import forked
from tests.launch import ROOT

LENGTH = 40


@pytest.fixture(scope="module")
def raw(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loop") / "raw"
    for number in range(4):
        make_video(folder / "ab"[number % 2] / f"{number}.mp4", frames=LENGTH, size=(160, 120), gop=250)
    return folder


def test_every_loop_has_a_figure(raw: Path) -> None:
    prepared, cache = raw.with_name("prepared"), raw.with_name("cache")
    data = DataConfig(root=str(raw), cache=str(cache))
    prepare(data, prepared, TranscodeSettings(short_side=64), workers=1, progress=lambda *_: None)
    script = ROOT / "benchmarks" / "scripts" / "clip_loader_loop.py"
    arguments = [raw, prepared, "--clips", "7", "--batch", "3", "--repeats", "2"]
    done = forked.run(forked.script, script, *arguments, environment=os.environ | {"XDG_CACHE_HOME": str(cache)})
    assert done.returncode == 0, done.stderr
    assert str(raw.parent) not in done.stdout
    result = json.loads(done.stdout)
    assert result["settings"]["clips"] == 6
    assert {"cpu", "torch", "av", "commit"} <= result["machine"].keys()
    assert result["loops"][BASELINE]["ratio"] == 1
    assert len(result["loops"]) == len(done.stderr.splitlines()) == 4
    for found in result["loops"].values():
        rate = found["clips_per_second"]
        assert len(rate["each"]) == 2
        assert 0 < rate["min"] <= rate["median"] <= rate["max"]


def test_the_dataset_takes_the_frames_of_a_clip(raw: Path) -> None:
    starts = set()
    for _ in range(10):
        images = random_clip(raw / "a/0.mp4")
        assert images.shape == (FRAMES, 3, 120, 160)
        bars = images[:, :, 20, 10::20].float().mean(1) > 128  # The frame number in binary, the lowest bit at the left.
        numbers = (bars * 2 ** torch.arange(8)).sum(1).tolist()
        assert numbers == list(range(numbers[0], numbers[0] + FRAMES * STRIDE, STRIDE))
        assert numbers[-1] < LENGTH
        starts.add(numbers[0])
    assert len(starts) > 1


@pytest.mark.parametrize("recolor", [color_jitter, matrix_jitter])
def test_all_frames_of_a_view_get_the_same_colors(recolor: Callable[[torch.Tensor], torch.Tensor]) -> None:
    image = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    views = [recolor(image.expand(4, -1, -1, -1)) for _ in range(8)]
    for view in views:
        assert (view.dtype, view.shape) == (torch.float16, (3, 4, 8, 8))
        assert torch.equal(view, view[:, :1].expand_as(view))
    assert len({view.numpy().tobytes() for view in views}) > 1
    assert all((view.float() - image[0][:, None] / 255).abs().mean() < 0.4 for view in views)
