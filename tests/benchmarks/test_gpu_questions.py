"""The benchmark that a GPU machine will run once: here its rehearsal, with all that DALI can do on a CPU. Nothing is
timed."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests import forked

pytest.importorskip("nvidia.dali")

from cacl.benchmarks.gpu.questions import QUESTIONS

NEEDS_GPU = ["affinity", "memory", "xvid"]


def loader(*arguments: str) -> None:
    """Is the benchmark. On a CPU, DALI outlives a fork: no question needs the second that it takes to import."""
    import_module("nvidia.dali.fn")
    tempfile.tempdir = None  # The process that this one is forked from may have looked for it already.
    forked.module("benchmarks.gpu.loader", *arguments)


def ask(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Asks in a process that keeps its videos in a folder."""
    command = ["--device", "cpu", "--quick", *arguments]
    return forked.run(loader, *command, environment=os.environ | {"TMPDIR": str(folder)})


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("gpu_loader")
    finished = ask(folder, "--seconds", "0.02", "--out", str(folder / "partial.json"))
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == (folder / "partial.json").read_text()
    assert str(folder) not in finished.stdout, "names a folder"
    assert not list(folder.glob("gpu_loader*")), "leaves its videos behind"
    return json.loads(finished.stdout)


def test_every_question_has_an_answer(result: dict[str, Any]) -> None:
    questions = result["questions"]
    assert list(questions) == list(QUESTIONS)
    assert '"error"' not in json.dumps(questions)
    assert [name for name in questions if "skipped" in questions[name]] == NEEDS_GPU
    assert all(answer["question"].endswith(("?", ".")) for answer in questions.values())


def test_batches_stay_as_they_are(result: dict[str, Any]) -> None:
    answer = result["questions"]["lifetime"]
    for views in ("dali", "triton"):
        assert answer[views] == {"batches": 4, "wrong": []}


def test_colors_are_those_of_pyav(result: dict[str, Any]) -> None:
    """On a CPU: the same conversion to RGB by the same library."""
    for question, sizes in (("colors", 3), ("colors_after_another_size", 4)):
        difference = result["questions"][question]["difference"]
        assert len(difference) == sizes
        assert all(apart["max"] <= 2 for apart in difference.values())


def test_nothing_is_begun_without_time(tmp_path: Path) -> None:
    questions = json.loads(ask(tmp_path, "--budget", "0").stdout)["questions"]
    assert list(questions) == list(QUESTIONS)
    assert all(answer == {"skipped": "no time left"} for answer in questions.values())


def test_cut_files_show_the_frames_asked_for(result: dict[str, Any]) -> None:
    shown = result["questions"]["exact"]["vp9"]
    assert shown["exact"] is True
    assert shown["frames"] == 4 * 8
    assert shown["difference"]["max"] <= 2  # the same conversion to RGB by the same library
    assert shown["nearest_other_frame"] > 5, "the frames of these videos cannot be told apart"


def test_strided_slices_have_an_outcome(result: dict[str, Any]) -> None:
    """Which of both is DALI's affair: this project slices nothing so."""
    outcome = result["questions"]["strided_slices"]
    shares = [share for wrong in outcome["wrong_share"].values() for share in wrong.values()]
    assert outcome["right"] is (max(shares) == 0)


def test_pixels_are_those_of_the_other_backends(result: dict[str, Any]) -> None:
    answer = result["questions"]["pixels"]
    for case in ("prepared, DecodedFrames", "vp9, EncodedSegments"):
        # Half precision rounds by up to 1/16 of a level, DALI and torch differ along the edges of a view that shrinks;
        # `cpu` differs by how chroma is interpolated.
        assert answer[case]["reference"]["mean"] < 0.2
        assert answer[case]["reference"]["p99"] < 3
        assert answer[case]["cpu"]["mean"] < 3


def test_loaders_are_compared_only_when_they_show_the_same(result: dict[str, Any]) -> None:
    rows = result["questions"]["loaders"]["rows"]
    assert {(row["contender"], row["files"]) for row in rows} >= {
        (loader, files) for loader in ("cacl cpu", "cacl dali") for files in ("raw", "prepared")
    }
    for row in rows:
        assert row["stats"] or row["reason"].startswith("skipped: torchcodec"), row
