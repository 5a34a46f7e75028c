"""The weights of a timm embedder come from files of several forms; what does not fit is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor

from cacl.errors import CheckpointError
from cacl.models.create import create_model
from cacl.models.video_transformer import TimmEmbedder


@pytest.fixture
def source() -> dict[str, Tensor]:
    """The weights of a resnet18 with its classifier, as a file would hold them."""
    return dict(timm.create_model("resnet18", pretrained=False).state_dict())


def assert_loaded(path: Path, source: dict[str, Tensor]) -> None:
    model = create_model("video_transformer", embedder="resnet18", weights=str(path), width=48, depth=1, heads=3)
    loaded = model.embedder.backbone.state_dict()  # type: ignore[union-attr]
    assert set(loaded) == {name for name in source if not name.startswith("fc.")}
    for name, value in loaded.items():
        assert torch.equal(value, source[name]), name


def test_weights_from_safetensors(tmp_path: Path, source: dict[str, Tensor]) -> None:
    safetensors.torch.save_file(source, tmp_path / "resnet18.safetensors")
    assert_loaded(tmp_path / "resnet18.safetensors", source)


@pytest.mark.parametrize(
    ("nest", "prefix"),
    [(None, ""), ("model", ""), ("state_dict", "module."), (None, "encoder_q."), ("state_dict", "module.encoder_q.")],
)
def test_weights_from_pytorch_files(tmp_path: Path, source: dict[str, Tensor], nest: str | None, prefix: str) -> None:
    content: dict[str, object] = {prefix + name: value for name, value in source.items()}
    if nest:
        content = {nest: content, "epoch": 200, "optimizer": {"lr": 0.03}}
    torch.save(content, tmp_path / "resnet18.pth")
    assert_loaded(tmp_path / "resnet18.pth", source)


def test_weights_from_a_whole_moco_checkpoint(tmp_path: Path, source: dict[str, Tensor]) -> None:
    """The key encoder and the queue lie beside the query encoder, and the classifier is the projection, which has two
    layers here."""
    query = {f"module.encoder_q.{name}": value for name, value in source.items() if not name.startswith("fc.")}
    key = {name.replace("_q", "_k"): torch.zeros_like(value) for name, value in query.items()}
    head = {
        "module.encoder_q.fc.0.weight": torch.zeros(512, 512),
        "module.encoder_q.fc.2.weight": torch.zeros(128, 512),
    }
    torch.save(
        {"state_dict": {**key, **query, **head, "module.queue": torch.zeros(128, 64)}}, tmp_path / "moco.pth.tar"
    )
    assert_loaded(tmp_path / "moco.pth.tar", source)


def test_weights_from_before_batch_norms_counted(tmp_path: Path, source: dict[str, Tensor]) -> None:
    torch.save({k: v for k, v in source.items() if not k.endswith("num_batches_tracked")}, tmp_path / "old.pth")
    assert_loaded(tmp_path / "old.pth", source)


def without_a_stage(weights: dict[str, Tensor]) -> object:
    return {name: value for name, value in weights.items() if not name.startswith("layer3.")}


def with_another_shape(weights: dict[str, Tensor]) -> object:
    return {**weights, "layer2.0.conv1.weight": torch.zeros(64, 64, 3, 3)}


def of_a_deeper_model(weights: dict[str, Tensor]) -> object:
    return dict(timm.create_model("resnet34", pretrained=False).state_dict())


def a_tensor(weights: dict[str, Tensor]) -> object:
    return weights["fc.weight"]


def under_an_unknown_name(weights: dict[str, Tensor]) -> object:
    return {"teacher": weights}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_a_stage, r"layer3\.0\.conv1\.weight is missing; .* and \d+ more"),
        (with_another_shape, r"layer2\.0\.conv1\.weight is \[64, 64, 3, 3\] in place of \[128, 64, 3, 3\]$"),
        (of_a_deeper_model, r"layer1\.2\.conv1\.weight is not part of the model"),
        (a_tensor, "holds a Tensor"),
        (under_an_unknown_name, r"conv1\.weight is missing"),
    ],
)
def test_weights_that_do_not_fit(
    tmp_path: Path, source: dict[str, Tensor], spoil: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    path = tmp_path / "wrong.pth"
    torch.save(spoil(source), path)
    with pytest.raises(CheckpointError, match=message) as error:
        TimmEmbedder("resnet18", str(path), frozen=True, width=24)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["none.pth", "none.safetensors", "text.pth", "text.safetensors", "empty.pth", "cut.pth"]
)
def test_weights_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:1000])
    (tmp_path / "empty.pth").touch()
    (tmp_path / "text.pth").write_text("not weights\n")
    (tmp_path / "text.safetensors").write_text("not weights\n")
    with pytest.raises(CheckpointError, match="cannot be read as weights") as error:
        TimmEmbedder("test_resnet", str(tmp_path / name), frozen=True, width=24)
    assert str(error.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(error.value)
