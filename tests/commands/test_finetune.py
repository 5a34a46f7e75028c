"""`cacl finetune` from end to end: what it takes from where, what it writes, and how it is stopped and goes on."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from cacl import config as configuration
from cacl.checkpoints import checkpoint
from tests import forked
from tests.commands import killed
from tests.commands.finished import Finished, Run, result

SHORT = ("--set", "train.epochs=4", "--set", "optim.warmup_epochs=0")


@pytest.fixture(scope="module")
def labelled(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of six videos of 8 frames, two of them for tests; nothing is said of validation."""
    root, rows = tmp_path_factory.mktemp("labelled"), []
    for first, label in ((0, "run"), (18, "walk")):
        for number in range(6):
            name = f"{label}/{number}.mp4"
            make_video(root / name, frames=8, size=(32, 24), gop=4, first=first)
            rows.append([name, label, f"p{number % 2}", "test" if number == 5 else "train"])
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "person", "split"], *rows])
    return root


def test_a_run_begins_with_the_encoder_and_the_settings_of_another(
    cacl: Run, trained: tuple[Path, Finished], labelled: Path, tmp_path: Path
) -> None:
    run, before = tmp_path / "run", trained[0]
    finished = cacl("finetune", labelled, "--from", before, "--run", run, *SHORT, "--json")
    summary = result(finished)
    assert (summary["run"], summary["steps_taken"]) == (str(run), summary["steps"])
    assert set(summary["best"]) == {"step", "val_accuracy"}
    config, pretrained = configuration.load(run / "config.toml"), configuration.load(before / "config.toml")
    assert (config.clip, config.model) == (pretrained.clip, pretrained.model)
    assert (config.train.batch_size, config.train.device) == (4, "cpu")
    assert (config.finetune.weights, config.data.root) == (str(before), str(labelled))
    recipe = configuration.load("finetune")
    assert (config.finetune.layer_decay, config.optim.name) == (recipe.finetune.layer_decay, recipe.optim.name)
    saved = checkpoint.load(run)
    assert saved.config == config
    assert saved.finetune is not None
    assert saved.finetune.classes == ("run", "walk")
    assert any(line.endswith("validation videos, 2 classes") for line in finished.stderr.splitlines())
    assert "accuracy" in finished.stderr

    text = cacl("finetune", labelled, "--from", before, "--run", tmp_path / "text", *SHORT).stdout.splitlines()
    assert text[0].startswith(f"{tmp_path / 'text'}: {summary['steps']} of {summary['steps']} steps in ")
    assert text[1].startswith("best.pt: ")
    assert len(text) == 2
    found = cacl("eval", "retrieval", run, "--json")
    assert {"cnn, trained", "cnn, untrained"} <= set(result(found)[0]["recall"])


