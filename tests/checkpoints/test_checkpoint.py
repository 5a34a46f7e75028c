"""Checkpoints: what they hold, which ones are refused, and that reading one runs nothing that it brings."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import cacl
from cacl.checkpoints import checkpoint
from cacl.checkpoints.checkpoint import Checkpoint
from cacl.checkpoints.encoders import EncoderWeights
from cacl.config import Config
from cacl.errors import CheckpointError
from cacl.models.video_transformer import TimmEmbedder
from cacl.training.train_state import TrainState
from tests.tiny import tiny_batch, tiny_config

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = tiny_config("never written", {"augment": {"crop": [0.5, 0.75]}})


@pytest.fixture(scope="module")
def state() -> Checkpoint:
    """After two steps, in which the optimiser gathers a state."""
    train_state = TrainState(CONFIG, 8, torch.device("cpu"))
    for step in range(2):
        train_state.train_step(tiny_batch(4, seed=step), sync=True)
    return train_state.make_checkpoint("fingerprint")


@pytest.fixture
def saved(state: Checkpoint, tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "given.pt", state)
    return tmp_path / "given.pt"


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    else:
        assert one == other


def test_all_of_a_checkpoint_comes_back(saved: Path, state: Checkpoint) -> None:
    found = checkpoint.load(saved)
    for field in dataclasses.fields(Checkpoint):
        one, other = getattr(state, field.name), getattr(found, field.name)
        assert_same(dict(one) if isinstance(one, dict) else one, dict(other) if isinstance(other, dict) else other)
    assert found.step == 2
    assert any(isinstance(x, Tensor) for values in found.optimizer["state"].values() for x in values.values())


def test_the_encoders_come_back_from_either_file(saved: Path, state: Checkpoint, tmp_path: Path) -> None:
    """The query encoders alone: no keys, no heads, no queue."""
    trained = {name.removeprefix("query."): x for name, x in state.model.items()}
    wanted = {name: x for name, x in trained.items() if name.startswith(("cnn.", "transformer."))}
    EncoderWeights.of_checkpoint(state, "a run").save(tmp_path / "given.safetensors")
    for path in (saved, tmp_path / "given.safetensors"):
        found = EncoderWeights.read(path)
        assert (found.config, found.step, found.source) == (CONFIG, 2, str(path))
        assert found.names == ["cnn", "transformer"]
        assert_same(found.tensors, wanted)
        for which in found.names:
            built = {f"{which}.{name}": x for name, x in found.build(which).state_dict().items()}
            assert_same(built, {name: x for name, x in wanted.items() if name.startswith(which)})


@pytest.mark.parametrize("which", ["cnn", "transformer"])
def test_both_encoders_take_clips_alone(saved: Path, which: str) -> None:
    """A clip without an order has its frames in true order."""
    encoder, clips = cacl.load_encoder(saved, which), tiny_batch(3).query.float()
    with torch.no_grad():
        features = encoder(clips)
        assert torch.equal(features, encoder(clips, torch.arange(clips.shape[2]).expand(3, -1)))
    assert features.shape == (3, encoder.num_features)
    assert len(features.unique(dim=0)) == 3


def test_a_transformer_on_tubelets_comes_back_with_its_batch_statistics(tmp_path: Path) -> None:
    config = tiny_config("never written", {"model": {"transformer": {"embedder": "tubelet"}}})
    train_state = TrainState(config, 8, torch.device("cpu"))
    train_state.train_step(tiny_batch(4), sync=True)
    checkpoint.save(tmp_path / checkpoint.CHECKPOINT_NAME, train_state.make_checkpoint("fingerprint"))
    trained = train_state.model.query.transformer
    assert trained is not None
    assert trained.embedder.grid[1].num_batches_tracked == 2  # the clip, and its shuffled copy
    encoder, clips = cacl.load_encoder(tmp_path, "transformer"), tiny_batch(3).query.float()
    assert_same(encoder.state_dict(), trained.state_dict())
    with torch.no_grad():
        assert torch.equal(encoder(clips), trained.eval()(clips))


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = torch.load(path, weights_only=True)
    change(values)
    torch.save(values, path)


@pytest.mark.parametrize("version", [0, 1, 3, "2", None])
def test_other_formats_are_refused(saved: Path, version: object) -> None:
    """Though everything that this version knows is there."""
    rewritten(saved, lambda values: values.update(format=version))
    with pytest.raises(CheckpointError, match=f"{saved}: is not a checkpoint of this version of cacl"):
        checkpoint.load(saved)


@pytest.mark.parametrize("key", sorted(checkpoint.KEYS))
def test_a_part_that_is_missing_is_missed(saved: Path, key: str) -> None:
    rewritten(saved, lambda values: values.pop(key))
    with pytest.raises(CheckpointError, match=f"{saved}: is not a checkpoint of this version of cacl"):
        checkpoint.load(saved)


def test_a_part_too_many_is_refused(saved: Path) -> None:
    rewritten(saved, lambda values: values.update(scaler={}))
    with pytest.raises(CheckpointError, match=f"{saved}: is not a checkpoint of this version of cacl"):
        checkpoint.load(saved)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = str(trace)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.trace,)


READERS: dict[str, Callable[[Path], object]] = {
    "a run": checkpoint.load,
    "encoders": EncoderWeights.read,
    "weights of an embedder": lambda path: TimmEmbedder("test_resnet", str(path), frozen=True, width=24),
}


@pytest.mark.parametrize("reader", READERS)
def test_nothing_in_a_file_is_run(saved: Path, tmp_path: Path, reader: str) -> None:
    trace = tmp_path / "trace"
    rewritten(saved, lambda values: values.update(torch=Trap(trace)))
    with pytest.raises(CheckpointError, match=str(saved)):
        READERS[reader](saved)
    assert not trace.exists()
    torch.load(saved, weights_only=False)
    assert trace.exists()  # so the trap was set


def weights_of(tensors: dict[str, Tensor], config: Config = CONFIG) -> EncoderWeights:
    return EncoderWeights(source="a test", config=config, step=1, tensors=tensors)


def test_the_digest_tells_weights_apart_by_name_and_value() -> None:
    one, other = torch.rand(2, 3), torch.rand(2, 3)
    digest = weights_of({"cnn.a": one, "cnn.b": other}).digest
    assert weights_of({"cnn.b": other.clone(), "cnn.a": one.T.contiguous().T}).digest == digest
    different = [
        {"cnn.a": other, "cnn.b": one},
        {"cnn.a": one, "cnn.b": one},
        {"cnn.a": one, "cnn.c": other},
        {"cnn.a": one, "cnn.b": other * (1 + 2**-20)},
        {"cnn.a": one},
    ]
    assert len({digest, *(weights_of(tensors).digest for tensors in different)}) == 1 + len(different)
