"""`cacl eval retrieval` prints one table for every form of the encoders, and keeps features that are never stale."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from tests.commands.finished import Finished, Run

REUSED = "features of an earlier evaluation"
FEATURES = [
    "chance",
    "size and length",
    "mean frame",
    "frame difference",
    "cnn, untrained",
    "cnn, trained",
    "transformer, untrained",
    "transformer, trained",
]


def tables(finished: Finished, *, reused: bool) -> Any:
    assert finished.returncode == 0, finished.stderr
    assert (REUSED in finished.stderr) == reused
    return json.loads(finished.stdout)


def test_the_table_holds_every_feature_and_its_baselines(cacl: Run, run: Path) -> None:
    by_label, by_colour = tables(
        cacl("eval", "retrieval", run, "--label", "label", "--label", "colour", "--json"), reused=False
    )
    for table, name in ((by_label, "label"), (by_colour, "colour")):
        assert (table["label"], table["classes"], table["queries"], table["gallery"]) == (name, 2, 2, 6)
        assert list(table["recall"]) == FEATURES
        for recalls in table["recall"].values():
            assert list(recalls) == ["R@1", "R@5", "R@10", "R@20", "R@50"]
            assert list(recalls.values()) == sorted(recalls.values())
            assert recalls["R@10"] == 1  # all of the gallery
    assert by_label["recall"]["chance"]["R@1"] == pytest.approx(3 / 6)
    assert by_colour["recall"]["chance"]["R@1"] == pytest.approx(
        2 / 6
    )  # the test videos are blue, and so are 2 of the 6
    assert by_label["recall"]["chance"]["R@5"] == 1  # only three of the six are wrong
    # By length the nearest of 11 frames are the two of 10, which are red; then come the blue ones.
    assert by_colour["recall"]["size and length"] == {"R@1": 0, "R@5": 1, "R@10": 1, "R@20": 1, "R@50": 1}


def test_every_form_of_the_encoders_gives_the_same_table(cacl: Run, run: Path, tmp_path: Path) -> None:
    """Each copy lies in a folder of its own, so nothing is reused."""
    table = tables(cacl("eval", "retrieval", run, "--json"), reused=False)
    for name in ("checkpoint.pt", "encoders.safetensors"):
        alone = tmp_path / f"only {name}"
        alone.mkdir()
        copy = shutil.copy(run / name, alone)
        assert tables(cacl("eval", "retrieval", copy, "--json"), reused=False) == table
        assert (alone / "features").is_dir()


def test_features_are_reused_whichever_form_is_named(cacl: Run, run: Path) -> None:
    table = tables(cacl("eval", "retrieval", run, "--json"), reused=False)
    kept = {path: path.read_bytes() for path in (run / "features").rglob("*.npy")}
    for form in (run, run / "checkpoint.pt", run / "encoders.safetensors"):
        again = cacl("eval", "retrieval", form, "--json")
        assert tables(again, reused=True) == table
        assert again.stderr.startswith(f"{REUSED}, from {run / 'features'}")
    assert len(kept) == len(FEATURES) - 2
    assert {path: path.read_bytes() for path in (run / "features").rglob("*.npy")} == kept


@pytest.mark.parametrize(
    "override",
    ["retrieval.clips_per_video=3", "clip.stride=2", "augment.crop=[0.5, 0.5]", "loader.backend=reference", "seed=1"],
)
def test_features_are_computed_anew_for_other_settings(cacl: Run, run: Path, override: str) -> None:
    """The seed decides the weights of the untrained encoders."""
    cacl("eval", "retrieval", run)
    tables(cacl("eval", "retrieval", run, "-s", override, "--json"), reused=False)
    tables(cacl("eval", "retrieval", run, "-s", override, "--json"), reused=True)
    tables(cacl("eval", "retrieval", run, "--json"), reused=True)


def test_features_are_kept_across_settings_that_do_not_decide_them(cacl: Run, run: Path) -> None:
    cacl("eval", "retrieval", run)
    tables(
        cacl("eval", "retrieval", run, "-s", "loader.threads=2", "-s", "retrieval.batch_size=3", "--json"), reused=True
    )


def test_features_are_computed_anew_for_other_videos(cacl: Run, run: Path, videos: Path, tmp_path: Path) -> None:
    cacl("eval", "retrieval", run)
    moved = shutil.copytree(videos, tmp_path / "moved")
    tables(cacl("eval", "retrieval", run, "-s", f"data.root={moved}", "--json"), reused=True)
    (moved / "walk/0.mp4").unlink()
    tables(cacl("eval", "retrieval", run, "-s", f"data.root={moved}", "--json"), reused=False)


def mirror(source: Path, target: Path) -> None:
    """Writes a video with other pictures that is otherwise encoded as the source was."""
    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        stream = made.add_stream("libx264", rate=25, options={"g": "4", "sc_threshold": "0", "bf": "0"})
        assert isinstance(stream, VideoStream)
        stream.pix_fmt = "yuv420p"
        stream.width, stream.height = given.streams.video[0].width, given.streams.video[0].height
        for frame in given.decode(video=0):
            image = np.array(frame.to_ndarray(format="rgb24")[:, ::-1], np.uint8)
            made.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        made.mux(stream.encode(None))


def test_features_are_computed_anew_for_other_pictures_under_the_same_names(
    cacl: Run, run: Path, videos: Path, tmp_path: Path
) -> None:
    """Names, sizes, lengths and key frames are the same, as in two sets of `data synth`, but the pixels differ."""
    other = shutil.copytree(videos, tmp_path / "other")
    for video in videos.rglob("*.mp4"):
        mirror(video, other / video.relative_to(videos))
    cacl("eval", "retrieval", run)
    tables(cacl("eval", "retrieval", run, "-s", f"data.root={other}", "--json"), reused=False)


def test_an_unfinished_extraction_is_not_taken_for_a_finished_one(cacl: Run, run: Path) -> None:
    table = tables(cacl("eval", "retrieval", run, "--json"), reused=False)
    (folder,) = (run / "features").iterdir()
    (folder / "finished").unlink()
    assert tables(cacl("eval", "retrieval", run, "--json"), reused=False) == table


def test_damaged_features_cost_time_and_nothing_else(cacl: Run, run: Path) -> None:
    table = tables(cacl("eval", "retrieval", run, "--json"), reused=False)
    array = min((run / "features").rglob("*.npy"))
    array.write_bytes(array.read_bytes()[:50])
    assert tables(cacl("eval", "retrieval", run, "--json"), reused=False) == table


def test_the_table_for_people_has_every_row(cacl: Run, run: Path) -> None:
    finished = cacl("eval", "retrieval", run)
    assert finished.returncode == 0
    title = finished.stdout.splitlines()[0]  # It is longer than the table is wide, and not broken.
    assert re.fullmatch(r"retrieval by label: 2 test videos query 6 training videos of \d classes", title)
    assert all(name in finished.stdout for name in FEATURES)
    assert "50.0" in finished.stdout  # chance, at rank 1


def test_the_split_that_queries_can_be_chosen(cacl: Run, run: Path, videos: Path, tmp_path: Path) -> None:
    """Features are those of all videos, whichever of them query. Videos that neither query nor are queried need no
    label."""
    root = shutil.copytree(videos, tmp_path / "labelled")
    rows = [
        ("run/0", "run", "train"),
        ("run/1", "run", "train"),
        ("walk/0", "walk", "train"),
        ("walk/1", "sit", "train"),
    ]
    rows += [("run/2", "run", "dev"), ("walk/2", "walk", "valid"), ("run/3", "sit", "test"), ("walk/3", "", "")]
    (root / "labels.csv").write_text("path,label,split\n" + "".join(f"{p}.mp4,{label},{s}\n" for p, label, s in rows))
    evaluate = ["eval", "retrieval", run, "-s", f"data.root={root}"]
    (val,) = tables(cacl(*evaluate, "--queries", "val", "--json"), reused=False)
    assert (val["query_split"], val["classes"], val["queries"], val["gallery"]) == ("val", 3, 2, 4)
    assert val["recall"]["chance"]["R@1"] == pytest.approx((2 / 4 + 1 / 4) / 2)
    (test,) = tables(cacl(*evaluate, "--json"), reused=True)
    assert (test["query_split"], test["classes"], test["queries"], test["gallery"]) == ("test", 3, 1, 4)
    assert test["recall"]["chance"]["R@1"] == pytest.approx(1 / 4)
    title = " ".join(cacl(*evaluate, "--queries", "val").stdout.split())
    assert title.startswith("retrieval by label: 2 validation videos query 4 training videos of 3 classes")
    arrays = [np.load(file) for file in (run / "features").rglob("*.npy")]
    assert {len(array) for array in arrays} == {8}
    assert all(array.any(axis=1).all() for array in arrays)


def test_kinetics_is_queried_by_its_validation_list(cacl: Run, run: Path, videos: Path, tmp_path: Path) -> None:
    root = shutil.copytree(videos, tmp_path / "kinetics", ignore=shutil.ignore_patterns("labels.csv"))
    for label in ("run", "walk"):
        for number in range(4):
            (root / label / f"{number}.mp4").rename(root / label / f"{label}{number}_000000_000010.mp4")
    for split, labelled, numbers in (("train", True, (0, 1)), ("validate", True, (2,)), ("test", False, (3,))):
        rows = [f"{name}{n},0,10,{split}" for name in ("run", "walk") for n in numbers]
        lines = [f"{row.partition(',')[0][:-1]},{row}" for row in rows] if labelled else rows
        header = ("label," if labelled else "") + "youtube_id,time_start,time_end,split"
        (root / f"{split}.csv").write_text("\n".join([header, *lines]) + "\n")
    evaluate = ["eval", "retrieval", run, "-s", f"data.root={root}"]
    refused = cacl(*evaluate)
    assert refused.returncode == 1
    assert "note: Kinetics gives no labels for its test videos: its validation list stands for them" in refused.stderr
    assert refused.stderr.endswith("--queries val takes the validation videos\n")
    (table,) = tables(cacl(*evaluate, "--queries", "val", "--json"), reused=False)
    assert (table["query_split"], table["classes"], table["queries"], table["gallery"]) == ("val", 2, 2, 4)
    scanned = cacl("data", "scan", root, "-s", "clip.frames=4").stdout
    assert "splits    train (4), test (2), val (2)\n" in scanned
    assert "note      Kinetics gives no labels" in scanned


def test_held_out_videos_stand_in_for_a_test_split(cacl: Run, run: Path, videos: Path, tmp_path: Path) -> None:
    """This is the way out that the error without splits names."""
    bare = shutil.copytree(videos, tmp_path / "bare", ignore=shutil.ignore_patterns("labels.csv"))
    refused = cacl("eval", "retrieval", run, "-s", f"data.root={bare}")
    assert refused.returncode == 1
    assert "--set data.test_share=0.25" in refused.stderr
    (table,) = tables(
        cacl("eval", "retrieval", run, "-s", f"data.root={bare}", "--set", "data.test_share=0.25", "--json"),
        reused=False,
    )
    assert table["queries"] + table["gallery"] == 8
