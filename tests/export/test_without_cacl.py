"""What docs/export.md and the example do with exported files, in a process that has no cacl."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cacl
from cacl.benchmarks.scripts.export_parity import save_untrained
from cacl.checkpoints.encoders import EncoderWeights
from cacl.clips import VideoRecord
from cacl.config import from_dict, to_dict
from cacl.export.description import preprocessing
from cacl.export.export import export
from cacl.export.formats import FORMATS
from cacl.export.network import read_networks
from cacl.loaders.backends.pillow_ops import resize_frames
from cacl.loaders.backends.reference import make_view
from cacl.loaders.clip_loader import ClipLoader
from cacl.loaders.sampling.sampler import evaluation_plans
from tests.conftest import picture
from tests.launch import ROOT

SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/export.md").read_text(encoding="utf-8"), re.DOTALL)
ALONE = """
import json, runpy, sys
def refuse(event, arguments):
    if event == "pickle.find_class":
        raise RuntimeError(f"unpickles {arguments}")
sys.addaudithook(refuse)
sys.modules["cacl"] = None
try:
    import cacl.export
except ModuleNotFoundError:
    for script, *arguments in json.loads(sys.argv[1]):
        sys.argv = [script, *arguments]
        runpy.run_path(script, run_name="__main__")
        print("END")
else:
    sys.exit("cacl can be imported")
"""
"""Runs scripts one after the other, those that need no torch first, where nothing is unpickled."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CNN for small clips in `exported`, and what it was exported from."""
    folder = tmp_path_factory.mktemp("without_cacl")
    save_untrained(folder / "encoders.safetensors", "r3d10", frames=8, size=32, width=1 / 16)
    (network,) = read_networks(folder / "encoders.safetensors")
    export(network, list(FORMATS), folder / "exported")
    return folder


@pytest.fixture(scope="module")
def alone(exported: Path, make_video: Callable[..., Path]) -> dict[str, list[str]]:
    """Runs the snippets of the page and the example in a process that cannot import cacl, and returns what each says.

    The clips of the snippets are in clips.npy, their features in onnx.npy and torch.npy, and that of the example in
    feature.npy.
    """
    np.save(exported / "clips.npy", np.random.default_rng(0).random((5, 3, 8, 32, 32), np.float32))
    make_video(exported / "videos/a.mp4", frames=60, size=(64, 48))
    (exported / "snippet_onnx.py").write_text(snippet("onnxruntime", 'numpy.save("onnx.npy", features)'))
    (exported / "snippet_torch.py").write_text(snippet("torch.export.load", 'numpy.save("torch.npy", features)'))
    (exported / "snippet_safetensors.py").write_text(snippet("safetensors", "print(len(weights))"))
    scripts = {
        "onnx": ["snippet_onnx.py"],
        "example": [str(ROOT / "examples/exported_encoder.py"), "exported/cnn.json", "videos/a.mp4", "feature.npy"],
        "torch": ["snippet_torch.py"],
        "safetensors": ["snippet_safetensors.py"],
    }
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, json.dumps(list(scripts.values()))],
        cwd=exported,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    *said, end = done.stdout.split("END\n")
    assert end == ""
    return {name: text.splitlines() for name, text in zip(scripts, said, strict=True)}


def snippet(word: str, after: str) -> str:
    """The snippet of the page that has a word, for the clips of clips.npy in place of noise, and a line after it."""
    (code,) = (code for code in SNIPPETS if word in code)
    code, count = re.subn(r"numpy\.random\.rand\(.*\)", 'numpy.load("clips.npy")', code)
    code, more = re.subn(r"torch\.rand\([\d, ]+\)", 'torch.from_numpy(numpy.load("clips.npy"))', code)
    assert count + more == (word != "safetensors")
    return f"import numpy\n{code}\n{after}\n"


def test_each_format_has_a_snippet() -> None:
    assert ["onnx" in SNIPPETS[0], "torch.export" in SNIPPETS[1], "safetensors" in SNIPPETS[2]] == [True] * 3
    assert len(SNIPPETS) == 3


@pytest.mark.parametrize("form", ["onnx", "torch"])
def test_the_snippets_give_the_features_of_the_encoder(exported: Path, alone: dict[str, list[str]], form: str) -> None:
    clips = np.load(exported / "clips.npy")
    with torch.inference_mode():
        features = cacl.load_encoder(exported / "encoders.safetensors")(torch.from_numpy(clips)).numpy()
    found = np.load(exported / f"{form}.npy")
    assert found.shape == features.shape
    assert np.abs(found - features).max() < 1e-4 < features.std()


def test_weights_and_description_are_read(exported: Path, alone: dict[str, list[str]]) -> None:
    lines = alone["safetensors"]
    description = json.loads((exported / "exported/cnn.json").read_text())
    assert lines[1:-1] == description["preprocessing"]["steps"]
    assert int(lines[-1]) == len(cacl.load_encoder(exported / "encoders.safetensors").state_dict())


@pytest.mark.parametrize("keys", [(10, "span"), (1, "span"), (3, "official")], ids=str)
@pytest.mark.parametrize("resize", [(0, 0), (37, 50)], ids=str)
def test_the_example_sees_what_the_evaluation_sees(keys: tuple[int, str], resize: tuple[int, int]) -> None:
    """Frame numbers of videos of many lengths, and the view of one frame, from what stands in the JSON file."""
    example = runpy.run_path(str(ROOT / "examples/exported_encoder.py"))
    count, starts = keys
    config = from_dict(
        {
            "clip": {"frames": 8, "stride": 3, "size": 24},
            "augment": {"resize": list(resize), "crop": [0.5, 0.9]},
            "retrieval": {"clips_per_video": count, "clip_starts": starts},
        }
    )
    told = json.loads(json.dumps(preprocessing(config)))
    for frames in (8, 9, 15, 21, 22, 24, 61, 350):
        video = VideoRecord(
            path="a.mp4", frames=frames, declared_frames=0, rate=25.0, width=63, height=46, codec="h264"
        )
        plans = list(evaluation_plans([video], [0], count, config.clip, config.augment, config.retrieval.clip_starts))
        assert example["clip_frames"](told, frames) == [plan.frame_numbers for plan in plans]
    image = picture(5, (63, 46))
    frames = torch.from_numpy(resize_frames(image[None], *resize) if any(resize) else image[None])
    expected = make_view(frames.permute(0, 3, 1, 2), plans[0].views[0], 24)
    found = example["view"](told, Image.fromarray(image))
    assert found.dtype == np.float32
    assert np.abs(found - expected[:, 0].numpy()).max() < 1e-5


def test_the_example_computes_the_feature_of_the_evaluation(exported: Path, alone: dict[str, list[str]]) -> None:
    weights = EncoderWeights.read(exported / "encoders.safetensors")
    overrides = {"data": {"root": str(exported / "videos"), "cache": str(exported)}, "loader": {"backend": "reference"}}
    loader = ClipLoader.from_config(from_dict(to_dict(weights.config) | overrides), batch_size=10, split=None)
    (batch,) = loader.evaluation(10)
    with torch.inference_mode():
        feature = weights.build("cnn")(batch.views[0].float()).mean(0).numpy()
    found = np.load(exported / "feature.npy")
    assert np.linalg.norm(found - feature) < 1e-3 * np.linalg.norm(feature)  # Clips are rounded to half precision.
