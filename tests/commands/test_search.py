"""`cacl embed` makes an index and `cacl search` searches it; results are on stdout, errors are one line."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.commands.finished import Run, result
from tests.damage import truncated


@pytest.fixture
def folder(videos: Path, tmp_path: Path) -> Path:
    """A copy of the eight videos, of 8 to 11 frames: clips of four frames cut each into two or three."""
    return shutil.copytree(videos, tmp_path / "videos")


def test_an_index_is_made_kept_up_to_date_and_searched(cacl: Run, run: Path, folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    made = cacl("embed", run, folder, "--out", index)
    assert made.returncode == 0, made.stderr
    assert made.stdout == f"{index}: 20 spans of 8 videos: 0 kept, 8 added, 0 changed, 0 removed, 0 cannot be used\n"

    shutil.copy(folder / "walk/2.mp4", folder / "walk/9.mp4")
    truncated(folder / "run/0.mp4")
    (folder / "run/1.mp4").unlink()
    (folder / "labels.csv").unlink()
    again = cacl("embed", run, folder, "--out", index)
    assert again.returncode == 0, again.stderr
    rejected, line = again.stdout.splitlines()
    assert rejected.startswith("rejected  run/0.mp4: ")
    assert line == f"{index}: 19 spans of 7 videos: 6 kept, 1 added, 0 changed, 1 removed, 1 cannot be used"
    summary = result(cacl("embed", run / "encoders.safetensors", folder, "--out", index, "--json"))
    assert (summary["spans"], summary["kept"], summary["added"], summary["removed"]) == (19, 7, 0, 0)
    assert [entry["path"] for entry in summary["rejected"]] == ["run/0.mp4"]

    found = result(cacl("search", index, folder / "walk/9.mp4", "--from", "0.16", "--to", "0.32", "--top", 3, "--json"))
    assert (found["query_start_seconds"], found["query_end_seconds"], found["query_spans"]) == (0.16, 0.32, 1)
    assert found["matches"][0]["score"] == pytest.approx(1, abs=1e-4)  # that of a copy, or of another after two epochs
    assert (len(found["matches"]), found["excluded"], found["root"]) == (3, 2, str(folder))
    shown = cacl("search", index, folder / "walk/9.mp4")
    assert shown.returncode == 0, shown.stderr
    assert "walk/2.mp4" in shown.stdout
    assert "spans of the index that are the query itself, and left out: 3" in shown.stdout
    assert len([line for line in shown.stdout.splitlines() if line.startswith("│")]) == 10


def test_errors_are_one_line(cacl: Run, run: Path, folder: Path, tmp_path: Path) -> None:
    index, query = tmp_path / "index", folder / "run/0.mp4"
    for code, message, *command in (
        (1, "is no index, or not a finished one; `cacl embed` makes it", "search", run, query),
        (1, "no checkpoint.pt in this folder", "embed", folder, folder, "--out", index),
        (1, "does not exist, or may not be read", "embed", run, tmp_path / "gone", "--out", index),
        (2, "is no index, and not empty (checkpoint.pt); name a folder", "embed", run, folder, "--out", run),
        (2, "the weights decide model.width", "embed", run, folder, "--out", index, "--set", "model.width=0.125"),
        (2, "--every 0.0: say a number of seconds above 0", "embed", run, folder, "--out", index, "--every", 0),
    ):
        finished = cacl(*command)
        assert finished.returncode == code, finished.stderr
        (line,) = finished.stderr.splitlines()
        assert line.startswith("cacl: ")
        assert message in line
    assert not index.exists()


def test_a_name_that_is_no_utf8_is_printed(cacl: Run, run: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "run/0.mp4").rename(folder / os.fsdecode(b"run/\xff.mp4"))
    (folder / "labels.csv").unlink()
    summary = result(cacl("embed", run, folder, "--out", tmp_path / "index", "--json"))
    assert [entry["path"] for entry in summary["rejected"]] == [os.fsdecode(b"run/\xff.mp4")]
