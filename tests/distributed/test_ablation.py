"""An ablation that is interrupted goes on, in one process or two, and after a row that diverges, too.

Run as a script, this file starts all of the launches below (see tests/launch.py). The tests judge what they leave in
files.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from cacl import cli
from cacl import config as configuration
from cacl.training import trainer
from cacl.training.train_state import TrainState
from tests import launch
from tests.distributed.small_runs import STEPS, configured, write_videos

# ------------------------------------------------------------------------- what a process does; without torch's help


def ablated(folder: Path, run: str, *arguments: str) -> int:
    """Ablates, and returns the exit code. Beside the folder it leaves a copy of what was known there before."""
    known = folder / run / "ablation.json"
    if known.exists():
        copies = len(list(folder.glob(f"{run}.*.json")))
        (folder / f"{run}.{copies}.json").write_bytes(known.read_bytes())
    sys.argv = ["cacl", "ablate", f"{folder}/small.toml", "--run", f"{folder}/{run}", "--queries", "test", "--json"]
    sys.argv += ["--row", "cnn: contrast.pairs=cnn", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def interrupted(folder: Path, number: signal.Signals, in_run: int, in_step: int, *arguments: str) -> int:
    """Ablates until this process gets a signal in a step of one of its runs, or as the run begins."""
    begun: list[TrainState] = []

    class Interrupted(TrainState):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            begun.append(self)
            self.reach(0)

        def train_step(self, *arguments: Any, **options: Any) -> dict[str, Tensor]:
            metrics = super().train_step(*arguments, **options)
            self.reach(self.step)
            return metrics

        def reach(self, step: int) -> None:
            if (len(begun), step) == (in_run, in_step):
                os.kill(os.getpid(), number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "TrainState", Interrupted)
        return ablated(folder, "interrupted", *SEEDS, *arguments)


SEEDS = ("--seeds", "0,1")
FAILING = ("--seeds", "0", "--row", "too fast: optim.lr=1e30")
LAUNCHES: launch.Launches = {
    "whole": (1, lambda folder: ablated(folder, "whole", *SEEDS)),
    "stopped": (1, lambda folder: interrupted(folder, signal.SIGINT, 2, 2)),
    "killed": (1, lambda folder: interrupted(folder, signal.SIGKILL, 3, 5, "--resume")),
    "killed between": (1, lambda folder: interrupted(folder, signal.SIGKILL, 4, 0, "--resume")),
    "finished": (1, lambda folder: ablated(folder, "interrupted", *SEEDS, "--resume")),
    "together": (2, lambda folder: ablated(folder, "together", *FAILING)),
    "together again": (2, lambda folder: ablated(folder, "together", *FAILING, "--resume")),
    "alone": (1, lambda folder: ablated(folder, "together", *FAILING, "--resume")),
}


# ------------------------------------------------------------------------------------------------------- the tests


@pytest.fixture(scope="module")
def folder(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tests, after all launches."""
    folder = tmp_path_factory.mktemp("ranks")
    write_videos(folder, make_video)
    config = configured(folder, data={"layout": "csv"}, train={"epochs": float(STEPS)})  # of four clips, in one batch
    (folder / "small.toml").write_text(configuration.to_toml(config))
    launch.run_script(__file__, folder)
    return folder


def printed(folder: Path, name: str) -> Any:
    """What all ranks of a launch printed together: one JSON document."""
    return json.loads("".join((folder / f"{name}.{rank}.out").read_text() for rank in range(LAUNCHES[name][0])))


def states_of(found: Any) -> list[str]:
    """The states of all runs, in the order in which they have their turn."""
    return [row["runs"][str(seed)]["state"] for seed in found["seeds"] for row in found["rows"].values()]


def test_an_ablation_that_is_stopped_and_killed_goes_on_to_the_same_result(folder: Path) -> None:
    """It is stopped in its second run, killed in its third, and killed again as its last one begins."""
    assert launch.results_of(LAUNCHES, "stopped", folder) == [130]
    told = {
        name: (folder / f"{name}.0.err").read_text() for name in ("stopped", "killed", "killed between", "finished")
    }
    assert told["stopped"].endswith(f"cacl: stopped by SIGINT after step 3 of {STEPS}; --resume goes on\n")
    for name in ("killed", "killed between"):
        assert not (folder / f"{name}.0.pt").exists()
    for number, done in enumerate((1, 2, 3)):  # what was known after each interruption
        known = json.loads((folder / f"interrupted.{number}.json").read_text())
        assert states_of(known) == ["done"] * done + ["missing"] * (4 - done)
    assert launch.results_of(LAUNCHES, "finished", folder) == [0]
    assert states_of(printed(folder, "whole")) == ["done"] * 4
    assert printed(folder, "finished") == printed(folder, "whole")
    assert json.loads((folder / "interrupted/ablation.json").read_text()) == printed(folder, "whole")

    def resumed(name: str) -> list[tuple[str, int]]:
        found = re.findall(r"^resuming .*/interrupted/(\S+) after step (\d+) of", told[name], re.MULTILINE)
        return [(run, int(step)) for run, step in found]

    cnn0, recipe0, cnn1 = "cnn/seed0", "recipe/seed0", "cnn/seed1"
    assert resumed("killed") == [(cnn0, STEPS), (recipe0, 3)]
    assert resumed("killed between") == [(cnn0, STEPS), (recipe0, STEPS), (cnn1, 4)]
    assert resumed("finished") == [(cnn0, STEPS), (recipe0, STEPS), (cnn1, STEPS)]


def test_two_ranks_go_on_after_a_row_that_diverges(folder: Path) -> None:
    assert launch.results_of(LAUNCHES, "together", folder) == [1, 1]
    found = printed(folder, "together")
    states = {name: row["runs"]["0"]["state"] for name, row in found["rows"].items()}
    assert states == {"cnn": "done", "too fast": "failed", "recipe": "done"}
    assert "the loss or its gradient is not finite" in found["rows"]["too fast"]["runs"]["0"]["error"]
    assert {cell["row"] for cell in found["tables"][0]["cells"] if cell["feature"]} == {"untrained", "cnn", "recipe"}


@pytest.mark.parametrize("name", ["together again", "alone"])
def test_what_they_did_is_not_done_again_by_any_number_of_ranks(folder: Path, name: str) -> None:
    assert set(launch.results_of(LAUNCHES, name, folder)) == {1}
    assert printed(folder, name)["tables"] == printed(folder, "together")["tables"]
    told = (folder / f"{name}.0.err").read_text()
    for row in ("cnn", "recipe"):
        assert f"resuming {folder}/together/{row}/seed0 after step {STEPS} of {STEPS}" in told


if __name__ == "__main__":
    launch.main(LAUNCHES, Path(sys.argv[1]))
