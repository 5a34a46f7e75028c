"""`cacl data scan` and `cacl data synth` from end to end, and what other commands say of the videos they find."""

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cacl.loaders.sampling.rng import RandomStream
from cacl.loaders.synthetic.dataset import DEFAULT_RATE, encode
from cacl.loaders.synthetic.render import render
from tests.commands.finished import Run, result


def test_a_scan_lists_every_video(cacl: Run, videos: Path) -> None:
    arguments = ["data", "scan", videos, "-s", "clip.frames=8", "--json"]
    found = result(cacl(*arguments))
    assert (found["layout"], found["rejected"], found["missing"]) == ("csv", [], [])
    assert [(v["path"], v["frames"], v["label"], v["split"], v["attributes"]) for v in found["videos"]] == [
        (f"{label}/{n}.mp4", 8 + n, label, "test" if n == 3 else "train", {"colour": "blue" if n % 2 else "red"})
        for label in ("run", "walk")
        for n in range(4)
    ]
    for_people = cacl(*arguments[:-1])
    assert for_people.returncode == 0
    assert f"{videos}: layout csv\n8 usable videos, 76 frames\n" in for_people.stdout
    assert "frames    8 to 11, median 9.5\n" in for_people.stdout


def test_what_was_guessed_or_is_missing_is_said_by_every_command(
    cacl: Run, videos: Path, config_file: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(videos, tmp_path / "odd", ignore=shutil.ignore_patterns("labels.csv"))
    (root / "Train.txt").write_text("".join(f"RUN/{n}.mp4 0\n" for n in range(4)) + "run/gone.mp4 0\n")
    (root / "unread.json").write_text('["run/0.mp4"]')
    notes = [
        "Train.txt: without a header, taken for a list of path, label",
        "splits told by the names of lists: train by Train.txt",
        "listed names that are not quite those of their files: 4, such as RUN/0.mp4 for run/0.mp4; matched without "
        "regard to case, suffix and folders in front",
        f"{root}/unread.json: names videos, but not in a form that is read: give it as CSV under a header such as "
        "path,label,split; it is not used (layout csv takes Train.txt)",
    ]
    short = ["-s", "clip.frames=8"]
    found = result(cacl("data", "scan", root, *short, "--json"))
    assert (found["notes"], found["missing"]) == (notes, ["run/gone.mp4"])
    printed = cacl("data", "scan", root, *short).stdout
    assert all(f"note      {note}\n" in printed for note in notes)
    assert "missing   run/gone.mp4: listed, but not there\n" in printed
    arguments = ["-s", f"data.root={root}", "-s", f"run={tmp_path / 'run'}", "-s", "train.batch_size=2"]
    said = cacl("train", "-c", config_file, *arguments).stderr
    notes_said = "".join(f"note: {note}\n" for note in notes)
    assert said.startswith(f"{notes_said}listed videos that are not there: 1\n  run/gone.mp4\n")
    assert cacl("eval", "retrieval", tmp_path / "run").stderr.startswith(notes_said)
    prepared = cacl("data", "prepare", root, tmp_path / "prepared", "--json")
    assert (result(prepared)["notes"], result(prepared)["missing"]) == (notes, ["run/gone.mp4"])
    assert result(cacl("data", "scan", tmp_path / "prepared", *short, "--json"))["notes"] == notes


def test_a_scan_for_short_clips_asks_nothing_of_the_model(cacl: Run, videos: Path) -> None:
    """c3d, the default, could not take 4 frames; but nobody trains here."""
    assert len(result(cacl("data", "scan", videos, "-s", "clip.frames=4", "--json"))["videos"]) == 8


@pytest.mark.parametrize("name", ["a b", "[bold]a[/bold]", "a'b", 'a"b', "a\\b", "ä視", "😀", "a\x7fb"])
def test_a_scan_takes_folders_of_any_name(
    cacl: Run, make_video: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    make_video(tmp_path / name / "a.mp4", frames=8, size=(32, 24))
    found = result(cacl("data", "scan", tmp_path / name, "-s", "clip.frames=8", "--json"))
    assert found["root"] == str(tmp_path / name)
    assert len(found["videos"]) == 1


def test_a_scan_prints_names_that_are_no_utf8(
    interpreter: Run, make_video: Callable[..., Path], tmp_path: Path
) -> None:
    video = make_video(tmp_path / "videos/a.mp4", frames=8, size=(32, 24))
    for name in (b"\xfe.mp4", b"\xff.mp4"):
        Path(os.fsdecode(os.fsencode(video.parent) + b"/" + name)).write_bytes(b"no video")
    arguments = ["data", "scan", video.parent, "-s", "clip.frames=8", "-s", "data.max_rejected_share=1"]
    finished = interpreter(*arguments, environment={"PYTHONIOENCODING": "utf-8:strict"})
    assert finished.returncode == 0, finished.stderr
    assert "2 of 3 files rejected" in finished.stdout


def test_rejected_files_are_named_to_the_letter(
    cacl: Run, make_video: Callable[..., Path], config_file: Path, tmp_path: Path
) -> None:
    """By default rich would read markup and emoji codes into the names."""
    root, name = tmp_path / "videos", "[bold]a:dog:ä.mp4"
    for number in range(4):
        make_video(root / f"{number}.mp4", frames=8, size=(32, 24))
    (root / name).write_text("no video")
    arguments = ["-s", f"data.root={root}", "-s", "data.max_rejected_share=0.5", "-s", f"run={tmp_path / 'run'}"]
    finished = cacl("train", "-c", config_file, *arguments)
    assert finished.returncode == 0
    first, second, *_ = finished.stderr.splitlines()
    assert first == "1 of 5 files cannot be used:"
    assert second.startswith(f"  {name}: cannot be opened as a video (")


def test_synth_prints_where_its_list_lies(interpreter: Run, tmp_path: Path) -> None:
    root = tmp_path / "synth"
    made = interpreter("data", "synth", root, "--train", 0, "--test", 0, "--val", 1, "--seed", 5, "--json")
    assert result(made) == {"labels": str(root / "labels.csv")}
    assert made.stderr == ""
    with (root / "labels.csv").open() as rows:
        assert [row["split"] for row in csv.DictReader(rows)] == ["val"] * 48
    assert len(list(root.glob("videos/*.mp4"))) == 48
    encode(tmp_path / "again.mp4", render("left", "checkerboard", RandomStream(5, 0, 0)), DEFAULT_RATE)
    assert (tmp_path / "again.mp4").read_bytes() == (root / "videos/left_checkerboard_00.mp4").read_bytes()
