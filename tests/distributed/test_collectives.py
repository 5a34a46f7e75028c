"""What ranks exchange, in two, three and four processes.

Run as a script, this file starts all of the launches below (see tests/launch.py). The tests judge what they leave in
files.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cacl import distributed
from tests import launch

# ------------------------------------------------------------------------- what a process does; without torch's help


def gather_equal_shapes(folder: Path) -> dict[str, Any]:
    """`all_gather` and `main_first`: the later ranks find what the first one left."""
    with distributed.process_group("cpu"):
        rank, mark = distributed.rank(), folder / f"mark of {distributed.world_size()}"
        gathered = {
            "bytes": distributed.all_gather(torch.full((2, 3), rank, dtype=torch.uint8)),
            "strided": distributed.all_gather(torch.arange(6.0).view(2, 3).T + 10 * rank),
            "graph": distributed.all_gather(torch.ones(1, requires_grad=True)).requires_grad,
        }
        with distributed.main_first():
            found = mark.exists()
            mark.touch()
        world = (rank, distributed.world_size(), distributed.local_world_size())
    return {"gathered": gathered, "found": found, "world": world}


def gather_what_differs(folder: Path) -> dict[str, Any]:
    with distributed.process_group("cpu"):
        rank, counts = distributed.rank(), (2, 0, 3)
        rows = distributed.all_gather(torch.full((counts[rank], 2), rank, dtype=torch.uint8), counts)
        return {
            "rows": rows.tolist(),
            "numbers": distributed.all_gather_numbers(rank, 10 * rank),
            "objects": distributed.all_gather_objects(["no"] * rank),
        }


LAUNCHES: launch.Launches = {
    "equal shapes of 2": (2, gather_equal_shapes),
    "equal shapes of 4": (4, gather_equal_shapes),
    "what differs": (3, gather_what_differs),
}


# ------------------------------------------------------------------------------------------------------- the tests


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tests, after all launches."""
    folder = tmp_path_factory.mktemp("ranks")
    launch.run_script(__file__, folder)
    return folder


def results_of(folder: Path, name: str) -> list[Any]:
    return launch.results_of(LAUNCHES, name, folder)


@pytest.mark.parametrize("world", [2, 4])
def test_gather_and_main_first(folder: Path, world: int) -> None:
    results = results_of(folder, f"equal shapes of {world}")
    assert [result["world"] for result in results] == [(rank, world, world) for rank in range(world)]
    assert [result["found"] for result in results] == [False] + [True] * (world - 1)
    for result in results:
        gathered = result["gathered"]
        assert gathered["bytes"].tolist() == [[rank] * 3 for rank in range(world) for _ in range(2)]
        assert gathered["bytes"].dtype == torch.uint8
        strided = torch.cat([torch.arange(6.0).view(2, 3).T + 10 * rank for rank in range(world)])
        assert torch.equal(gathered["strided"], strided)
        assert gathered["graph"] is False


def test_ranks_exchange_what_differs(folder: Path) -> None:
    for result in results_of(folder, "what differs"):
        assert result["rows"] == [[0, 0], [0, 0], [2, 2], [2, 2], [2, 2]]
        assert result["numbers"] == [[0, 0], [1, 10], [2, 20]]
        assert result["objects"] == [[], ["no"], ["no", "no"]]


if __name__ == "__main__":
    launch.main(LAUNCHES, Path(sys.argv[1]))
