"""Two processes of which one is recorded, or both.

Run as a script, this file starts the launches below (see tests/launch.py). The tests judge what it leaves in files.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cacl.config import load, replace
from cacl.profiling.profile import profile
from tests import launch
from tests.distributed.small_runs import configured, write_videos


def recorded(ranks: tuple[int, ...], folder: Path) -> Any:
    """Profiles two steps, and returns what each rank says of it."""
    out = folder / f"profile{len(ranks)}"
    out.mkdir(exist_ok=True)
    config = replace(configured(folder), {"profile.steps": (2, 4), "profile.ranks": ranks})
    result = profile(config, out)
    assert result is not None
    return dataclasses.asdict(result)


LAUNCHES: launch.Launches = {"one": (2, partial(recorded, (1,))), "both": (2, partial(recorded, (0, 1)))}


@pytest.fixture(scope="module")
def launches(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profiles")
    write_videos(folder, make_video)
    launch.run_script(__file__, folder)
    return folder


def test_the_processes_of_profile_ranks_are_recorded(launches: Path) -> None:
    first, second = launch.results_of(LAUNCHES, "one", launches)
    assert first == second
    assert list(first["tables"]) == [1]
    assert first["tables"][1]["steps"] == 2
    names = {"config.toml", "stages.json", "trace.rank1.json.gz"}
    assert {path.name for path in (launches / "profile1").iterdir()} == names == set(first["files"])


def test_each_process_has_a_table_and_a_trace(launches: Path) -> None:
    result = launch.results_of(LAUNCHES, "both", launches)[0]
    assert list(result["tables"]) == [0, 1]
    assert set(result["files"]) == {"config.toml", "stages.json", "trace.rank0.json.gz", "trace.rank1.json.gz"}
    assert load(launches / "profile2" / "config.toml").profile.ranks == (0, 1)
    for table in result["tables"].values():
        assert {"data", "query", "backward", "log"} < {row["stage"] for row in table["rows"]}


if __name__ == "__main__":
    launch.main(LAUNCHES, Path(sys.argv[1]))
