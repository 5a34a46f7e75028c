"""What docs/export.md and the example do with exported files, in processes that have no cacl."""

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
import runpy, sys
sys.modules["cacl"] = None
try:
    import cacl.export
except ModuleNotFoundError:
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
else:
    sys.exit("cacl can be imported")
"""
NO_PICKLE = """
import sys
def refuse(event, arguments):
    if event == "pickle.find_class":
        raise RuntimeError(f"unpickles {arguments}")
sys.addaudithook(refuse)
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CNN for small clips in `exported`, and what it was exported from."""
    folder = tmp_path_factory.mktemp("without_cacl")
    save_untrained(folder / "encoders.safetensors", "r3d10", frames=8, size=32, width=1 / 16)
    (network,) = read_networks(folder / "encoders.safetensors")
    export(network, list(FORMATS), folder / "exported")
    return folder


def run_alone(folder: Path, script: Path, *arguments: object) -> str:
    """Runs a script in a process that cannot import cacl, and returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, str(script), *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def snippet(folder: Path, clips: np.ndarray, *words: str) -> str:
    """The snippet of the page that has one of these words, for these clips in place of noise."""
    np.save(folder / "clips.npy", clips)
    (code,) = (code for code in SNIPPETS if all(word in code for word in words))
    code, count = re.subn(r"numpy\.random\.rand\(.*\)", 'numpy.load("clips.npy")', code)
    code, more = re.subn(r"torch\.rand\([\d, ]+\)", 'torch.from_numpy(numpy.load("clips.npy"))', code)
    assert count + more == 1 or words == ("safetensors",)
    return "import numpy\n" + code


def test_each_format_has_a_snippet() -> None:
    assert ["onnx" in SNIPPETS[0], "torch.export" in SNIPPETS[1], "safetensors" in SNIPPETS[2]] == [True] * 3
    assert len(SNIPPETS) == 3


def test_the_snippets_give_the_features_of_the_encoder(exported: Path) -> None:
    clips = np.random.default_rng(0).random((5, 3, 8, 32, 32), np.float32)
    with torch.inference_mode():
        features = cacl.load_encoder(exported / "encoders.safetensors")(torch.from_numpy(clips)).numpy()
    for word in ("onnxruntime", "torch.export.load"):
        script = exported / "snippet.py"
        script.write_text(f'{NO_PICKLE}{snippet(exported, clips, word)}\nnumpy.save("found.npy", features)\n')
        run_alone(exported, script)
        found = np.load(exported / "found.npy")
        assert found.shape == features.shape
        assert np.abs(found - features).max() < 1e-4 < features.std()


def test_weights_and_description_are_read(exported: Path) -> None:
    script = exported / "snippet.py"
    script.write_text(snippet(exported, np.zeros(1), "safetensors") + "print(len(weights))\n")
    lines = run_alone(exported, script).splitlines()
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


def test_the_example_computes_the_feature_of_the_evaluation(exported: Path, make_video: Callable[..., Path]) -> None:
    make_video(exported / "videos/a.mp4", frames=60, size=(64, 48))
    run_alone(exported, ROOT / "examples/exported_encoder.py", "exported/cnn.json", "videos/a.mp4", "feature.npy")
    weights = EncoderWeights.read(exported / "encoders.safetensors")
    overrides = {"data": {"root": str(exported / "videos"), "cache": str(exported)}, "loader": {"backend": "reference"}}
    loader = ClipLoader.from_config(from_dict(to_dict(weights.config) | overrides), batch_size=10, split=None)
    (batch,) = loader.evaluation(10)
    with torch.inference_mode():
        feature = weights.build("cnn")(batch.views[0].float()).mean(0).numpy()
    found = np.load(exported / "feature.npy")
    assert np.linalg.norm(found - feature) < 1e-3 * np.linalg.norm(feature)  # Clips are rounded to half precision.
