"""Two processes recognise as one process does, and rank 0 alone has the result.

Run as a script, this file starts the launches below (see tests/launch.py).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cacl.checkpoints.encoders import EncoderWeights
from cacl.evaluation.recognition import evaluate_recognition
from cacl.training.trainer import train
from tests import launch
from tests.distributed.small_runs import VIDEOS, configured, write_videos

pytestmark = launch.PATIENT


def recognised(run: Path, features: Path) -> list[Any]:
    weights = EncoderWeights.read(run)
    config = dataclasses.replace(weights.config, data=dataclasses.replace(weights.config.data, layout="csv"))
    return [table.to_json() for table in evaluate_recognition(weights, config, ["label"], features)]


LAUNCHES: launch.Launches = {
    "trained": (1, lambda folder: train(configured(folder, "run"))),
    "recognised": (2, lambda folder: recognised(folder / "run", folder / "features of 2")),
}


@pytest.fixture(scope="module")
def folder(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    write_videos(folder, make_video)
    launch.run_script(__file__, folder)
    return folder


def test_two_ranks_recognise_as_one_does(folder: Path) -> None:
    alone = recognised(folder / "run", folder / "features of 1")
    first, second = launch.results_of(LAUNCHES, "recognised", folder)
    assert second == []
    assert [table["classifier"] for table in alone] == ["knn", "linear"]
    for table, same in zip(alone, first, strict=True):
        assert table["videos"] == {"train": 2, "validation": 2, "test": 3} == same["videos"]
        for values in same["results"].values():
            assert np.sum(values["confusion"]) == 3  # each test video once
        assert same == table
    names = [path.name for path in (folder / "features of 1").rglob("*.npy")]
    assert len(names) == 6
    for name in names:
        (one,), (two,) = ([np.load(p) for p in (folder / f"features of {n}").rglob(name)] for n in (1, 2))
        assert len(one) == VIDEOS
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    launch.main(LAUNCHES, Path(sys.argv[1]))
