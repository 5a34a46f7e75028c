"""`cacl ablate` from end to end: what it trains and tells, what it does not do twice, and what becomes of failures."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cacl.checkpoints.encoders import EncoderWeights
from cacl.evaluation.retrieval import SCORES
from tests.commands.finished import Finished, Run, result

pytestmark = pytest.mark.usefixtures("one_thread")


def cells_of(found: Any) -> dict[tuple[str, str], Any]:
    """Returns the cells of the only table by row and feature."""
    (table,) = found["tables"]
    return {(cell["row"], cell["feature"]): cell for cell in table["cells"]}


def states_of(found: Any) -> dict[tuple[str, str], str]:
    return {(name, seed): run["state"] for name, row in found["rows"].items() for seed, run in row["runs"].items()}


def written(folder: Path) -> Any:
    return json.loads((folder / "ablation.json").read_text())


# ------------------------------------------------------------------------------------------------------- the result


@pytest.fixture(scope="module")
def parts(config_file: Path, process: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    """The ablation of the parts of the method with two seeds, in its folder. Tests only look at it."""
    folder = tmp_path_factory.mktemp("parts") / "ablation"
    command = ("ablate", config_file, "--run", folder, "--seeds", "1,0", "--queries", "test", "--json")
    return folder, process(*command)


def test_each_part_of_the_method_has_its_cells(parts: tuple[Path, Finished]) -> None:
    folder, finished = parts
    found = result(finished)
    assert found == written(folder)
    assert (found["reference"], found["seeds"], found["query_split"]) == ("recipe", [1, 0], "test")
    both = ["cnn", "transformer"]
    trained = {
        "cnn alone": ["cnn"],
        "transformer alone": ["transformer"],
        "without order": both,
        "order alone": ["cnn"],
        "recipe": both,
    }
    assert list(found["rows"]) == list(trained)
    assert set(states_of(found).values()) == {"done"}
    assert found["rows"]["without order"]["changes"] == ["losses.order: 1.0 -> 0.0"]
    naive = [(name, "") for name in ("chance", "size and length", "mean frame", "frame difference")]
    untrained = [("untrained", encoder) for encoder in both]
    cells = cells_of(found)
    assert list(cells) == [*naive, *untrained, *((row, encoder) for row in trained for encoder in trained[row])]
    for (row, encoder), cell in cells.items():
        for score in SCORES:
            of_seeds = [cell["by_seed"][seed][score] for seed in ("0", "1")]
            assert cell["mean"][score] == pytest.approx(statistics.fmean(of_seeds))
            assert cell["deviation"][score] == pytest.approx(statistics.stdev(of_seeds))
            assert (cell["min"][score], cell["max"][score]) == (min(of_seeds), max(of_seeds))
            if difference := cell["difference"]:
                expected = cell["mean"][score] - cells["recipe", encoder]["mean"][score]
                assert difference["mean"][score] == pytest.approx(expected)
                low, high = difference["interval"][score]
                assert low <= difference["mean"][score] <= high
        assert (cell["difference"] is None) == (row == "recipe" or not encoder)


def test_each_run_is_one_of_cacl_train_and_is_judged_as_by_cacl_eval(
    cacl: Run, parts: tuple[Path, Finished], config_file: Path, tmp_path: Path
) -> None:
    folder, finished = parts
    found = result(finished)
    run = folder / found["rows"]["cnn alone"]["runs"]["1"]["folder"]
    changes = ("-s", "contrast.pairs=cnn", "-s", "losses.order=0", "-s", "seed=1")
    assert cacl("train", "-c", config_file, *changes, "--run", tmp_path / "run").returncode == 0
    one, other = (EncoderWeights.read(path) for path in (run, tmp_path / "run"))
    assert one.digest == other.digest
    assert one.names == ["cnn"]
    retrieved = cacl("eval", "retrieval", run, "--json")
    assert "features of an earlier evaluation" in retrieved.stderr
    (table,) = result(retrieved)
    scores = table["recall"]["cnn, trained"] | {"mAP": table["mean_average_precision"]["cnn, trained"]}
    assert cells_of(found)["cnn alone", "cnn"]["by_seed"]["1"] == scores


def test_the_table_for_people(cacl: Run, parts: tuple[Path, Finished], config_file: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(parts[0], tmp_path / "copy")
    command = ("ablate", config_file, "--run", folder, "--queries", "test", "--resume", "--label", "label")
    text = cacl(*command, "--seeds", "0,1", "--label", "colour").stdout
    assert max(map(len, text.splitlines()[:-3])) <= 100
    for label in ("label", "colour"):
        assert f"retrieval by {label}: 2 test videos query the training videos of 2 classes" in text
    lines = text.replace(" ", "").splitlines()
    cell = cells_of(result(parts[1]))["order alone", "cnn"]
    mean, deviation = (100 * cell[name]["mAP"] for name in ("mean", "deviation"))
    assert sum(line.startswith(f"│orderalone│cnn│{mean:.1f}±{deviation:.1f}│") for line in lines) >= 1
    assert lines.count("│transformeralone│cnn│-│-│-│-│") == 4  # of two labels and two scores
    assert sum(line.startswith("│meanframe││") and line.endswith("││││") for line in lines) == 4
    alone = cacl(*command, "--seeds", "0").stdout
    assert "±" not in alone
    assert "range" not in alone
    assert "in %: seed 0 alone; difference to row 'recipe', paired by seed and query video" in alone


def test_the_reference_and_the_features_are_chosen(
    cacl: Run, parts: tuple[Path, Finished], config_file: Path, tmp_path: Path
) -> None:
    """A single encoder has no concatenation."""
    folder = shutil.copytree(parts[0], tmp_path / "copy")
    command = ("ablate", config_file, "--run", folder, "--seeds", "0", "--queries", "test", "--resume", "--json")
    cells = cells_of(result(cacl(*command, "--reference", "cnn alone")))
    assert cells["cnn alone", "cnn"]["difference"] is None
    assert cells["transformer alone", "transformer"]["difference"] is None  # there is none in the reference
    assert cells["order alone", "cnn"]["difference"]["seeds"] == [0]
    found = result(cacl(*command, "--features", "concatenation"))
    assert set(states_of(found).values()) == {"done"}
    encoders = [key for key in cells_of(found) if key[1]]
    assert encoders == [(row, "concatenation") for row in ("untrained", "without order", "recipe")]


def test_dry_run_only_prints(cacl: Run, config_file: Path, tmp_path: Path) -> None:
    command = ("ablate", config_file, "--set", f"run={tmp_path / 'run'}", "--row", "low: optim.lr=0.001", "--dry-run")
    lines = cacl(*command).stdout.splitlines()
    assert lines == [
        f"{tmp_path / 'run'}_ablation: 2 rows, seeds 0, 1, 2",
        "low     optim.lr: 0.01 -> 0.001",
        "recipe  no change",
    ]
    values = result(cacl(*command, "--json"))
    assert values["rows"]["low"]["optim"]["lr"] == 0.001
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------- what failed


BROKEN = """
import cacl
from cacl.method.losses import OrderLoss


