"""Three processes with unequal numbers of videos recognise as one process does, and rank 0 alone has the result.

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
import torch

from cacl.checkpoints.encoders import EncoderWeights, load_encoder
from cacl.evaluation.recognition import evaluate_recognition
from cacl.loaders.clip_loader import ClipLoader
from cacl.training.trainer import train
from tests import launch
from tests.distributed.small_runs import VIDEOS, configured, write_videos


def recognised(run: Path, features: Path) -> list[Any]:
    weights = EncoderWeights.read(run)
    config = dataclasses.replace(weights.config, data=dataclasses.replace(weights.config.data, layout="csv"))
    return [table.to_json() for table in evaluate_recognition(weights, config, ["label"], features)]


LAUNCHES: launch.Launches = {
    "trained": (1, lambda folder: train(configured(folder, "run"))),
    "recognised": (3, lambda folder: recognised(folder / "run", folder / "features of 3")),
}


@pytest.fixture(scope="module")
def folder(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    write_videos(folder, make_video)
    launch.run_script(__file__, folder)
    return folder


def tokens_by_hand(run: Path) -> dict[str, np.ndarray]:
    """The tokens of the trained encoders by the name of their file, each the mean of those of two clips."""
    config = EncoderWeights.read(run).config
    loader = ClipLoader.from_config(config, batch_size=2, split=None)
    cnn, transformer = (load_encoder(run, which) for which in ("cnn", "transformer"))
    found: dict[str, list[np.ndarray]] = {"cnn_tokens,_trained": [], "transformer_tokens,_trained": []}
    with torch.no_grad():
        for batch in loader.evaluation(2, list(range(VIDEOS))):  # a batch holds the two clips of a video
            maps, tokens = (encoder.forward_features(batch.query.float()) for encoder in (cnn, transformer))
            places = np.ndindex(*maps.shape[2:])
            found["cnn_tokens,_trained"].append(np.stack([maps[:, :, *place].mean(0).numpy() for place in places]))
            found["transformer_tokens,_trained"].append(tokens.mean(0).numpy())
    return {name: np.stack(rows) for name, rows in found.items()}


def test_several_ranks_recognise_as_one_does(folder: Path) -> None:
    alone = recognised(folder / "run", folder / "features of 1")
    first, *others = launch.results_of(LAUNCHES, "recognised", folder)
    assert others == [[], []]
    assert [table["classifier"] for table in alone] == ["knn", "linear", "attentive"]
    for table, same in zip(alone, first, strict=True):
        assert table["videos"] == {"train": 2, "validation": 2, "test": 3} == same["videos"]
        for values in same["results"].values():
            assert np.sum(values["confusion"]) == 3  # each test video once
        assert same == table
    names = [path.name for path in (folder / "features of 1").rglob("*.npy")]
    assert len(names) == 10  # two encoders, trained and not, vectors and tokens, and two baselines
    by_hand = tokens_by_hand(folder / "run")
    for name in names:
        (one,), (several,) = (
            [np.load(path) for path in (folder / f"features of {ranks}").rglob(name)] for ranks in (1, 3)
        )
        assert len(one) == VIDEOS
        np.testing.assert_allclose(several, one, rtol=1e-4, atol=1e-5)
        if (expected := by_hand.pop(name.removesuffix(".npy"), None)) is not None:
            np.testing.assert_allclose(several, expected, rtol=1e-4, atol=1e-5)
    assert not by_hand


if __name__ == "__main__":
    launch.main(LAUNCHES, Path(sys.argv[1]))
