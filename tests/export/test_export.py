"""What `cacl export` writes computes what the encoder computes, and nothing else is left behind."""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import cacl
from cacl.benchmarks.scripts.export_parity import parity, save_untrained
from cacl.checkpoints import checkpoint
from cacl.checkpoints.checkpoint import BEST_NAME, CHECKPOINT_NAME, Checkpoint, FinetuneRecord
from cacl.checkpoints.encoders import EncoderWeights
from cacl.cli import main
from cacl.config import Config, from_dict
from cacl.errors import CheckpointError, UsageError
from cacl.export import formats
from cacl.export.export import DifferenceError, export
from cacl.export.formats import FORMATS, ExportError, check_packages
from cacl.export.network import Network, read_networks
from cacl.models.video_classifier import VideoClassifier
from cacl.registry import ENCODERS
from tests.launch import ROOT
from tests.tiny import tiny_config

CLIP = {"frames": 4, "stride": 1, "size": 16}
SMALL = {"width": 16, "depth": 1, "heads": 2}


class Plugin(nn.Module):
    """An encoder of another package. Its one weight is in the clips' mean, and tests do other things with it."""

    change: Callable[[Tensor], Tensor] = staticmethod(lambda x: x)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.num_features = 3
        self.weight = nn.Parameter(torch.ones(3))

    def forward_features(self, clips: Tensor) -> Tensor:
        return clips

    def forward(self, clips: Tensor, order: Tensor | None = None) -> Tensor:
        return type(self).change(clips.mean((2, 3, 4)) * self.weight)


