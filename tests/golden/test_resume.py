"""A run that was killed or stopped, and resumed, ends in the same bits as one that was left alone."""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import torch
from torch import Tensor

from cacl import config as configuration
from cacl.checkpoints import checkpoint
from cacl.clips import ClipBatch
from cacl.config import Config
from cacl.errors import CaclError
from cacl.training.stop_signals import TrainingInterruptedError
from cacl.training.train_state import TrainState
from cacl.training.trainer import train
from tests import forked
from tests.same_bits import assert_same_bits
from tests.tiny import tiny_config

training = import_module("cacl.training.trainer")

pytestmark = pytest.mark.usefixtures("one_thread")

VIDEOS, BATCH = 7, 4
LONG_RUN, LONG_INTERVAL = 70, 34
"""Steps of the runs that are killed from outside, and from one of their checkpoints to the next."""
WRITTEN = (
    "config.toml",
    "manifest.jsonl",
    "metrics.jsonl",
    "checkpoint.pt",
    "encoders.safetensors",
    "events.out.tfevents",
)
WALL_CLOCK = ("clips_per_second", "data_wait_share")
"""The scalars that no run repeats."""


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {"OMP_NUM_THREADS": "1", "TERM": "dumb", "_TYPER_FORCE_DISABLE_TERMINAL": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def videos(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes videos whose number is no multiple of the batch size, so that batches straddle epochs."""
    root = tmp_path_factory.mktemp("videos")
    for number in range(VIDEOS):
        make_video(root / f"{number}.mp4", frames=8 + number, size=(32, 24), gop=4)
    return root


@pytest.fixture(scope="module")
def configured(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Config]:
    """Makes configurations: `configured(run, steps, checkpoint_every, contrast={...})`."""
    cache = tmp_path_factory.mktemp("cache")

    def make(run: Path, steps: int, checkpoint_every: int, **sections: dict[str, Any]) -> Config:
        own = {
            "data": {"root": str(videos), "cache": str(cache)},
            "train": {"epochs": steps * BATCH / VIDEOS, "batch_size": BATCH, "checkpoint_every": checkpoint_every},
        }
        return tiny_config(run, own, sections)

    return make


# ------------------------------------------------------------------------------------------- what a step is shown


class Died(BaseException):
    """Stands for the end of the process. Nothing in the run may catch it and tidy up."""


class Step(NamedTuple):
    """What the model was shown in one step."""

    indices: list[int]
    video: list[int]
    order: list[list[int]]
    views: str


def observed(config: Config, *, resume: bool = False, at: int = 0, event: Callable[[], None] | None = None) -> Any:
    """Runs `train` and returns what each step was shown. `event` happens in step `at`, before its checkpoint."""
    steps: list[Step] = []

    class Observed(TrainState):
        def train_step(self, batch: ClipBatch, **options: Any) -> dict[str, Tensor]:
            digest = hashlib.sha256(b"".join(view.numpy().tobytes() for view in batch.views)).hexdigest()
            steps.append(Step(batch.index.tolist(), batch.video.tolist(), batch.order.tolist(), digest))
            metrics = super().train_step(batch, **options)
            if event is not None and self.step == at:
                event()
            return metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "TrainState", Observed)
        try:
            train(config, resume=resume)
        except (Died, TrainingInterruptedError):
            assert event is not None
    return steps


def logged(run: Path) -> list[dict[str, float]]:
    """Reads the scalars that a run wrote down, without those of the wall clock."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in WALL_CLOCK} for line in lines]


def die() -> None:
    raise Died


def ask_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


# ------------------------------------------------------------------------------------------------ in one process

METHODS: dict[str, dict[str, dict[str, Any]]] = {
    "cross": {"contrast": {"pairs": "cross"}},
    "official": {
        "contrast": {"pairs": "official"},
        "optim": {"name": "adamw", "lr": 1e-3, "warmup_epochs": 3.0, "max_grad_norm": 1.0},
    },
    "cnn": {"contrast": {"pairs": "cnn", "shuffle_bn_groups": 2}},
    "clips apart": {"clip": {"max_frames_apart": 5}},
    "none": {"losses": {"contrast": 0.0}, "optim": {"warmup_epochs": 2.0}},
}


@pytest.mark.parametrize("method", METHODS)
def test_dying_between_checkpoints_changes_nothing(
    configured: Callable[..., Config], tmp_path: Path, method: str
) -> None:
    whole = configured(tmp_path / "whole", 8, 3, **METHODS[method])
    broken = dataclasses.replace(whole, run=str(tmp_path / "broken"))
    expected = observed(whole)
    assert [i for step in expected for i in step.indices] == list(range(8 * BATCH))

    before = observed(broken, at=5, event=die)
    assert checkpoint.load(tmp_path / "broken").step == 3
    assert before == expected[:5]
    torch.manual_seed(12345)  # another process would be in another state too
    assert observed(broken, resume=True) == expected[3:]
    assert_same_bits(tmp_path / "whole", tmp_path / "broken")
    assert [scalars["step"] for scalars in logged(tmp_path / "whole")] == list(range(1, 9))
    assert logged(tmp_path / "broken") == logged(tmp_path / "whole")
    encoders = [(tmp_path / name / "encoders.safetensors").exists() for name in ("whole", "broken")]
    assert encoders == [True, True]


@pytest.fixture(scope="module")
def short(configured: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Any]:
    config = configured(tmp_path_factory.mktemp("runs") / "short", 8, 3)
    return config, observed(config)


@pytest.mark.parametrize("at", [1, 6, 7])
def test_stopping_and_resuming_changes_nothing(short: tuple[Config, Any], tmp_path: Path, at: int) -> None:
    """A real signal comes in a step with a checkpoint (6), and in steps without one."""
    whole, expected = short
    broken = dataclasses.replace(whole, run=str(tmp_path / "broken"))
    before = observed(broken, at=at, event=ask_to_stop)
    saved = checkpoint.load(tmp_path / "broken").step
    assert saved in (at, at + 1)  # this step or the next: the signal comes while a step is under way
    assert before == expected[:saved]
    torch.manual_seed(12345)
    assert observed(broken, resume=True) == expected[saved:]
    assert_same_bits(Path(whole.run), tmp_path / "broken")


def test_a_resumed_run_may_run_otherwise(short: tuple[Config, Any], videos: Path, tmp_path: Path) -> None:
    """More threads, another prefetch, moved videos and other intervals change how it runs, not what it computes."""
    whole, expected = short
    broken = dataclasses.replace(whole, run=str(tmp_path / "broken"))
    observed(broken, at=5, event=die)
    moved = shutil.copytree(videos, tmp_path / "moved")
    other = dataclasses.replace(
        broken,
        name="another",
        data=dataclasses.replace(broken.data, root=str(moved)),
        loader=dataclasses.replace(broken.loader, threads=3, prefetch=1),
        train=dataclasses.replace(broken.train, log_every=3, checkpoint_every=2),
    )
    assert observed(other, resume=True) == expected[3:]
    assert_same_bits(Path(whole.run), tmp_path / "broken")


def test_resuming_a_finished_run_takes_no_step(short: tuple[Config, Any]) -> None:
    config, _ = short
    content = (Path(config.run) / "checkpoint.pt").read_bytes()
    assert observed(config, resume=True) == []
    assert (Path(config.run) / "checkpoint.pt").read_bytes() == content


# ------------------------------------------------------------------------------------------- processes, and SIGKILL


@pytest.fixture(scope="module")
def uninterrupted(configured: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Any]:
    config = configured(tmp_path_factory.mktemp("runs") / "whole", LONG_RUN, LONG_INTERVAL)
    return config, observed(config)


def trained(
    config: Config, surroundings: dict[str, str], *options: str, **signalled: Any
) -> subprocess.CompletedProcess[str]:
    """Runs `cacl train` in a process of its own, which may get a signal (see tests/forked.py)."""
    file = Path(config.run).with_suffix(".toml")
    file.write_text(configuration.to_toml(config))
    return forked.run(forked.cacl, "train", "-c", file, *options, environment=os.environ | surroundings, **signalled)


def ended(config: Config, surroundings: dict[str, str], after: str, number: signal.Signals) -> tuple[int, str]:
    """Sends a signal when a line that begins with `after` is read, and returns the exit code and stderr."""
    done = trained(config, surroundings, send=number, when=lambda line: line.startswith(after))
    return done.returncode, done.stderr


def test_a_killed_run_resumes_to_the_same_bits(
    uninterrupted: tuple[Config, Any], surroundings: dict[str, str], tmp_path: Path
) -> None:
    """The pipe holds fewer lines than there are steps from here to the next checkpoint, so the kill comes between."""
    whole, expected = uninterrupted
    config = dataclasses.replace(whole, run=str(tmp_path / "killed"))
    code, err = ended(config, surroundings, f"step {LONG_INTERVAL + 2}/{LONG_RUN}", signal.SIGKILL)
    assert code == -signal.SIGKILL, err
    steps = sum(line.startswith("step ") for line in err.splitlines())
    assert LONG_INTERVAL + 2 <= steps < 2 * LONG_INTERVAL
    assert checkpoint.load(tmp_path / "killed").step == LONG_INTERVAL
    assert not (tmp_path / "killed/encoders.safetensors").exists()
    assert logged(tmp_path / "killed")[-1]["step"] > LONG_INTERVAL
    with (tmp_path / "killed/metrics.jsonl").open("a") as file:
        file.write('{"step": 9')  # what a kill within a write would leave

    assert observed(config, resume=True) == expected[LONG_INTERVAL:]
    assert_same_bits(Path(whole.run), tmp_path / "killed")
    assert logged(tmp_path / "killed") == logged(Path(whole.run))


def test_a_run_stopped_by_sigterm_resumes_to_the_same_bits(
    uninterrupted: tuple[Config, Any], surroundings: dict[str, str], tmp_path: Path
) -> None:
    """The run is resumed by another process."""
    whole, _ = uninterrupted
    config = dataclasses.replace(whole, run=str(tmp_path / "stopped"))
    code, err = ended(config, surroundings, f"step 5/{LONG_RUN}", signal.SIGTERM)
    assert code == 130, err
    saved = checkpoint.load(tmp_path / "stopped").step
    assert f"stopped by SIGTERM after step {saved} of {LONG_RUN}" in err
    assert 5 <= saved < LONG_INTERVAL

    resumed = trained(config, surroundings, "--resume")
    err = resumed.stderr
    assert resumed.returncode == 0, err
    assert f"after step {saved} of {LONG_RUN}" in err
    assert f"step {saved}/" not in err
    assert f"step {saved + 1}/{LONG_RUN}" in err
    assert_same_bits(Path(whole.run), tmp_path / "stopped")
    assert logged(tmp_path / "stopped") == logged(Path(whole.run))


def killed_as_it_saves(place: str, *arguments: str) -> None:
    """Is `cacl`, and gets SIGKILL while it writes its second checkpoint, at this place."""
    save, replace, saves = torch.save, os.replace, 0

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    class Torn:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: bytes) -> None:
            self.file.write(bytes(data)[: len(data) // 2])
            self.file.flush()
            kill()

    def save_or_die(values: Any, file: Any) -> None:
        nonlocal saves
        saves += 1
        save(values, cast("Any", Torn(file)) if saves == 2 and place == "half written" else file)

    def replace_or_die(source: Any, target: Any) -> None:
        if saves == 2 and str(target).endswith("checkpoint.pt"):
            kill()
        replace(source, target)

    torch.save, os.replace = save_or_die, replace_or_die
    forked.cacl(*arguments)


@pytest.mark.parametrize("place", ["half written", "not yet in its place"])
def test_a_kill_while_a_checkpoint_is_written(
    configured: Callable[..., Config], surroundings: dict[str, str], tmp_path: Path, place: str
) -> None:
    """What is left of the second one is not taken for a checkpoint, the first one is whole, and the next run leaves
    nothing lying about."""
    whole = configured(tmp_path / "whole", 4, 1)
    config, run = dataclasses.replace(whole, run=str(tmp_path / "killed")), tmp_path / "killed"
    (tmp_path / "config.toml").write_text(configuration.to_toml(config))
    killed = forked.run(
        killed_as_it_saves, place, "train", "-c", tmp_path / "config.toml", environment=os.environ | surroundings
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    def unfinished() -> list[Path]:
        return [path for path in run.glob("*") if not path.name.startswith(WRITTEN)]

    assert checkpoint.load(run).step == 1
    (left,) = unfinished()
    if place == "half written":
        with pytest.raises(CaclError, match="damaged"):
            checkpoint.load(left)
    else:
        assert checkpoint.load(left).step == 2

    train(whole)
    assert len(observed(config, resume=True)) == 3
    assert unfinished() == []
    assert_same_bits(tmp_path / "whole", run)
