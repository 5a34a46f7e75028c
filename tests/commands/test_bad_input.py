"""What goes wrong and can be mended is told in one line that begins with `cacl: `, never in a traceback.

The exit code is 1 where the run failed, and 2 where the usage or the configuration is wrong.
"""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.commands.finished import Finished, Run


def complaint(finished: Finished, *codes: int) -> str:
    """The one line on stderr that begins with `cacl: `. It is the last one, after what was logged before."""
    assert "Traceback" not in finished.stderr, finished.stderr
    assert finished.returncode in codes, finished.stderr
    assert finished.stdout == ""
    *logged, line = finished.stderr.splitlines()
    assert line.startswith("cacl: "), finished.stderr
    assert not [line for line in logged if line.startswith("cacl: ")]
    return line.removeprefix("cacl: ")


@pytest.fixture
def train(cacl: Run, config_file: Path, tmp_path: Path) -> Run:
    """`train("key=value", ...)` with the small configuration and a new run folder."""

    def call(*overrides: str, options: tuple[str, ...] = ()) -> Finished:
        sets = [part for override in (f"run={tmp_path / 'run'}", *overrides) for part in ("--set", override)]
        return cacl("train", "--config", config_file, *sets, *options)

    return call


# --- The command line itself


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "--epochs", "3"], "--epochs"),
        (["training"], "training"),
        (["data", "sacn"], "sacn"),
        (["data", "scan"], "root"),
        (["eval", "retrieval"], "checkpoint"),
        (["data", "synth", "x", "--train", "many"], "--train"),
        (["train", "videos", "surplus"], "surplus"),
        (["recipes", "demo", "surplus"], "surplus"),
        (["config", "clip", "surplus"], "surplus"),
        (["train", "--config"], "--config"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_named(cacl: Run, arguments: list[str], named: str) -> None:
    finished = cacl(*arguments)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert "Traceback" not in finished.stderr
    assert named in finished.stderr


# --- Configuration


CONFIGURATIONS = {
    "clip.framse=8": ["clip.framse: no such key; did you mean clip.frames?"],
    "optim.lr=fast": ["optim.lr = 'fast'"],
    "train.batch_size": ["--set train.batch_size: write it as section.key=value"],
    "contrast.shuffle_bn_groups=3": ["contrast.shuffle_bn_groups = 3", "train.batch_size = 4"],
    "data.root=": ["data.root is not set", "cacl train path/to/videos"],
    "optim.name=adamq": ["optim.name = 'adamq'", "did you mean adam"],
    "model.transformer.embedder=resnet51": ["model.transformer.embedder = 'resnet51'", "resnet50"],
    "train.device=nonsense": ["train.device = 'nonsense'", "auto, cpu or cuda"],
    "train.device=meta": ["train.device = 'meta'"],
    "train.device=mps": ["train.device = 'mps'"],
    "train.precision=bf16": ["train.precision = bf16", "auto or fp32"],
    f"seed={2**63}": ["seed"],
    "train.epochs=inf": ["train.epochs = inf"],
    "optim.warmup_epochs=inf": ["optim.warmup_epochs = inf"],
    "model.width=inf": ["model.width = inf"],
}


@pytest.mark.parametrize("override", CONFIGURATIONS)
def test_a_wrong_configuration_is_one_line(train: Run, tmp_path: Path, override: str) -> None:
    line = complaint(train(override), 2)
    assert all(part in line for part in CONFIGURATIONS[override]), line
    assert not (tmp_path / "run/checkpoint.pt").exists()


def test_several_problems_are_one_line_each(train: Run) -> None:
    finished = train("clip.framse=8", "optim.lr=-1", "train.log_every=0")
    assert (finished.returncode, finished.stdout) == (2, "")
    lines = finished.stderr.splitlines()
    assert finished.stderr.startswith("cacl: ")
    assert len(lines) == 3
    for key in ("clip.framse", "optim.lr", "train.log_every"):
        assert len([line for line in lines if line.removeprefix("cacl: ").startswith(key)]) == 1


@pytest.mark.parametrize("loader", ["auto", "dali"])
def test_a_gpu_that_is_not_there_is_missed(train: Run, loader: str) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU, so nothing is missing")
    line = complaint(train(f"loader.backend={loader}", "train.device=cuda"), 2)
    assert "no CUDA device is visible" in line
    assert "train.device" in line


FILES = {
    "missing": (None, "cannot be read (No such file or directory)"),
    "broken": (b"[train]\nbatch = = 3\n", "is not valid TOML: Invalid value (at line 2, column 9)"),
    "latin-1": (b'name = "caf\xe9"\n', "is not valid TOML"),
    "unknown section": (b"[training]\nbatch = 3\n", "training: no such key; did you mean train?"),
    "section as value": (b"train = 3\n", "train = 3"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_configuration_file_is_one_line(cacl: Run, tmp_path: Path, name: str) -> None:
    content, part = FILES[name]
    path = tmp_path / "given.toml"
    if content is not None:
        path.write_bytes(content)
    line = complaint(cacl("train", "--config", path), 2)
    assert part in line
    assert str(path) in line or name in ("unknown section", "section as value")


# --- Videos


def test_a_root_that_is_not_there(train: Run, cacl: Run, tmp_path: Path) -> None:
    root = tmp_path / "nowhere"
    for finished in (train(f"data.root={root}"), cacl("data", "scan", root)):
        assert complaint(finished, 1) == f"data.root = {root}: does not exist, or may not be read"


def test_a_root_without_videos(train: Run, cacl: Run, tmp_path: Path) -> None:
    root = tmp_path / "empty"
    root.mkdir()
    for finished in (train(f"data.root={root}"), cacl("data", "scan", root)):
        assert complaint(finished, 1).startswith(f"data.root = {root}: holds no video (looked for .avi .mp4 ")


def test_a_root_with_broken_videos_only(train: Run, cacl: Run, tmp_path: Path) -> None:
    root = tmp_path / "broken"
    (root / "a").mkdir(parents=True)
    (root / "a/text.mp4").write_text("no video")
    (root / "a/empty.mp4").touch()
    line = complaint(train(f"data.root={root}"), 1)
    assert line.startswith(f"data.root = {root}: no video can be used, of 2 found: a/empty.mp4 is empty (0 bytes); ")
    assert "a/text.mp4 cannot be opened as a video" in line
    scanned = cacl("data", "scan", root, "--json")
    assert scanned.returncode == 1
    assert scanned.stderr == f"cacl: {line}\n"
    assert '"videos": []' in scanned.stdout


def test_clips_longer_than_every_video(train: Run, videos: Path) -> None:
    line = complaint(train("clip.frames=100"), 1)
    assert line.startswith(f"data.root = {videos}: every video is too short; the longest, ")
    assert "/3.mp4, has 11 frames, and a clip needs 100 (clip.frames, clip.min_remaining_frames)" in line


def test_a_folder_that_synth_did_not_make(cacl: Run, videos: Path) -> None:
    assert complaint(cacl("data", "synth", videos), 1).startswith(f"{videos}: is not empty")


# --- Run folders


def test_a_run_folder_in_use(train: Run, run: Path) -> None:
    before = (run / "checkpoint.pt").read_bytes()
    line = complaint(train(), 2)
    assert line == f"{run} already holds a run: --resume goes on with it, --run begins another"
    assert (run / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("location", ["file", "file/run"])
def test_a_run_folder_that_cannot_be_made(train: Run, tmp_path: Path, location: str) -> None:
    (tmp_path / "file").write_text("in the way")
    assert str(tmp_path / location) in complaint(train(f"run={tmp_path / location}"), 1, 2)


def test_resuming_with_another_configuration(train: Run, run: Path) -> None:
    line = complaint(train("optim.lr=0.5", "clip.stride=2", "train.log_every=7", options=("--resume",)), 1)
    assert line.startswith(f"{run} was begun with another configuration (clip.stride: 1 -> 2; optim.lr: 0.01 -> 0.5)")


def test_resuming_with_other_videos(train: Run, run: Path, videos: Path, tmp_path: Path) -> None:
    root = shutil.copytree(videos, tmp_path / "videos")
    (root / "walk/0.mp4").unlink()
    line = complaint(train(f"data.root={root}", options=("--resume",)), 1)
    assert line.startswith(f"{run} was begun with other training videos than {root} holds now")


def rewrite(checkpoint: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = torch.load(checkpoint, weights_only=True)
    change(values)
    torch.save(values, checkpoint)


def test_resuming_from_weights_of_another_model(train: Run, run: Path) -> None:
    rewrite(run / "checkpoint.pt", lambda values: values["config"]["model"].update(width=0.125))
    assert str(run) in complaint(train("model.width=0.125", options=("--resume",)), 1)


def test_resuming_from_the_state_of_another_optimiser(train: Run, run: Path) -> None:
    rewrite(run / "checkpoint.pt", lambda values: values["optimizer"].update(param_groups=[]))
    assert str(run) in complaint(train(options=("--resume",)), 1)


# --- Checkpoints


@pytest.mark.parametrize("name", ["nowhere", "nowhere.pt", "nowhere.safetensors"])
def test_a_checkpoint_that_is_not_there(cacl: Run, tmp_path: Path, name: str) -> None:
    line = complaint(cacl("eval", "retrieval", tmp_path / name), 1)
    assert line.startswith(f"{tmp_path / name}: no such checkpoint; give a run folder")


def test_a_run_folder_without_a_checkpoint(cacl: Run, tmp_path: Path) -> None:
    line = complaint(cacl("eval", "retrieval", tmp_path), 1)
    assert line.startswith(f"{tmp_path}: no checkpoint.pt in this folder")


NO_CHECKPOINTS = {
    "empty": b"",
    "text": b"hello world\n" * 9,
    "random": random.Random(0).randbytes(5000),
    "zip": b"PK\x03\x04" + b"0" * 50,
    "short pickle": b"\x80\x02.",
    "pickle of an object": b"cos\nsystem\n(S'touch executed'\ntR.",
}


@pytest.mark.parametrize("name", NO_CHECKPOINTS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_that_is_no_checkpoint(
    cacl: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, suffix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"given{suffix}"
    path.write_bytes(NO_CHECKPOINTS[name])
    line = complaint(cacl("eval", "retrieval", path), 1)
    assert line.startswith(f"{path}: is damaged or no ")
    assert not (tmp_path / "executed").exists()
    assert "weights_only" not in line, "advises to load a file that nobody should trust"


@pytest.mark.parametrize("name", ["checkpoint.pt", "encoders.safetensors"])
@pytest.mark.parametrize("share", [0.5, 0.999])
def test_a_truncated_checkpoint(cacl: Run, run: Path, name: str, share: float) -> None:
    content = (run / name).read_bytes()
    (run / name).write_bytes(content[: int(len(content) * share)])
    assert complaint(cacl("eval", "retrieval", run / name), 1).startswith(f"{run / name}: is damaged or no ")


@pytest.mark.parametrize("content", [{"state_dict": {}}, [1], {"format": 1}, {"format": 99}], ids=str)
def test_somebody_elses_checkpoint(cacl: Run, tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pt")
    assert str(tmp_path / "other.pt") in complaint(cacl("eval", "retrieval", tmp_path / "other.pt"), 1)


@pytest.mark.parametrize("metadata", [None, {}, {"config": "x"}, {"config": "{}"}, {"config": "[]"}], ids=str)
def test_somebody_elses_safetensors(cacl: Run, tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata)
    assert str(path) in complaint(cacl("eval", "retrieval", path), 1)


def test_weights_of_another_model(cacl: Run, run: Path) -> None:
    rewrite(run / "checkpoint.pt", lambda values: values["config"]["model"].update(width=0.125))
    line = complaint(cacl("eval", "retrieval", run), 1)
    assert "belongs to another model" in line
    assert str(run / "checkpoint.pt") in line


def test_a_configuration_of_another_version(cacl: Run, run: Path) -> None:
    rewrite(run / "checkpoint.pt", lambda values: values["config"]["model"].update(wings=2))
    line = complaint(cacl("eval", "retrieval", run), 1)
    assert line.startswith(f"{run / 'checkpoint.pt'}: its configuration is not one of this version (model.wings: ")


def test_safetensors_without_the_weights_of_an_encoder(cacl: Run, run: Path) -> None:
    path = run / "encoders.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors.pop(min(tensors))
    save_file(tensors, path, metadata)
    assert "belongs to another model" in complaint(cacl("eval", "retrieval", path), 1)


# --- Retrieval


def test_an_unknown_label_lists_the_known(cacl: Run, run: Path, videos: Path) -> None:
    line = complaint(cacl("eval", "retrieval", run, "--label", "color"), 1)
    assert line == f"{videos}: its videos have no 'color'; the columns of its lists are colour"


def test_an_unknown_key_in_retrieval(cacl: Run, run: Path) -> None:
    line = complaint(cacl("eval", "retrieval", run, "--set", "retrieval.clip_per_video=3"), 2)
    assert line == "retrieval.clip_per_video: no such key; did you mean retrieval.clips_per_video?"


@pytest.mark.parametrize("override", ["clip.frames=6", "model.width=0.5", "model.cnn=r3d18"])
def test_keys_that_the_weights_decide_cannot_be_set(cacl: Run, run: Path, override: str) -> None:
    """Taken in silence, they would leave the caller with another figure than they asked for."""
    assert override.split("=")[0] in complaint(cacl("eval", "retrieval", run, "--set", override), 1, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("retrieval", "--groups", "colour", "--queries", "val"), "each group queries the others"),
        (("recognition", "--crops", "3"), "only the network of a run of `cacl finetune` takes it"),
        (
            ("recognition", "--classifier", "knn", "--average", "probabilities"),
            "only the network of a run of `cacl finetune` takes it",
        ),
        (
            ("recognition", "--classifier", "attentive", "--features", "map"),
            "--features map --classifier attentive: that takes tokens; leave one out",
        ),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    cacl: Run, run: Path, options: tuple[str, ...], message: str
) -> None:
    task, *others = options
    done = cacl("eval", task, run, *others)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
