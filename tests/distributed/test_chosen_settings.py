"""Two processes on unequal machines train with the same settings, those that rank 0 has chosen.

Run as a script, this file starts the launch below (see tests/launch.py). The tests judge what it leaves in files.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from cacl import config as configuration
from cacl.config import Config, load_given
from cacl.training.choices import MachineFacts
from cacl.training.train_state import TrainState
from cacl.training.trainer import train
from tests import launch
from tests.distributed.small_runs import VIDEOS, write_videos

choosing = import_module("cacl.training.choose_config")
training = import_module("cacl.training.trainer")


def settings(folder: Path) -> dict[str, Any]:
    """Trains without a configuration, and returns that of this rank. Rank 1 says that it has a GPU."""
    used: list[Config] = []

    class Observed(TrainState):
        def __init__(self, config: Config, num_videos: int, device: torch.device) -> None:
            used.append(config)
            super().__init__(config, num_videos, device)

    config, given = load_given(
        [
            "data.layout=folder",
            "train.epochs=1.0",
            "clip.frames=4",
            "train.device=cpu",
            f"data.cache={folder / 'cache'}",
        ],
        {"data.root": str(folder / "videos"), "run": str(folder / "run")},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "TrainState", Observed)
        if os.environ["RANK"] == "1":
            other = MachineFacts(device="cuda", gpu_memory_gib=80, processes=2)
            patch.setattr(choosing, "_facts_of_machine", lambda _: other)
        train(config, given=given)
    return configuration.to_dict(used[0])


LAUNCHES: launch.Launches = {"unequal machines": (2, settings)}


def test_all_ranks_take_the_settings_of_rank_0(make_video: Callable[..., Path], tmp_path: Path) -> None:
    write_videos(tmp_path, make_video)
    launch.run_script(__file__, tmp_path)
    first, second = launch.results_of(LAUNCHES, "unequal machines", tmp_path)
    assert first == second
    assert first == configuration.to_dict(configuration.load(tmp_path / "run/config.toml"))
    assert (first["model"]["cnn"], first["train"]["batch_size"]) == ("r3d10", 4)  # two clips for each process
    assert VIDEOS < 8  # which is why the batch is no larger
    said = (tmp_path / "unequal machines.0.err").read_text(), (tmp_path / "unequal machines.1.err").read_text()
    assert "chosen: train.batch_size = 4" in said[0]
    assert "chosen" not in said[1]


if __name__ == "__main__":
    launch.main(LAUNCHES, Path(sys.argv[1]))
