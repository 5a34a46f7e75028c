"""The script that searches settings of the loader. Nothing is timed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cacl.benchmarks.scripts.loader_settings import DEFAULTS, Settings, configure, prepare_sets
from cacl.loaders.decode.mp4 import find_fragments
from tests import forked
from tests.launch import ROOT


@pytest.fixture(scope="module")
def videos(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settings") / "videos"
    for number in range(2):
        make_video(folder / "ab"[number] / f"{number}.mp4", frames=40, size=(160, 120), gop=250)
    return folder


def test_all_settings_are_searched(videos: Path) -> None:
    script = ROOT / "benchmarks" / "scripts" / "loader_settings.py"
    grid = ["--gops", "5", "16", "--threads", "1", "3", "--prefetch", "2"]
    arguments = [videos, *grid, "--clips", "7", "--batch", "3", "--repeats", "2"]
    done = forked.run(forked.script, script, *arguments, environment=os.environ)
    assert done.returncode == 0, done.stderr
    assert str(videos.parent) not in done.stdout
    result = json.loads(done.stdout)
    assert result["settings"] == {"batch_size": 3, "clips": 6, "repeats": 2}
    found = [Settings(row["gop"], row["threads"], row["prefetch"]) for row in result["rows"]]
    assert found == [DEFAULTS, (5, 1, 2), (5, 3, 2), (16, 1, 2), (16, 3, 2)]
    assert set(result["rows"][0]["ratio_to_defaults"].values()) == {1}
    assert result["bytes_by_gop"]["5"] > result["bytes_by_gop"]["16"] > 0
    assert len(done.stderr.splitlines()) == 1 + len(found)
    for row in result["rows"]:
        rate = row["clips_per_second"]
        assert 0 < rate["min"] <= rate["median"] <= rate["max"]


def test_the_settings_reach_the_files_and_the_loader(videos: Path, tmp_path: Path) -> None:
    for gop, prepared in prepare_sets(videos, tmp_path, [5, 16]).items():
        for video in prepared.videos:
            location = prepared.location(video)
            assert isinstance(location, Path)
            _, lengths = find_fragments(location.read_bytes())
            assert max(lengths) == gop
    config = configure(Settings(gop=5, threads=3, prefetch=7))
    assert (config.loader.threads, config.loader.prefetch) == (3, 7)
