"""The four tasks of CONTRIBUTING.md, done from outside the package, through `cacl train`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

import cacl
from tests.commands.finished import Finished, Run
from tests.launch import ROOT

FILE = re.compile(r"`(\w+)\.py`:\n\n```python\n(.*?)```", re.DOTALL)
FILES = dict(FILE.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
TASKS = ("tiny3d", "variance", "across", "solarize", "names")
COMMANDS = re.findall(r"^cacl (train .*)$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture
def here(tmp_path: Path, config_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the files of CONTRIBUTING.md and a configuration."""
    for name, text in FILES.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    shutil.copy(config_file, tmp_path / "my.toml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def train(process: Run, name: str, videos: Path) -> Finished:
    """Runs the command that CONTRIBUTING.md gives for a file, for one epoch."""
    (command,) = (command for command in COMMANDS if f"--import {name} " in command)
    arguments = [str(videos) if word == "videos" else word.strip("'") for word in command.split()]
    done = process(*arguments, "--set", "train.epochs=1", "--json")
    assert done.returncode == 0, done.stderr
    return done


def metrics(run: Path) -> dict[str, float]:
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])


def weights(run: Path) -> dict[str, torch.Tensor]:
    """What a checkpoint holds, read without `cacl`, which does not know the names here."""
    return torch.load(run / "checkpoint.pt", weights_only=True)["model"]


def test_there_is_a_file_and_a_command_for_each_task() -> None:
    assert list(FILES) == [*TASKS[:1], "test_tiny3d", *TASKS[1:]]
    assert [re.findall(r"--import (\w+)", command) for command in COMMANDS] == [[name] for name in TASKS]


def test_the_test_of_the_page(here: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_tiny3d.py"]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_an_encoder(here: Path, videos: Path, process: Run) -> None:
    train(process, "tiny3d", videos)
    assert weights(here / "runs/tiny3d")["query.cnn.layers.2.weight"].shape == (64, 32, 3, 3, 3)
    done = process("eval", "retrieval", "runs/tiny3d", "--import", "tiny3d", "--json")
    assert done.returncode == 0, done.stderr
    assert "cnn, trained" in json.loads(done.stdout)[0]["recall"]
    forgotten = process("eval", "retrieval", "runs/tiny3d")
    assert forgotten.returncode == 2
    assert len(forgotten.stderr.splitlines()) == 1
    assert "tiny3d" in forgotten.stderr
    assert "--import" in forgotten.stderr


def test_a_loss(here: Path, videos: Path, process: Run) -> None:
    train(process, "variance", videos)
    last = metrics(here / "runs/variance")
    assert 0 < last["deviation/cnn"] < 1
    assert last["loss"] == pytest.approx(last["contrast"] + last["order"] + 0.1 * last["variance"], rel=1e-5)
    names = weights(here / "runs/variance")
    assert {"query.cnn_heads.variance.weight", "query.transformer_heads.variance.weight"} <= set(names)
    assert not [name for name in names if name.startswith("key.") and "variance" in name]


def test_pairs(here: Path, videos: Path, process: Run) -> None:
    train(process, "across", videos)
    found = {name for name in metrics(here / "runs/across") if name.startswith("similarity/")}
    assert found == {"similarity/cnn_query.transformer_key", "similarity/transformer_query.cnn_key"}


def test_an_augmentation(here: Path, videos: Path, process: Run) -> None:
    """A second run without it sees the same clips otherwise. The encoders are read without it."""
    train(process, "solarize", videos)
    plain = process("train", videos, "--run", "runs/plain", "--config", "my.toml", "--set", "train.epochs=1")
    assert plain.returncode == 0, plain.stderr
    assert metrics(here / "runs/solarize")["loss"] != metrics(here / "runs/plain")["loss"]
    cacl.load_encoder(here / "runs/solarize")
    for task in (["retrieval"], ["recognition", "--classifier", "knn"]):
        done = process("eval", *task, "runs/solarize")
        assert done.returncode == 0, done.stderr
    config = tomllib.loads((here / "runs/solarize/config.toml").read_text())
    assert config["augment"]["batch_transforms"] == ["solarize"]


def test_a_layout(here: Path, videos: Path, process: Run, tmp_path: Path) -> None:
    named = tmp_path / "named"
    named.mkdir()
    for number, video in enumerate(sorted(videos.rglob("*.mp4"))):
        split = "test" if number % 4 == 3 else "train"
        shutil.copy(video, named / f"{video.parent.name}_{split}_{number:02d}.mp4")
    scanned = process("data", "scan", named, "--import", "names", "--set", "clip.frames=4", "--json")
    assert scanned.returncode == 0, scanned.stderr
    result = json.loads(scanned.stdout)
    assert result["layout"] == "names"
    found = [(video["path"], video["label"], video["split"]) for video in result["videos"]]
    assert found == [(path, *path.split("_")[:2]) for path in sorted(path.name for path in named.iterdir())]
    train(process, "names", named)
    manifest = (here / "runs/names/manifest.jsonl").read_text()
    assert manifest.count("_train_") == 6
    assert "_test_" not in manifest


def test_an_installed_plugin_needs_no_import(here: Path, interpreter: Run) -> None:
    """A folder with metadata on Python's path is how an installed package looks."""
    info = here / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[cacl.plugins]\ntiny3d = tiny3d\nbroken = not_there\n")
    path = {"PYTHONPATH": f"{here}:{ROOT}"}
    done = interpreter("config", "model.cnn", "--json", environment=path)
    assert done.returncode == 0, done.stderr
    assert "tiny3d" in json.loads(done.stdout)[0]["choices"]
    assert len(done.stderr.splitlines()) == 1
    assert "broken of my-package is left out" in done.stderr


def test_a_module_that_is_not_there_is_one_line(here: Path, process: Run) -> None:
    done = process("config", "--import", "not_there")
    path = process("config", "--import", "./not_there")
    assert path.stderr == done.stderr.replace("not_there", "./not_there")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("cacl: --import not_there: there is no such module")
    assert len(done.stderr.splitlines()) == 1


def test_a_module_that_lacks_another_one_says_where(here: Path, process: Run) -> None:
    (here / "lacking.py").write_text("import not_there\n")
    done = process("config", "--import", "lacking")
    assert done.returncode == 1
    assert "lacking.py" in done.stderr
    assert "No module named 'not_there'" in done.stderr


def test_two_things_of_one_name_are_refused(here: Path, process: Run) -> None:
    (here / "again.py").write_text(FILES["tiny3d"].replace("tiny3d", "c3d"))
    done = process("config", "--import", "again")
    assert done.returncode == 2
    assert done.stderr == (
        "cacl: c3d: cacl.models.cnn3d:c3d and again:Tiny3D have the same name (encoder); rename one\n"
    )
