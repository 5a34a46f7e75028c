"""The trial of `dali` in two processes: each measures, and all take one decision.

Run as a script, this file starts the launch below (see tests/launch.py).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from cacl import distributed
from cacl.clips import VideoRecord
from cacl.config import Config, DataConfig
from cacl.loaders.backends import trial, trial_memory
from cacl.loaders.catalog.catalog import Catalog
from tests import launch


def choose_together(folder: Path) -> list[tuple[tuple[str, ...], int]]:
    """Returns each choice, and how often this rank has measured until then. Every rank has a disk of its own."""
    video = VideoRecord(path="a.mp4", frames=60, declared_frames=60, rate=25.0, width=64, height=48, codec="h264")
    videos = Catalog(root=folder, layout="folder", videos=(video,), rejected=(), missing=())
    (folder / "version").write_text("NVRM version: 570.86.15 \n")
    trial_memory.DRIVER_VERSION_FILE = folder / "version"
    with distributed.process_group("cpu") as device:
        rank, measured, outcomes = distributed.rank(), [0], []
        cache = folder / f"disk of {rank}"
        config = Config(data=DataConfig(cache=str(cache)))

        def measure(*_: Any) -> trial.Comparison:
            measured[0] += 1
            slower_on_rank_1 = 5.0 if rank == 1 and len(outcomes) < 2 else 50.0
            return trial.Comparison("", (trial.ClipErrors("a.mp4", 0, 0),), (), slower_on_rank_1, 20.0)

        trial.measure = measure

        def choose(world_size: int = 2) -> None:
            choice = trial.choose(videos, config, device, views=2, batch_size=4, world_size=world_size)
            outcomes.append((tuple(choice), measured[0]))  # torch.load takes no other types

        choose()
        choose()  # remembered by both
        if rank == 1:
            for file in cache.iterdir():
                file.unlink()
        choose()  # forgotten by one
        if rank == 0:
            choose(world_size=1)  # a loader of its own
    return outcomes


LAUNCHES: launch.Launches = {"together": (2, choose_together)}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("ranks")
    launch.run_script(__file__, folder)
    return launch.results_of(LAUNCHES, "together", folder)


def test_one_rank_that_is_against_it_decides_for_all(results: list[Any]) -> None:
    firsts = [result[0] for result in results]
    assert firsts[0] == firsts[1]
    (name, reason), count = firsts[0]
    assert (name, count) == ("cpu", 1)
    assert reason == 'rank 1 finds that "dali" shows the same frames, and is not faster: 5 clips/s against 20'


def test_what_all_remember_is_not_measured_again(results: list[Any]) -> None:
    for (name, reason), count in (result[1] for result in results):
        assert (name, count) == ("cpu", 1)
        assert "not faster" in reason
        assert "measured before" in reason


def test_all_measure_again_if_one_has_forgotten(results: list[Any]) -> None:
    assert [result[2][0][0] for result in results] == ["dali", "dali"]
    assert [result[2][1] for result in results] == [2, 2]


def test_a_loader_of_one_rank_waits_for_nobody(results: list[Any]) -> None:
    assert [len(result) for result in results] == [4, 3]
    assert results[0][3][0][0] == "dali"


if __name__ == "__main__":
    launch.main(LAUNCHES, Path(sys.argv[1]))