@cacl.register_loss("broken")
class Broken(OrderLoss):
    def __call__(self, outputs, state):
        raise RuntimeError("no more memory")
"""


def test_a_row_that_fails_is_named_and_the_others_have_their_turn(
    process: Run, config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "ablation"
    command = (
        "ablate", config_file, "--run", folder, "--seeds", "0", "--import", "broken", "--queries", "test",
        "--row", "too fast: optim.lr=1e30", "--row", "broken: losses.broken=1", "--row", "slow: optim.lr=0.001",
    )  # fmt: skip
    finished = process(*command, "--json")
    assert finished.returncode == 1
    found = json.loads(finished.stdout)
    assert found == written(folder)
    assert list(states_of(found).values()) == ["failed", "failed", "done", "done"]
    assert "the loss or its gradient is not finite" in found["rows"]["too fast"]["runs"]["0"]["error"]
    assert found["rows"]["broken"]["runs"]["0"]["error"] == "RuntimeError: no more memory"
    assert {row for row, feature in cells_of(found) if feature} == {"untrained", "slow", "recipe"}
    assert "Traceback" in finished.stderr  # of what is no mistake of the user
    assert finished.stderr.splitlines()[-1] == "cacl: 2 of 4 runs failed: too fast, seed 0; broken, seed 0"

    again = process(*command, "--resume")
    assert again.returncode == 1
    assert "failed: too fast, seed 0: step 2: the loss or its gradient is not finite" in again.stdout
    assert any(line.replace(" ", "").startswith("│broken│seed0failed│-│") for line in again.stdout.splitlines())


# -------------------------------------------------------------------------------------------- what is refused


def test_a_row_that_changed_is_not_mixed_up_with_an_old_one(
    cacl: Run, parts: tuple[Path, Finished], config_file: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(parts[0], tmp_path / "copy")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    command = ("ablate", config_file, "--run", folder, "--seeds", "0", "--queries", "test")
    begun = cacl(*command)
    assert begun.returncode == 2
    assert begun.stderr.endswith("already holds a run: --resume goes on with the ablation, --run begins another\n")
    for arguments, row, change in (
        (
            ["--row", "cnn alone: contrast.pairs=transformer losses.order=0"],
            "cnn alone",
            "contrast.pairs: cnn -> transformer",
        ),
        (["--set", "optim.lr=0.5"], "cnn alone", "optim.lr: 0.01 -> 0.5"),
        (["--row", "new: optim.lr=0.5", "--set", "train.epochs=3.0"], "recipe", "train.epochs: 2.0 -> 3.0"),
    ):
        refused = cacl(*command, *arguments, "--resume")
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1
        assert f"row '{row}', seed 0: " in refused.stderr
        assert f"was begun with another configuration ({change}): set it back" in refused.stderr
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_videos_that_changed_are_not_mixed_up_with_old_ones(
    cacl: Run, parts: tuple[Path, Finished], config_file: Path, videos: Path, tmp_path: Path
) -> None:
    folder, root = shutil.copytree(parts[0], tmp_path / "copy"), shutil.copytree(videos, tmp_path / "others")
    command = ("ablate", config_file, "--run", folder, "--seeds", "0", "--queries", "test", "--resume", "--json")
    moved = cacl(*command, "--set", f"data.root={root}")
    assert cells_of(result(moved)).keys() == cells_of(result(parts[1])).keys()
    shutil.copy(root / "run/1.mp4", root / "run/0.mp4")
    changed = cacl(*command, "--set", f"data.root={root}")
    assert changed.returncode == 1
    found = json.loads(changed.stdout)
    assert set(states_of(found).values()) == {"failed"}
    assert "was begun with other training videos" in found["rows"]["recipe"]["runs"]["0"]["error"]


def test_more_rows_and_seeds_are_added_to_what_is_there(
    cacl: Run, parts: tuple[Path, Finished], config_file: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(parts[0], tmp_path / "copy")
    command = ("ablate", config_file, "--run", folder, "--queries", "test", "--resume", "--json")
    finished = cacl(*command, "--seeds", "0,2", "--row", "cnn alone: contrast.pairs=cnn losses.order=0")
    cells, before = cells_of(result(finished)), cells_of(result(parts[1]))
    assert cells["cnn alone", "cnn"]["by_seed"]["0"] == before["cnn alone", "cnn"]["by_seed"]["0"]
    assert list(cells["recipe", "cnn"]["by_seed"]) == ["0", "2"]
    assert np.isfinite(list(cells["recipe", "cnn"]["by_seed"]["2"].values())).all()
    assert f"{folder / 'recipe/seed2'} holds no checkpoint yet" in finished.stderr
    assert f"{folder / 'recipe/seed0'} holds no checkpoint yet" not in finished.stderr


def test_what_is_wrong_is_told_before_anything_is_trained(
    cacl: Run, config_file: Path, videos: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(videos, tmp_path / "other")
    labels = other / "labels.csv"
    labels.write_text(labels.read_text().replace("walk/2.mp4,walk,red,train", "walk/2.mp4,walk,red,test"))
    folder, test = tmp_path / "ablation", ("--queries", "test")
    for arguments, code, told in (
        ([], 1, "no usable video belongs to the validation split, and the evaluation needs it; --queries test takes"),
        ([*test, "--label", "mood"], 1, "its videos have no 'mood'; the columns of its lists are colour"),
        ([*test, "--features", "dots"], 2, "--features dots: say published, "),
        ([*test, "--seeds", "0,00"], 2, "--seeds 0,00: name different numbers from 0 on"),
        ([*test, "--seeds", ""], 2, "--seeds : name different numbers from 0 on"),
        ([*test, "--set", "seed=1"], 2, "--set seed: --seeds names the seeds of an ablation"),
        ([*test, "--row", "x: optim.lrr=1"], 2, "row 'x': optim.lrr: no such key"),
        ([*test, "--reference", "x"], 2, "--reference x: there is no such row"),
        (
            [*test, "--row", f"x: data.root={other}"],
            1,
            "row 'recipe' would be judged by other test videos than row 'x'",
        ),
    ):
        finished = cacl("ablate", config_file, "--run", folder, *arguments)
        assert finished.returncode == code, finished.stderr
        assert told in finished.stderr.splitlines()[-1]
        assert not list(folder.rglob("*"))
