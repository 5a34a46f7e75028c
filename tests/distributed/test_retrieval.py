"""Two and three processes retrieve as one process does, and print the result once.

Run as a script, this file starts all of the launches below (see tests/launch.py). The tests judge what they leave in
files.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cacl import cli
from cacl.checkpoints.encoders import EncoderWeights, load_encoder
from cacl.clips import ClipBatch
from cacl.evaluation import features as evaluation_features
from cacl.evaluation import retrieval
from cacl.loaders import clip_loader
from cacl.loaders.backends.select import Backend
from cacl.models.cnn3d import CNN3D
from cacl.training.trainer import train
from tests import launch
from tests.distributed.small_runs import VIDEOS, configured, write_videos

# ------------------------------------------------------------------------- what a process does; without torch's help


def retrieved(run: Path, features: Path, last_batch: int | None = None) -> dict[str, Any]:
    """Evaluates, and returns the tables, and the clips that this rank decoded with what they show."""
    clips: list[tuple[int, int]] = []
    views: list[Tensor] = []
    build = clip_loader.build_backend

    class Observed:
        def __init__(self, backend: Backend) -> None:
            self.backend = backend

        def batches(self, plans: Any) -> Iterator[ClipBatch]:
            for number, batch in enumerate(self.backend.batches(plans)):
                if number == last_batch:
                    os.kill(os.getpid(), signal.SIGKILL)
                clips.extend(zip(batch.video.tolist(), batch.index.tolist(), strict=True))
                views.extend(batch.query)
                yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clip_loader, "build_backend", lambda *a, **k: Observed(build(*a, **k)))
        weights = EncoderWeights.read(run)
        config = dataclasses.replace(weights.config, data=dataclasses.replace(weights.config.data, layout="csv"))
        tables = retrieval.evaluate_retrieval(weights, config, ["label"], features)
    return {"tables": [table.to_json() for table in tables], "clips": clips, "views": views}


def killed(folder: Path) -> None:
    """Evaluates until the process gets a SIGKILL, after its first batch of two videos."""
    evaluation_features.SAVE_EVERY_SECONDS = 0
    retrieved(folder / "whole", folder / "features of killed", last_batch=1)


def command(*arguments: str) -> int:
    sys.argv = ["cacl", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


LAUNCHES: launch.Launches = {
    "trained": (2, lambda folder: train(configured(folder, "whole"))),
    "retrieved": (2, lambda folder: retrieved(folder / "whole", folder / "features of 2")),
    "retrieved by three": (3, lambda folder: retrieved(folder / "whole", folder / "features of 3")),
    "killed": (2, killed),
    "gone on by three": (3, lambda folder: retrieved(folder / "whole", folder / "features of killed")),
    "command": (2, lambda folder: command("eval", "retrieval", f"{folder}/whole", "--json", "-s", "data.layout=csv")),
}


# ------------------------------------------------------------------------------------------------------- the tests


@pytest.fixture(scope="module")
def folder(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tests, after all launches."""
    folder = tmp_path_factory.mktemp("ranks")
    write_videos(folder, make_video)
    launch.run_script(__file__, folder)
    return folder


def results_of(folder: Path, name: str) -> list[Any]:
    return launch.results_of(LAUNCHES, name, folder)


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Any]:
    return retrieved(folder / "whole", folder / "features of 1")


def features_by_hand(run: Path, clips: Tensor) -> dict[str, np.ndarray]:
    """Returns the features of clips [B, 3, T, 16, 16], which need no scaling to 16 x 16, by the name of their file."""
    cnn, transformer = (load_encoder(run, which) for which in ("cnn", "transformer"))
    assert isinstance(cnn, CNN3D)
    with torch.no_grad():
        maps = cnn.forward_features(clips).numpy()
        tokens = transformer(clips, torch.arange(clips.shape[2]).expand(len(clips), -1)).numpy()
    assert maps.shape[-2:] == (1, 1)  # so that there is nothing to pool
    pixels = clips.numpy()
    return {
        "mean_frame": pixels.mean(2).reshape(len(clips), -1),
        "frame_difference": np.abs(pixels[:, :, 1:] - pixels[:, :, :-1]).mean(2).reshape(len(clips), -1),
        "cnn,_trained": maps.reshape(len(clips), -1),
        "transformer,_trained": tokens,
    }


@pytest.mark.parametrize(("launched", "shares"), [("retrieved", [8, 6]), ("retrieved by three", [6, 4, 4])])
def test_several_ranks_retrieve_as_one_does(
    folder: Path, alone: dict[str, Any], launched: str, shares: list[int]
) -> None:
    results = results_of(folder, launched)
    every_clip = [(video, 2 * video + which) for video in range(VIDEOS) for which in range(2)]
    assert alone["clips"] == every_clip
    assert sorted(clip for result in results for clip in result["clips"]) == every_clip
    assert [len(result["clips"]) for result in results] == shares
    assert all(result["tables"] == alone["tables"] for result in results)

    (one,) = (folder / "features of 1").iterdir()
    (several,) = (folder / f"features of {len(shares)}").iterdir()
    names = sorted(path.name for path in one.glob("*.npy"))
    assert len(names) == 6  # two encoders, trained and not, and two baselines
    assert names == sorted(path.name for path in several.glob("*.npy"))
    for name in names:
        np.testing.assert_allclose(np.load(several / name), np.load(one / name), rtol=1e-4, atol=1e-5)

    clips = torch.stack(alone["views"]).float()  # two of each video, as asserted above
    for name, features in features_by_hand(folder / "whole", clips).items():
        expected = (features[0::2] + features[1::2]) / 2
        np.testing.assert_allclose(np.load(several / f"{name}.npy"), expected, rtol=1e-4, atol=1e-5, err_msg=name)
        assert np.abs(features[0::2] - features[1::2]).max(1).min() > 5e-4  # the clips of a video differ


def test_three_ranks_go_on_where_two_were_killed(folder: Path) -> None:
    """Of the seven videos three were left to do."""
    assert not (folder / "killed.0.pt").exists()
    results = results_of(folder, "gone on by three")
    assert [sorted({video for video, _ in result["clips"]}) for result in results] == [[4], [5], [6]]
    assert all(result["tables"] == results_of(folder, "retrieved")[0]["tables"] for result in results)


def test_a_command_prints_its_result_once(folder: Path) -> None:
    """Two JSON documents after each other are not JSON."""
    assert results_of(folder, "command") == [0, 0]
    printed = "".join((folder / f"command.{rank}.out").read_text() for rank in range(2))
    assert json.loads(printed) == results_of(folder, "retrieved")[0]["tables"]


if __name__ == "__main__":
    launch.main(LAUNCHES, Path(sys.argv[1]))