def test_a_fine_tuned_run_is_judged_by_its_own_classifier(
    cacl: Run, trained: tuple[Path, Finished], labelled: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert cacl("finetune", labelled, "--from", trained[0], "--run", run, *SHORT).returncode == 0
    table = result(cacl("eval", "recognition", run, "--crops", "3", "--average", "probabilities", "--json"))
    assert (table["split"], table["videos"], table["classes"]) == ("test", 2, ["run", "walk"])
    assert (table["crops"], table["average"], table["clips_per_video"]) == (3, "probabilities", 2)
    assert {"majority", "fine-tuned"} == set(table["results"])
    text = cacl("eval", "recognition", run).stdout
    assert text.startswith("fine-tuned cnn by label: 2 test videos of 2 classes\nafter step ")
    assert "mean logits of 2 clips in the centre crop" in text
    probes = result(cacl("eval", "recognition", run, "--classifier", "knn", "--json"))
    assert probes[0]["classifier"] == "knn"
    drawn = result(cacl("eval", "recognition", run, "--queries", "val", "--json"))
    assert drawn["videos"] > 0


def test_a_single_class_is_refused(
    cacl: Run, trained: tuple[Path, Finished], tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    for number in range(3):
        make_video(tmp_path / f"videos/run/{number}.mp4", frames=8, size=(32, 24), gop=4)
    (tmp_path / "videos/labels.csv").write_text("path,label\n" + "".join(f"run/{n}.mp4,run\n" for n in range(3)))
    finished = cacl("finetune", tmp_path / "videos", "--from", trained[0], "--run", tmp_path / "run")
    assert finished.returncode == 1
    assert "all training videos have the label 'run', and a classifier needs two" in finished.stderr.splitlines()[-1]


def test_folds_are_different_numbers(cacl: Run, labelled: Path, tmp_path: Path) -> None:
    for folds in ("0,1", "1,1", "one", ""):
        finished = cacl("finetune", labelled, "--run", tmp_path / "run", "--folds", folds)
        assert finished.returncode == 2
        assert finished.stderr.splitlines()[-1].startswith(f"cacl: --folds {folds}: name different numbers")


def test_without_another_run_everything_is_configured(
    cacl: Run, config_file: Path, labelled: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    finished = cacl(
        "finetune", "--config", config_file, "--run", run, "--set", f"data.root={labelled}",
        "--set", "finetune.label=person", "--set", "finetune.encoder=transformer",
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    saved = checkpoint.load(run)
    assert saved.finetune is not None
    assert saved.finetune.classes == ("p0", "p1")
    assert any(name.startswith("encoder.blocks.") for name in saved.model)


def test_dry_run_only_prints(cacl: Run, trained: tuple[Path, Finished], tmp_path: Path) -> None:
    values = result(cacl("finetune", "videos", "--from", trained[0], "--run", tmp_path / "run", "--dry-run", "--json"))
    assert values["finetune"]["weights"] == str(trained[0])
    assert values["model"]["width"] == 0.0625
    assert values["finetune"]["layer_decay"] == 0.75
    assert not (tmp_path / "run").exists()


def test_what_is_wrong_is_one_line(cacl: Run, trained: tuple[Path, Finished], labelled: Path, tmp_path: Path) -> None:
    run = ("--run", tmp_path / "run")
    for arguments, told in (
        (["--from", tmp_path / "gone"], f"{tmp_path / 'gone'}: no such checkpoint"),
        (["--from", trained[0], "--set", "model.cnn=r3d18"], "decide model.cnn: r3d10 -> r3d18: leave that as it is"),
        (["--from", trained[0], "--set", "finetune.label=colour"], "no class of 'colour' has two training videos"),
        (["--from", trained[0], "--set", "finetune.trained=some"], "finetune.trained = 'some'"),
    ):
        finished = cacl("finetune", labelled, *run, *arguments)
        assert finished.returncode != 0
        assert told in finished.stderr.splitlines()[-1]


def test_a_killed_run_goes_on_with_its_own_settings_to_the_same_bits(
    environment: dict[str, str], process: Run, trained: tuple[Path, Finished], labelled: Path, tmp_path: Path
) -> None:
    from cacl.checkpoints.checkpoint import BEST_NAME
    from tests.same_bits import leaves

    common = ("--from", trained[0], "--set", "train.epochs=8", "--set", "train.checkpoint_every=3", "--json")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert result(process("finetune", labelled, "--run", whole, *common))["steps"] > 6

    command = ("finetune", labelled, "--run", parts, *common)
    ended = forked.run(killed.cacl, parts, 5, *command, environment=os.environ | environment)
    assert ended.returncode == -signal.SIGKILL
    assert checkpoint.load(parts).step == 3

    resumed = result(process("finetune", "--run", parts, "--resume", "--json"))
    assert resumed["steps_taken"] == resumed["steps"] - 3
    for name in (checkpoint.CHECKPOINT_NAME, BEST_NAME):
        one, other = checkpoint.load(whole / name), checkpoint.load(parts / name)
        assert (one.step, one.finetune) == (other.step, other.finetune)
        for part in ("model", "optimizer"):
            first, second = (dict(leaves(getattr(saved, part))) for saved in (one, other))
            assert all(
                value.equal(second[key]) if hasattr(value, "equal") else value == second[key]
                for key, value in first.items()
            )
    validated = [
        [json.loads(line).get("val_loss") for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (whole, parts)
    ]
    assert validated[0] == validated[1]
