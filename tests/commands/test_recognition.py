"""`cacl eval recognition` classifies every test video once, by features that are kept, and tells what it chose."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.commands.finished import Finished, Run, result

pytestmark = pytest.mark.usefixtures("short_probes")

REUSED = "features of an earlier evaluation"
BASELINES = ["majority", "size and length", "mean frame", "frame difference"]
VECTORS, TOKENS = (
    [f"{which} {point}, {state}" for which in ("cnn", "transformer") for state in ("untrained", "trained")]
    for point in ("vector", "tokens")
)


def tables(finished: Finished, *, reused: bool) -> Any:
    found = result(finished)
    assert (REUSED in finished.stderr) == reused
    return found


def test_every_label_and_classifier_has_a_table(cacl: Run, run: Path) -> None:
    found = tables(cacl("eval", "recognition", run, "--label", "label", "--label", "colour", "--json"), reused=False)
    titles = [(table["label"], table["classifier"]) for table in found]
    assert titles == [(label, name) for label in ("label", "colour") for name in ("knn", "linear", "attentive")]
    for table in found:
        videos = table["videos"]
        assert (videos["train"] + videos["validation"], videos["test"]) == (6, 2)
        assert table["validation"] == "drawn from training"
        assert table["chance"] == {"top1": 0.5, "top5": 1, "mean_per_class": 0.5}
        assert list(table["results"]) == BASELINES + (TOKENS if table["classifier"] == "attentive" else VECTORS)
        for name, values in table["results"].items():
            confusion = np.array(values["confusion"])
            assert confusion.sum() == 2
            assert values["top1"] == pytest.approx(np.trace(confusion) / 2)
            assert values["mean_per_class"] == pytest.approx(np.mean(list(values["per_class"].values())))
            assert values["top1_interval"][0] <= values["top1"] <= values["top1_interval"][1]
            chosen = {"knn": ["k", "T"], "linear": ["l2"], "attentive": ["lr", "decay"]}[table["classifier"]]
            assert list(values["setting"]) == ([] if name == "majority" else chosen)
    (by_label, *_, by_colour) = found
    assert by_label["classes"] == ["run", "walk"]
    assert by_label["results"]["majority"]["per_class"] == {"run": 1, "walk": 0}  # as many of each: the first
    assert by_colour["results"]["majority"]["per_class"] == {"blue": 0}  # four of the six others are red


def test_features_are_extracted_once(cacl: Run, run: Path) -> None:
    first = tables(cacl("eval", "recognition", run, "--classifier", "knn", "--json"), reused=False)
    linear = ("--classifier", "knn", "--classifier", "linear")
    assert tables(cacl("eval", "recognition", run, *linear, "--json"), reused=True)[0] == first[0]
    attentive = ("eval", "recognition", run, "--classifier", "attentive", "--json")
    of_tokens = tables(cacl(*attentive), reused=False)
    together = tables(cacl("eval", "recognition", run, "--features", "vector", "--json"), reused=True)
    assert [together[0], together[2]] == first + of_tokens
    retrieved = tables(cacl("eval", "retrieval", run, "--json"), reused=False)
    assert tables(cacl(*attentive), reused=True) == of_tokens
    assert tables(cacl("eval", "retrieval", run, "--json"), reused=True) == retrieved


def test_tokens_are_computed_anew_for_other_weights(cacl: Run, run: Path) -> None:
    """A single weight of the CNN has another sign."""
    attentive = ("eval", "recognition", run / "encoders.safetensors", "--classifier", "attentive", "--json")
    tables(cacl(*attentive), reused=False)
    tables(cacl(*attentive), reused=True)
    tensors = load_file(run / "encoders.safetensors")
    with safe_open(run / "encoders.safetensors", framework="pt") as file:
        metadata = file.metadata()
    name = min(name for name in tensors if name.startswith("cnn."))
    tensors[name].view(-1)[0] *= -1
    save_file(tensors, run / "encoders.safetensors", metadata)
    tables(cacl(*attentive), reused=False)
    before, after = (np.load(path) for path in (run / "features").rglob("cnn_tokens,_trained.npy"))
    assert not np.array_equal(before, after)


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
    evaluate = ["eval", "recognition", run, "-s", f"data.root={root}", "--classifier", "knn", "--json"]
    (table,) = result(cacl(*evaluate))
    assert table["videos"] == {"train": 4, "validation": 2, "test": 2}
    assert table["validation"] == "val"
    assert table["classes"] == ["run", "sit", "walk"]
    for values in table["results"].values():
        assert values["per_class"]["sit"] == 0  # nobody could learn it
        assert values["confusion"][1][1] == 0
    assert table["chance"]["top1"] == 0.5
    (judged_by_val,) = result(cacl(*evaluate, "--queries", "val"))
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
    for names, tables_with_them in ((BASELINES, 3), (VECTORS, 2), (TOKENS, 1)):
        assert all(sum(name in line for line in lines) == tables_with_them for name in names)
    assert max(map(len, lines)) <= 100
    assert "…" not in finished.stdout