@pytest.fixture(autouse=True)
def plugin_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only here: other tests in this process compare the names of encoders with the docs."""
    monkeypatch.setitem(ENCODERS._targets, "export_test", Plugin)


def plugin(weight: Tensor | None = None) -> Network:
    config = from_dict({"clip": CLIP, "model": {"cnn": "export_test"}})
    tensors = {"cnn.weight": torch.ones(3) if weight is None else weight}
    return Network(
        name="cnn", weights=EncoderWeights(source="plugin", config=config, step=1, tensors=tensors), classes=()
    )


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("r2plus1d10_official", {"width": 1 / 16}),
        ("video_transformer", SMALL | {"embedder": "test_resnet"}),
        ("video_transformer", SMALL | {"embedder": "light"}),
    ],
)
def test_files_compute_what_the_encoder_computes(name: str, overrides: dict[str, Any]) -> None:
    files = parity(name, frames=8, size=32, **overrides)
    assert [file.format for file in files] == ["safetensors", "torch", "onnx"]
    assert files[0].largest_difference == 0
    assert all(file.largest_difference < 1e-4 < 0.05 < file.largest_output for file in files)


def test_the_command_writes_both_encoders_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    transformer = SMALL | {"embedder": "tubelet"}
    settings = {"data": {"root": "/secret/videos"}, "model": {"transformer": transformer}}
    config = tiny_config(tmp_path / "secret", settings)
    encoders = {"cnn": cacl.create_model("r3d10", width=1 / 16)}
    encoders["transformer"] = cacl.create_model("video_transformer", frames=4, size=16, **transformer)
    tensors = {f"query.{name}.{key}": x for name, e in encoders.items() for key, x in e.state_dict().items()}
    run = save_run(tmp_path, config, tensors)
    monkeypatch.setattr(sys, "argv", ["cacl", "export", str(run), "--out", str(tmp_path / "out"), "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    result = json.loads(capsys.readouterr().out)
    assert ended.value.code in (0, None)
    for name, encoder in encoders.items():
        described = json.loads((tmp_path / f"out/{name}.json").read_text())
        assert described["outputs"] == [
            {"name": "features", "dtype": "float32", "shape": ["batch", encoder.num_features]}
        ]
        assert described["input"]["shape"] == ["batch", 3, 4, 16, 16]
        assert [file["name"] for file in result["encoders"][name]] == list(described["files"])
        for file, facts in described["files"].items():
            content = (tmp_path / "out" / file).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (facts["bytes"], facts["sha256"])
        loaded = cacl.load_encoder(tmp_path / f"out/{name}.safetensors", name).state_dict()
        assert all(torch.equal(x, loaded[key]) for key, x in encoder.state_dict().items())
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == sorted(
        2 * [".json", ".safetensors", ".pt2", ".onnx"]
    )
    for path in (tmp_path / "out").iterdir():
        for content in contents(path):
            assert b"secret" not in content
            assert str(ROOT).encode() not in content
            assert b"site-packages" not in content


def save_run(folder: Path, config: Config, tensors: dict[str, Tensor], finetune: FinetuneRecord | None = None) -> Path:
    run = folder / "run"
    run.mkdir(exist_ok=True)
    saved = Checkpoint(config=config, step=7, data_fingerprint="", model=tensors, optimizer={}, finetune=finetune)
    checkpoint.save(run / (BEST_NAME if finetune else CHECKPOINT_NAME), saved)
    return run


def contents(path: Path) -> list[bytes]:
    """Returns the bytes of a file, or those of each file in an archive."""
    if not zipfile.is_zipfile(path):
        return [path.read_bytes()]
    with zipfile.ZipFile(path) as archive:
        return [archive.read(name) for name in archive.namelist()]


def test_a_fine_tuned_run_has_its_classifier(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, {"model": {"cnn": "c3d"}, "clip": {"frames": 8, "size": 32}})
    encoder = cacl.create_model("c3d", width=1 / 16)
    model = VideoClassifier(encoder, 5, 0.5)
    nn.init.normal_(model.classifier.bias)
    record = FinetuneRecord(classes=tuple("abcde"), val_fingerprint="")
    (network,) = read_networks(save_run(tmp_path, config, model.state_dict(), record))
    export(network, list(FORMATS), tmp_path)
    described = json.loads((tmp_path / "cnn.json").read_text())
    assert described["classes"] == list("abcde")
    assert [output["shape"] for output in described["outputs"]] == [["batch", encoder.num_features], ["batch", 5]]
    clips = torch.rand(2, 3, 8, 32, 32)
    with torch.inference_mode():
        expected = (model.eval().encoder(clips), model(clips))
        for form in FORMATS.values():
            found = form.load(network, tmp_path / f"cnn{form.suffix}")(clips)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert load_file(tmp_path / "cnn.safetensors").keys() >= {"classifier.weight", "cnn.layers.0.weight"}


def test_a_plugin_is_exported(tmp_path: Path) -> None:
    assert [file.largest_difference < 1e-6 for file in export(plugin(), list(FORMATS), tmp_path)] == [True] * 3


def test_the_torch_file_holds_no_pickle(tmp_path: Path) -> None:
    export(plugin(), ["torch"], tmp_path)
    with zipfile.ZipFile(tmp_path / "cnn.pt2") as archive:
        files = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    assert not any(content.startswith((b"PK", b"\x80")) for content in files.values())
    assert files["data/weights/weight_0"] == np.ones(3, np.float32).tobytes()
    (payload,) = json.loads(files["data/weights/model_weights_config.json"])["config"].values()
    assert payload["use_pickle"] is False


@pytest.mark.parametrize("form", FORMATS)
def test_what_computes_something_else_is_not_written(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plugin, "change", staticmethod(lambda x: x + 0.01 * torch.rand_like(x)))
    with pytest.raises(DifferenceError, match=r"differs from the original by 0\.0\d+, at most 0\.0001") as refused:
        export(plugin(), [form], tmp_path)
    assert refused.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


def test_nan_is_no_match(tmp_path: Path) -> None:
    with pytest.raises(DifferenceError, match="by nan"):
        export(plugin(torch.tensor([1.0, torch.nan, 1.0])), ["safetensors"], tmp_path)


def test_a_failing_format_leaves_the_earlier_export_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(plugin(), ["safetensors", "torch"], tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(Plugin, "change", staticmethod(lambda x: x if x.sum() > 0 else -x))
    with pytest.raises(ExportError, match=r"^cnn \(export_test\): cannot be exported as torch: .*data-dependent") as no:
        export(plugin(2 * torch.ones(3)), ["safetensors", "torch"], tmp_path)
    assert "\n" not in str(no.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_operator_that_onnx_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plugin, "change", staticmethod(torch.special.airy_ai))
    with pytest.raises(ExportError, match=r"cannot be exported as onnx: .*airy_ai"):
        export(plugin(), ["onnx"], tmp_path)


def test_one_onnx_file_holds_two_gib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "MAX_ONNX_BYTES", 8)
    with pytest.raises(ExportError, match="more than one ONNX file holds"):
        export(plugin(), ["onnx"], tmp_path)


def test_files_of_an_earlier_export_do_not_stay_beside_another_description(tmp_path: Path) -> None:
    export(plugin(), ["safetensors", "torch"], tmp_path)
    with pytest.raises(UsageError, match=r"cnn\.pt2: belongs to an earlier export"):
        export(plugin(), ["safetensors"], tmp_path)


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError, match=r"--format onnx: onnxscript not installed; `pip install 'cacl\[export\]'`"):
        check_packages(list(FORMATS))
    check_packages(["safetensors", "torch"])


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_untrained(tmp_path / "encoders.safetensors", "r3d10", frames=4, size=16, width=1 / 16)
    arguments = ["export", str(tmp_path / "encoders.safetensors"), "--format", "safetensors", "--out"]
    monkeypatch.setattr(sys, "argv", ["cacl", *arguments, str(tmp_path / "encoders.safetensors")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "encoders.safetensors: cannot be written (File exists)" in capsys.readouterr().err


def test_an_encoder_that_is_not_there_is_named(tmp_path: Path) -> None:
    save_untrained(tmp_path / "encoders.safetensors", "r3d10", frames=4, size=16, width=1 / 16)
    with pytest.raises(CheckpointError, match="holds no encoder 'transformer', only cnn"):
        read_networks(tmp_path / "encoders.safetensors", ["transformer"])
