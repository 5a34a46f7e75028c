"""`cacl train VIDEOS --run DIR` without a configuration: it chooses the settings, says so, and remembers them."""

import shutil
from pathlib import Path

import pytest

from cacl import config as configuration
from cacl.checkpoints import checkpoint
from tests.commands.finished import Finished, Run, result

GIVEN = {"train.epochs": 1.0, "train.log_every": 1, "clip.frames": 4}


@pytest.fixture(scope="module")
def chosen(videos: Path, process: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    """A run without a configuration, short by `--set`, and what it printed."""
    run = tmp_path_factory.mktemp("chosen") / "run"
    sets = [part for key, value in GIVEN.items() for part in ("--set", f"{key}={value}")]
    return run, process("train", videos, "--run", run, *sets, "--json", environment={"CUDA_VISIBLE_DEVICES": ""})


def choices_in(stderr: str) -> dict[str, str]:
    """The keys that were said to be chosen, and their values as TOML."""
    lines = [line.removeprefix("chosen: ") for line in stderr.splitlines() if line.startswith("chosen: ")]
    choices = dict(line.partition(" (")[0].split(" = ") for line in lines)
    assert len(choices) == len(lines), "a key is said twice"
    assert all(line.endswith(")") and not line.endswith("()") for line in lines), "a reason is missing"
    return choices


def test_what_is_chosen_is_trained_with(chosen: tuple[Path, Finished], videos: Path) -> None:
    run, finished = chosen
    assert result(finished)["steps_taken"] == 3  # 6 videos by 2
    choices = choices_in(finished.stderr)
    written = configuration.load(run / "config.toml")
    sets = [f"{key}={value}" for key, value in (choices | GIVEN).items()]
    assert written == configuration.load(None, sets, {"data.root": str(videos), "run": str(run)})
    assert checkpoint.load(run).config == written
    assert (written.train.batch_size, written.contrast.negatives) == (2, "batch")
    assert written.clip.size == 24  # as high as the videos are


def test_what_is_given_is_not_chosen(chosen: tuple[Path, Finished]) -> None:
    run, finished = chosen
    assert not set(choices_in(finished.stderr)) & set(GIVEN)
    written = configuration.load(run / "config.toml")
    assert (written.train.epochs, written.train.log_every, written.clip.frames) == tuple(GIVEN.values())


def test_a_dry_run_chooses_the_same_and_writes_nothing(
    chosen: tuple[Path, Finished], cacl: Run, videos: Path, tmp_path: Path
) -> None:
    _, trained = chosen
    run = tmp_path / "run"
    sets = [part for key, value in GIVEN.items() for part in ("--set", f"{key}={value}")]
    shown = cacl("train", videos, "--run", run, *sets, "--dry-run")
    assert shown.returncode == 0
    assert choices_in(shown.stderr) == choices_in(trained.stderr)
    (tmp_path / "shown.toml").write_text(shown.stdout)
    written = configuration.load(chosen[0] / "config.toml", [], {"run": str(run)})
    assert configuration.load(tmp_path / "shown.toml") == written
    assert not run.exists()


def test_a_resumed_run_keeps_its_settings(chosen: tuple[Path, Finished], cacl: Run, tmp_path: Path) -> None:
    run = shutil.copytree(chosen[0], tmp_path / "run")
    before = configuration.load(run / "config.toml")
    resumed = cacl("train", "--run", run, "--resume", "--set", "train.log_every=2", "--json")
    assert (result(resumed)["steps"], result(resumed)["steps_taken"]) == (3, 0)
    assert not choices_in(resumed.stderr)
    assert f"{run / 'config.toml'} has the settings of this run; none is chosen anew" in resumed.stderr
    now = configuration.load(run / "config.toml")
    assert configuration.differences(before, now) == [f"run: {chosen[0]} -> {run}", "train.log_every: 1 -> 2"]


def test_resuming_what_has_not_begun_chooses(cacl: Run, videos: Path, tmp_path: Path) -> None:
    shown = cacl("train", videos, "--run", tmp_path / "run", "--resume", "--dry-run")
    assert shown.returncode == 0
    assert "train.batch_size" in choices_in(shown.stderr)


def test_with_a_configuration_nothing_is_chosen(cacl: Run, videos: Path, tmp_path: Path) -> None:
    shown = cacl("train", videos, "--run", tmp_path / "run", "--config", "official", "--dry-run")
    assert (shown.returncode, shown.stderr) == (0, "")


def test_without_videos_there_is_nothing_to_choose_for(cacl: Run, tmp_path: Path) -> None:
    for options in ([], ["--dry-run"], ["--resume"]):
        finished = cacl("train", "--run", tmp_path / "run", *options)
        assert (finished.returncode, finished.stdout) == (2, "")
        assert (
            finished.stderr == "cacl: data.root is not set: give a folder of videos, as in cacl train path/to/videos\n"
        )


def test_a_single_video_is_refused(cacl: Run, videos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    shutil.copy(videos / "run/0.mp4", folder)
    finished = cacl("train", folder, "--run", tmp_path / "run", "--dry-run")
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr.startswith(f"cacl: {folder}: holds a single training video")


def test_labels_without_splits_are_noticed_before_all_videos_are_trained_on(
    cacl: Run, videos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "videos"
    for name in ("run/0.mp4", "run/1.mp4", "walk/0.mp4", "walk/1.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(videos / name, folder / name)
    for options, noted in ([], True), (["--set", "data.test_share=0.5"], False):
        shown = cacl("train", folder, "--run", tmp_path / "run", *options, "--dry-run")
        assert shown.returncode == 0
        assert ("data.test_share = 0.2 holds some out" in shown.stderr) == noted


@pytest.mark.parametrize("override", ["clip.framse=4", "train.batch_size=0", "model.cnn=resnet"])
def test_what_is_given_is_checked_before_the_videos_are_looked_at(cacl: Run, tmp_path: Path, override: str) -> None:
    finished = cacl("train", tmp_path / "nowhere", "--set", override)
    assert finished.returncode == 2
    assert finished.stderr.startswith(f"cacl: {override.partition('=')[0]}")
