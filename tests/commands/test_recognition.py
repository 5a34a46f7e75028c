"""`cacl eval recognition` classifies every test video once, by features that are kept, and tells what it chose."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.commands.finished import Finished, Run, result

REUSED = "features of an earlier evaluation"
FEATURES = [
    "majority",
    "size and length",
    "mean frame",
    "frame difference",
    "cnn vector, untrained",
    "cnn vector, trained",
    "transformer vector, untrained",
    "transformer vector, trained",
]


def tables(finished: Finished, *, reused: bool) -> Any:
    found = result(finished)
    assert (REUSED in finished.stderr) == reused
    return found


def test_every_label_and_classifier_has_a_table(cacl: Run, run: Path) -> None:
    found = tables(cacl("eval", "recognition", run, "--label", "label", "--label", "colour", "--json"), reused=False)
    titles = [(table["label"], table["classifier"]) for table in found]
    assert titles == [("label", "knn"), ("label", "linear"), ("colour", "knn"), ("colour", "linear")]
    for table in found:
        videos = table["videos"]
        assert (videos["train"] + videos["validation"], videos["test"]) == (6, 2)
        assert table["validation"] == "drawn from training"
        assert table["chance"] == {"top1": 0.5, "top5": 1, "mean_per_class": 0.5}
        assert list(table["results"]) == FEATURES
        for name, values in table["results"].items():
            confusion = np.array(values["confusion"])
            assert confusion.sum() == 2
            assert values["top1"] == pytest.approx(np.trace(confusion) / 2)
            assert values["mean_per_class"] == pytest.approx(np.mean(list(values["per_class"].values())))
            assert values["top1_interval"][0] <= values["top1"] <= values["top1_interval"][1]
            chosen = {"knn": ["k", "T"], "linear": ["l2"]}[table["classifier"]]
            assert list(values["setting"]) == ([] if name == "majority" else chosen)
    (by_label, *_, by_colour) = found
    assert by_label["classes"] == ["run", "walk"]
    assert by_label["results"]["majority"]["per_class"] == {"run": 1, "walk": 0}  # as many of each: the first
    assert by_colour["results"]["majority"]["per_class"] == {"blue": 0}  # four of the six others are red


def test_features_are_extracted_once(cacl: Run, run: Path) -> None:
    first = tables(cacl("eval", "recognition", run, "--classifier", "knn", "--json"), reused=False)
    both = tables(cacl("eval", "recognition", run, "--json"), reused=True)
    assert both[0] == first[0]
    retrieved = tables(cacl("eval", "retrieval", run, "--json"), reused=False)
    assert tables(cacl("eval", "recognition", run, "--json"), reused=True) == both
    assert tables(cacl("eval", "retrieval", run, "--json"), reused=True) == retrieved


def labelled(videos: Path, folder: Path, rows: dict[str, tuple[str, str]]) -> Path:
    """A copy of the videos with a label and a split for each."""
    root = shutil.copytree(videos, folder)
    lines = [f"{name}.mp4,{label},{split}\n" for name, (label, split) in rows.items()]
    (root / "labels.csv").write_text("path,label,split\n" + "".join(lines))
    return root


ROWS = {
    "run/0": ("run", "train"),
    "run/1": ("run", "train"),
    "run/2": ("run", "val"),
    "run/3": ("run", "test"),
    "walk/0": ("walk", "train"),
    "walk/1": ("walk", "train"),
    "walk/2": ("walk", "val"),
    "walk/3": ("sit", "test"),
}


def test_validation_videos_are_taken_where_there_are_some(cacl: Run, run: Path, videos: Path, tmp_path: Path) -> None:
    root = labelled(videos, tmp_path / "with val", ROWS)
    evaluate = ["eval", "recognition", run, "-s", f"data.root={root}", "--json"]
    table, _ = result(cacl(*evaluate))
    assert table["videos"] == {"train": 4, "validation": 2, "test": 2}
    assert table["validation"] == "val"
    assert table["classes"] == ["run", "sit", "walk"]
    for values in table["results"].values():
        assert values["per_class"]["sit"] == 0  # nobody could learn it
        assert values["confusion"][1][1] == 0
    assert table["chance"]["top1"] == 0.5
    judged_by_val, _ = result(cacl(*evaluate, "--queries", "val"))
    assert judged_by_val["videos"] == {"train": 2, "validation": 2, "test": 2}
    assert judged_by_val["validation"] == "drawn from training"


def test_without_a_pair_of_training_videos_nothing_can_be_chosen(
    cacl: Run, run: Path, videos: Path, tmp_path: Path
) -> None:
    rows = {name: (name if split == "train" else "run/0", split) for name, (_, split) in ROWS.items() if split != "val"}
    root = labelled(videos, tmp_path / "single", rows | {"run/2": ("", ""), "walk/2": ("", "")})
    refused = cacl("eval", "recognition", run, "-s", f"data.root={root}")
    assert refused.returncode == 1
    assert "no class of 'label' has two training videos" in refused.stderr


def test_the_table_for_people_fits_a_hundred_columns(cacl: Run, run: Path) -> None:
    finished = cacl("eval", "recognition", run)
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()
    assert lines[0] == "k-NN by label: 2 test videos of 2 classes"
    assert re.fullmatch(r"settings chosen on \d of the 6 training videos, which it then learns from, too", lines[1])
    assert all(sum(name in line for line in lines) == 2 for name in FEATURES)
    assert max(map(len, lines)) <= 100
    assert "…" not in finished.stdout
