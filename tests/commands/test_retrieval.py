"""`cacl eval retrieval` prints one table for every form of the encoders, and keeps features that are never stale."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cacl.loaders.synthetic.dataset import synthesise
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


def test_features_are_computed_anew_for_other_weights(cacl: Run, run: Path) -> None:
    """A single weight of one encoder has another sign."""
    cacl("eval", "retrieval", run / "encoders.safetensors")
    tensors = load_file(run / "encoders.safetensors")
    with safe_open(run / "encoders.safetensors", framework="pt") as file:
        metadata = file.metadata()
    name = max(name for name in tensors if name.startswith("transformer."))
    tensors[name].view(-1)[-1] *= -1
    save_file(tensors, run / "encoders.safetensors", metadata)
    tables(cacl("eval", "retrieval", run / "encoders.safetensors", "--json"), reused=False)


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
    for note in folder.glob("*.done"):
        done = np.load(note)
        done[3:] = False
        np.save(note.open("wb"), done)
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


def test_every_score_has_its_interval_and_its_classes(cacl: Run, run: Path) -> None:
    """Of two queries, of one class each, a mean is the mean of its classes, and lies between its ends."""
    (table,) = tables(cacl("eval", "retrieval", run, "--json"), reused=False)
    scores = [*table["recall"]["chance"], "mAP"]
    assert table["bootstrap"] == {"resamples": 1000, "confidence": 0.95}
    assert list(table["intervals"]) == list(table["by_class"]) == FEATURES[1:]
    for name in FEATURES[1:]:
        means = table["recall"][name] | {"mAP": table["mean_average_precision"][name]}
        for score in scores:
            low, high = table["intervals"][name][score]
            classes = [table["by_class"][name][label][score] for label in ("run", "walk")]
            assert low == min(classes) <= means[score] <= max(classes) == high  # both queries are drawn now and then
            assert means[score] == pytest.approx(sum(classes) / 2)
    printed = cacl("eval", "retrieval", run, "--per-class").stdout
    assert max(map(len, printed.splitlines())) <= 100
    assert "R@1 of each class" in printed
    assert "mAP of each class" in printed
    assert "intervals by 1000 bootstrap samples of the queries" in printed


def test_groups_query_each_other(cacl: Run, run: Path, videos: Path, tmp_path: Path) -> None:
    """Every video queries those of the other groups. Length alone finds the same number in the other class."""
    root = shutil.copytree(videos, tmp_path / "grouped")
    rows = [f"{label}/{number}.mp4,{label},{number // 2}" for label in ("run", "walk") for number in range(4)]
    (root / "labels.csv").write_text("\n".join(["path,label,pair", *rows]))
    evaluate = ["eval", "retrieval", run, "-s", f"data.root={root}", "--groups"]
    (table,) = tables(cacl(*evaluate, "pair", "--json"), reused=False)
    assert (table["query_split"], table["groups"], table["folds"]) == (None, "pair", 2)
    assert (table["queries"], table["gallery"], table["classes"]) == (8, 8, 2)
    assert table["recall"]["chance"]["R@1"] == pytest.approx(2 / 4)
    assert table["recall"]["size and length"]["R@1"] == 1 / 2  # the nearest lengths are equal, and "run" comes first
    assert table["by_class"]["size and length"]["run"]["R@1"] == 1
    (by_class,) = tables(cacl(*evaluate, "label", "--json"), reused=True)
    assert not any(by_class["recall"]["cnn, trained"].values())  # no label is left in another group
    assert by_class["mean_average_precision"]["chance"] == 0
    title = cacl(*evaluate, "pair").stdout.splitlines()[0]
    assert title == "retrieval by label: 8 videos in 2 groups by pair query the other groups, of 2 classes"
    refused = cacl(*evaluate, "nothing")
    assert refused.returncode == 1
    assert "its videos have no 'nothing'" in refused.stderr


@pytest.fixture
def other(make_video: Callable[..., Path], tmp_path: Path) -> Path:
    """Another set of three training videos and a test video, with a class that the first one has, and a new one."""
    root, rows = tmp_path / "other", ["path,label,split"]
    for name, frames, split in (
        ("walk/a", 11, "train"),
        ("walk/b", 9, "train"),
        ("sit/a", 8, "train"),
        ("sit/b", 8, "test"),
    ):
        make_video(root / f"{name}.mp4", frames=frames, size=(32, 24), gop=4, first=50)
        rows.append(f"{name}.mp4,{name.split('/')[0]},{split}")
    (root / "labels.csv").write_text("\n".join(rows))
    return root


def test_the_gallery_can_be_another_set(cacl: Run, run: Path, videos: Path, other: Path) -> None:
    """The two test videos of 11 frames query three videos, of which the one of 11 frames walks."""
    evaluate = ["eval", "retrieval", run, "--gallery", other]
    finished = cacl(*evaluate, "--json")
    (table,) = tables(finished, reused=False)
    assert (table["gallery_root"], table["query_split"]) == (str(other), "test")
    assert (table["queries"], table["gallery"], table["classes"]) == (2, 3, 2)
    assert table["recall"]["chance"]["R@1"] == pytest.approx((0 + 2 / 3) / 2)
    assert table["by_class"]["size and length"]["walk"] == dict.fromkeys(
        ["R@1", "R@5", "R@10", "R@20", "R@50", "mAP"], 1
    )
    assert not any(table["by_class"]["size and length"]["run"].values())
    assert "note: 1 of 2 labels of the queries are not in the gallery: they score 0\n" in finished.stderr
    title = cacl(*evaluate).stdout.splitlines()[0]
    assert title == f"retrieval by label: 2 test videos query 3 videos of {other}, of 2 classes"

    # The other way round, and features are those that each set has alone.
    back = cacl("eval", "retrieval", run, "-s", f"data.root={other}", "--gallery", videos, "--label", "label", "--json")
    assert back.returncode == 1  # "sit", the one test video
    assert back.stderr.splitlines()[-1] == (
        "cacl: --label label: the 1 labels of the queries (sit) and the 2 of the gallery (run, walk) have nothing in "
        "common; --label takes another column of the lists"
    )
    (both,) = {file.parent for file in (run / "features").rglob("*.npy")}
    together = np.load(both / "cnn,_trained.npy")
    tables(cacl("eval", "retrieval", run, "--json"), reused=False)
    (alone,) = {file.parent for file in (run / "features").rglob("*.npy")} - {both}
    assert together.shape[0] == 8 + 4
    np.testing.assert_array_equal(together[:8], np.load(alone / "cnn,_trained.npy"))


def test_a_gallery_without_splits_is_queried_as_a_whole(cacl: Run, run: Path, other: Path) -> None:
    (other / "labels.csv").unlink()
    (table,) = tables(cacl("eval", "retrieval", run, "--gallery", other, "--json"), reused=False)
    assert (table["queries"], table["gallery"], table["classes"]) == (2, 4, 2)


def test_galleries_that_are_refused(cacl: Run, run: Path, videos: Path, other: Path) -> None:
    refused = cacl("eval", "retrieval", run, "--gallery", videos)
    assert refused.returncode == 2
    assert refused.stderr.endswith(f"--gallery {videos}: is where the queries come from, too; leave it out\n")
    refused = cacl("eval", "retrieval", run, "--gallery", other, "--groups", "colour")
    assert refused.returncode == 2
    assert refused.stderr.endswith(
        f"--gallery {other} with --groups colour: groups are of one data set; leave one out\n"
    )
    refused = cacl("eval", "retrieval", run, "--gallery", other, "--label", "colour")
    assert refused.returncode == 1
    assert f"3 of 3 training videos have no 'colour', {other}/" in refused.stderr


def test_features_that_are_asked_for(cacl: Run, run: Path) -> None:
    (published,) = tables(cacl("eval", "retrieval", run, "--json"), reused=False)
    asked = [part for point in ("map", "vector", "concatenation") for part in ("--features", point)]
    (table,) = tables(cacl("eval", "retrieval", run, *asked, "--json"), reused=False)
    names = ["cnn map", "cnn vector", "transformer vector", "concatenation"]
    assert list(table["recall"]) == FEATURES[:4] + [
        f"{n}, {state}" for n in names for state in ("untrained", "trained")
    ]
    for state in ("untrained", "trained"):
        for name, same in (("cnn", "cnn map"), ("transformer", "transformer vector")):
            assert table["by_class"][f"{same}, {state}"] == published["by_class"][f"{name}, {state}"]
    (folder,) = (run / "features").iterdir()
    arrays = {name: np.load(folder / f"{name}.npy") for name in ("cnn_vector,_trained", "concatenation,_trained")}
    width = arrays["cnn_vector,_trained"].shape[1]
    assert arrays["concatenation,_trained"].shape == (8, width + 16)
    assert max(map(len, cacl("eval", "retrieval", run, *asked).stdout.splitlines())) <= 100
    tables(cacl("eval", "retrieval", run, "--json"), reused=True)
    refused = cacl("eval", "retrieval", run, "--features", "pool")
    assert refused.returncode == 2
    assert refused.stderr.endswith("--features pool: say published, map, vector, concatenation\n")


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


def test_synthetic_videos_are_judged_by_what_their_motion_is(cacl: Run, run: Path, tmp_path: Path) -> None:
    synthesise(tmp_path / "set", videos_per_pair=(1, 1), frames=8, size=(16, 24))
    labels = ("axis", "direction", "speed")
    options = [option for label in labels for option in ("--label", label)]
    by_axis, by_direction, by_speed = tables(
        cacl("eval", "retrieval", run, "-s", f"data.root={tmp_path / 'set'}", *options, "--json"), reused=False
    )
    for table, classes in ((by_axis, 4), (by_direction, 2), (by_speed, 2)):
        assert (table["queries"], table["gallery"], table["classes"]) == (48, 48, classes)
    assert by_axis["recall"]["chance"]["R@1"] == pytest.approx(1 / 4)
    assert by_direction["recall"]["chance"]["R@1"] == pytest.approx(1 / 2)


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
